"""Axes of a small inline SVG: where values lie, round ticks, grid lines and their labels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vtray.report.fragments import text

STEPS = (1, 2, 5)
TOP, BOTTOM, RIGHT = 10, 26, 20  # SVG units around the plot
LETTER = 6.6  # width of a letter of the labels
LEAST_PLAIN = 1e-6  # smaller ticks have an exponent
SLACK = 1e-9  # 0.3 / 0.1 is a little below 3

STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 0 1.5rem; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(13rem, 100%), 1fr)); }
.charts { margin-bottom: .75rem; }
.charts h3 { margin-top: .4rem; overflow-wrap: anywhere; }
.chart { display: block; width: 100%; height: auto; margin: 0 0 .75rem; }
.chart text { font-size: 12px; fill: var(--faint); }
.chart .grid { stroke: var(--line); }
.key { margin: 0 0 .4rem; font-size: .875rem; color: var(--faint); }
.key span { margin-right: 1rem; white-space: nowrap; }
.key svg { display: inline-block; width: 22px; height: 10px; margin-right: .4rem; }
"""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """A plot of the values x[0] to x[1] across and y[0] to y[1] upwards; `left` is the room of the y labels."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 360
    height: int = 200
    left: int = 48

    def across(self, value: float) -> float:
        """From the left edge."""
        return self.left + (value - self.x[0]) / (self.x[1] - self.x[0]) * (self.width - RIGHT - self.left)

    def down(self, value: float) -> float:
        """From the top edge."""
        return TOP + (self.y[1] - value) / (self.y[1] - self.y[0]) * (self.height - BOTTOM - TOP)

    def frame(self, x_labels: Mapping[float, str], y_labels: Mapping[float, str]) -> list[str]:
        """A line across for each y label, a word below for each x label."""
        lines = [self._line_across(value, words) for value, words in y_labels.items()]
        return lines + [
            f'<text x="{self.across(value):.1f}" y="{self.height - 8}" text-anchor="middle">{text(words)}</text>'
            for value, words in x_labels.items()
        ]

    def _line_across(self, value: float, words: str) -> str:
        y = self.down(value)
        return (
            f'<line class="grid" x1="{self.left}" x2="{self.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"></line>'
            f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{text(words)}</text>'
        )


def svg(parts: Sequence[str], *, size: tuple[int, int], label: str, zoom: float = 1.3) -> str:
    """One picture of the parts, width x height, shown at `zoom` times that at most.

    label: what it shows, for readers who do not see it.
    """
    width, height = size
    body = "\n".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" style="max-width:{round(zoom * width)}px" role="img" '
        f'aria-label="{text(label)}">\n{body}\n</svg>\n'
    )


def round_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten, the outer ones around low and high.

    Equal values get room on both sides. Raises: ValueError if one is not finite, or low is above high.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"an axis needs finite ends in order, got {low} and {high}")
    if high - low <= SLACK * abs(high):
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if high else (0.0, 1.0)
    power = math.floor(math.log10((high - low) / most))
    widths = (float(f"{digit}e{exponent}") for exponent in range(power, power + 4) for digit in STEPS)
    step = next(width for width in widths if _last(high, width) - _first(low, width) < most)
    return [float(f"{number * step:.12g}") for number in range(_first(low, step), _last(high, step) + 1)]


def tick_text(value: float, *, percent: bool = False) -> str:
    """All digits of a tick: 0.0003, 1250, 97.5 %."""
    shown = f"{100 * value if percent else value:.12g}"
    plain = f"{float(shown):.9f}".rstrip("0").rstrip(".") if "e-" in shown and abs(value) >= LEAST_PLAIN else shown
    return f"{plain} %" if percent else plain


def room_for(labels: Iterable[str]) -> int:
    """The `left` of axes with these labels."""
    return round(LETTER * max(map(len, labels), default=0)) + 12


def _first(low: float, step: float) -> int:
    return math.floor(low / step + SLACK)


def _last(high: float, step: float) -> int:
    return math.ceil(high / step - SLACK)
