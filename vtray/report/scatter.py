"""Points over two axes as inline SVG: what something cost against how good it got."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtray.report.axes import Axes, room_for, round_ticks, svg, tick_text
from vtray.report.fragments import text

WIDTH, HEIGHT = 560, 260

STYLE = """
.point { fill: var(--accent); fill-opacity: .75; } .point.k1 { fill: #b9706a; }
.point.best { stroke: var(--ink); stroke-width: 2; fill-opacity: 1; }
"""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point and its words; number 0 is blue, 1 red; best has a ring."""

    x: float
    y: float
    words: str
    number: int = 0
    best: bool = False


def scatter(points: Sequence[Point], *, label: str, x_name: str) -> str:
    """One `<svg>`; y is a share, shown in percent. Empty without points."""
    if not points:
        return ""
    x_ticks = round_ticks(0.0, max(point.x for point in points))
    y_ticks = round_ticks(min(point.y for point in points), max(point.y for point in points))
    y_labels = {value: tick_text(value, percent=True) for value in y_ticks}
    axes = Axes(
        x=(x_ticks[0], x_ticks[-1]),
        y=(y_ticks[0], y_ticks[-1]),
        width=WIDTH,
        height=HEIGHT,
        left=room_for(y_labels.values()),
    )
    x_labels = {value: tick_text(value) for value in x_ticks}
    x_labels[x_ticks[-1]] += f" {x_name}"
    parts = axes.frame(x_labels, y_labels)
    parts += [_dot(axes, point) for point in sorted(points, key=lambda point: point.best)]
    return svg(parts, size=(WIDTH, HEIGHT), label=label)


def _dot(axes: Axes, point: Point) -> str:
    kind = f"point k{point.number % 2}{' best' if point.best else ''}"
    return (
        f'<circle class="{kind}" cx="{axes.across(point.x):.1f}" cy="{axes.down(point.y):.1f}" '
        f'r="{6 if point.best else 4.5}"><title>{text(point.words)}</title></circle>'
    )
