"""Lines over a common axis as inline SVG; a value that is not a number leaves a gap in its line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vtray.report.axes import Axes, room_for, round_ticks, svg, tick_text
from vtray.report.fragments import text
from vtray.report.numbers import number_text
from vtray.report.ratios import percent_text

MOST_DOTS = 60  # a longer line has none, but where it is a single point
MOST_X_LABELS = 8

STYLE = """
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.k0 { stroke: var(--accent); } .k1 { stroke: #b9706a; } .k0.dot { fill: var(--accent); } .k1.dot { fill: #b9706a; }
.k1.curve { stroke-dasharray: 5 3; }
.level { stroke: var(--faint); stroke-dasharray: 2 4; }
"""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A named line through points of finite x in ascending order; number 0 is blue, 1 red and dashed."""

    name: str
    points: tuple[Point, ...]
    number: int = 0

    @property
    def finite(self) -> list[Point]:
        return [point for point in self.points if math.isfinite(point[1])]


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Curves with their axes.

    percent: the values are shares. y_range: the y axis, otherwise from the values. x_words: of x values that are
    not shown as numbers. level: y of a dotted line across.
    """

    label: str
    curves: tuple[Curve, ...]
    percent: bool = False
    y_range: tuple[float, float] | None = None
    x_words: Mapping[float, str] = field(default_factory=dict)
    level: float | None = None
    size: tuple[int, int] = (360, 200)


def line_chart(chart: LineChart) -> str:
    """One `<svg>`, or an empty text if no curve has a finite value; its CSS is that of `axes` and STYLE."""
    points = [point for curve in chart.curves for point in curve.finite]
    if not points:
        return ""
    y_labels = {
        value: tick_text(value, percent=chart.percent) for value in _y_ticks(chart, [y for _, y in points])
    }
    axes = Axes(
        x=_x_range([x for x, _ in points]),
        y=(min(y_labels), max(y_labels)),
        width=chart.size[0],
        height=chart.size[1],
        left=room_for(y_labels.values()),
    )
    parts = axes.frame(_x_labels(chart, sorted({x for x, _ in points})), y_labels)
    if chart.level is not None and axes.y[0] <= chart.level <= axes.y[1]:
        parts.append(_level(axes, chart.level))
    parts += [part for curve in chart.curves for part in _curve(axes, chart, curve)]
    return svg(parts, size=chart.size, label=chart.label)


def key(curves: Sequence[Curve]) -> str:
    """The names of the curves beside a piece of each."""
    return f'<p class="key">{"".join(map(_sample, curves))}</p>\n'


def _sample(curve: Curve) -> str:
    line = f'<path class="curve k{curve.number % 2}" d="M0,5 H22"></path>'
    return f'<span><svg viewBox="0 0 22 10" aria-hidden="true">{line}</svg>{text(curve.name)}</span>'


def _y_ticks(chart: LineChart, values: Sequence[float]) -> list[float]:
    if chart.y_range is not None:
        return round_ticks(*chart.y_range)
    low, high = min(values), max(values)
    if chart.percent and low == high:
        return round_ticks(0.0, 1.0)
    return round_ticks(0.0 if 0 <= low < high / 2 else low, high)


def _x_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 1, high + 1)


def _x_labels(chart: LineChart, values: Sequence[float]) -> dict[float, str]:
    """Every value, or every second, third ... where there are many."""
    every = -(-len(values) // MOST_X_LABELS)
    return {value: chart.x_words.get(value, number_text(value)) for value in values[::every]}


def _level(axes: Axes, value: float) -> str:
    y = axes.down(value)
    left, right = (axes.across(end) for end in axes.x)
    return f'<line class="level" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"></line>'


def _curve(axes: Axes, chart: LineChart, curve: Curve) -> list[str]:
    """One path for each part without a gap, and its dots."""
    parts = []
    for run in _runs(curve.points):
        places = " L".join(f"{axes.across(x):.1f},{axes.down(y):.1f}" for x, y in run)
        if len(run) > 1:
            parts.append(f'<path class="curve k{curve.number % 2}" d="M{places}"></path>')
        if len(run) == 1 or len(curve.points) <= MOST_DOTS:
            parts += [_dot(axes, chart, curve, point) for point in run]
    return parts


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Neighbouring points between values that are not finite."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _dot(axes: Axes, chart: LineChart, curve: Curve, point: Point) -> str:
    x, y = point
    shown = percent_text(y) if chart.percent else number_text(y)
    words = f"{curve.name}, {chart.x_words.get(x, number_text(x))}: {shown}"
    return (
        f'<circle class="dot k{curve.number % 2}" cx="{axes.across(x):.1f}" cy="{axes.down(y):.1f}" r="2.5">'
        f"<title>{text(words)}</title></circle>"
    )
