"""A histogram as inline SVG in the colours of the page: it needs no script and looks the same every time."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vtray.report.fragments import text
from vtray.report.numbers import count_text

MOST_BINS = 24
MOST_LABELS = 13
STEPS = (1, 2, 5)
NEGLIGIBLE = 1e-6  # values that differ by less than this part of them are one value
WIDTH, HEIGHT, TOP, BOTTOM, SIDE = 720, 210, 56, 26, 36  # SVG units; the bars lie inside the last three
MARK_LINE = 16  # from one mark's name to that of the next, which may lie close to it

STYLE = """
.histogram { display: block; width: 100%; max-width: 52rem; height: auto; margin: 0 0 1rem; }
.histogram text { font-size: 12px; fill: var(--faint); text-anchor: middle; }
.histogram rect { fill: var(--accent); }
.histogram line { stroke: var(--line); }
.histogram .mark line { stroke: var(--ink); stroke-dasharray: 3 3; }
.histogram .mark text { fill: var(--ink); }
"""


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Equal bins that begin at `first` times `step`; counts of the values in each."""

    first: int
    step: float
    counts: tuple[int, ...]

    def edge(self, number: int) -> float:
        """Where a bin begins; that of the number behind the last one is the end."""
        return (self.first + number) * self.step


def bins_of(values: Sequence[float]) -> Bins:
    """At most 24 bins of a round width (1, 2 or 5 times a power of ten) around all values.

    Raises: ValueError if there are no values, or one is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"a histogram needs finite values, got {list(values)[:3]}")
    low, high = min(values), max(values)
    span = high - low if high - low > NEGLIGIBLE * abs(high) else abs(high) or 1.0
    step = _round_step(span)
    numbers = Counter(math.floor(value / step) for value in values)
    first, last = min(numbers), max(numbers)
    return Bins(first=first, step=step, counts=tuple(numbers[number] for number in range(first, last + 1)))


def _round_step(span: float) -> float:
    """The smallest round width of which one less than the most bins cover the span: it may begin inside a bin."""
    power = math.floor(math.log10(span / MOST_BINS))
    widths = (float(f"{digit}e{exponent}") for exponent in (power, power + 1) for digit in STEPS)
    return next(width for width in widths if span / width <= MOST_BINS - 1)


def histogram(values: Sequence[float], *, label: str, marks: Mapping[str, float]) -> str:
    """How often each value occurs, as one `<svg>`; its CSS is STYLE.

    label: what the values are, for readers who do not see it. marks: name -> value of dashed lines; those outside
    the bins are left out. Raises: ValueError as `bins_of`.
    """
    bins = bins_of(values)
    shown = {name: value for name, value in marks.items() if bins.edge(0) <= value <= bins.edge(len(bins.counts))}
    parts = [
        *(_bar(bins, number) for number, count in enumerate(bins.counts) if count),
        f'<line x1="{SIDE}" x2="{WIDTH - SIDE}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"></line>',
        *_edge_labels(bins),
        *(_mark(name, _x(bins, value), line) for line, (name, value) in enumerate(shown.items())),
    ]
    body = "\n".join(parts)
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(label)}">\n'
        f"{body}\n</svg>\n"
    )


def _x(bins: Bins, value: float) -> float:
    """Where a value lies from left to right."""
    return SIDE + (value / bins.step - bins.first) / len(bins.counts) * (WIDTH - 2 * SIDE)


def _bar(bins: Bins, number: int) -> str:
    count = bins.counts[number]
    left, right = _x(bins, bins.edge(number)), _x(bins, bins.edge(number + 1))
    height = count / max(bins.counts) * (HEIGHT - TOP - BOTTOM)
    words = f"{_edge_text(bins, number)} to {_edge_text(bins, number + 1)}: {count_text(count)}"
    return (
        f'<rect x="{left + 1:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{max(right - left - 2, 1):.1f}" '
        f'height="{height:.1f}"><title>{text(words)}</title></rect>'
    )


def _edge_labels(bins: Bins) -> list[str]:
    """The value at every edge, or at every second, third ... where there are many."""
    every = -(-(len(bins.counts) + 1) // MOST_LABELS)
    return [
        f'<text x="{_x(bins, bins.edge(number)):.1f}" y="{HEIGHT - 8}">{_edge_text(bins, number)}</text>'
        for number in range(0, len(bins.counts) + 1, every)
    ]


def _edge_text(bins: Bins, number: int) -> str:
    """With the decimals that tell the edges apart."""
    return f"{bins.edge(number):.{max(0, -math.floor(math.log10(bins.step)))}f}"


def _mark(name: str, x: float, line: int) -> str:
    """A dashed line below its name, which stands one line lower than the mark before."""
    y = 12 + line % 3 * MARK_LINE
    return (
        f'<g class="mark"><line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 4}" y2="{HEIGHT - BOTTOM}"></line>'
        f'<text x="{x:.1f}" y="{y}">{text(name)}</text></g>'
    )
