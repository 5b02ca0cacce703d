"""Learning rate by frozen depth: the best accuracy of the trials in each cell, as inline SVG."""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vtray.report import fragments as html
from vtray.report.axes import svg
from vtray.report.numbers import number_text
from vtray.report.ratios import percent_text
from vtray.report.search_findings import TrialRow

MOST_COLUMNS = 8  # more learning rates share columns of equal ratios
CELL_WIDTH, CELL_HEIGHT, GAP = 74, 34, 2
LETTER = 6.8
FAINTEST, DEEPEST = 0.06, 0.62  # opacity; words stay readable on it
TOP, BOTTOM = 8, 44

STYLE = """
.map text { font-size: 12px; fill: var(--ink); }
.map .axis { fill: var(--faint); }
.map .heat { fill: var(--accent); }
.map .blank { fill: none; stroke: var(--line); }
.map .frame { fill: none; stroke: var(--ink); stroke-width: 2; }
"""


@dataclass(frozen=True)
class Column:
    """Learning rates from low to high, both included; one rate where they are equal."""

    low: float
    high: float

    @property
    def words(self) -> str:
        return short(self.low) if self.low == self.high else f"{short(self.low)} – {short(self.high)}"


def columns_of(rates: Sequence[float]) -> list[Column]:
    """A column for each learning rate, or MOST_COLUMNS columns of equal ratios over all of them."""
    distinct = sorted(set(rates))
    if len(distinct) <= MOST_COLUMNS:
        return [Column(rate, rate) for rate in distinct]
    step = (distinct[-1] / distinct[0]) ** (1 / MOST_COLUMNS)
    edges = [distinct[0] * step**place for place in range(MOST_COLUMNS + 1)]
    return [Column(low, high) for low, high in itertools.pairwise(edges)]


def column_index(columns: Sequence[Column], rate: float) -> int:
    """The column of a learning rate: the nearest on a logarithmic scale where rounding leaves it between two."""
    inside = [place for place, column in enumerate(columns) if column.low <= rate <= column.high]
    if inside:
        return inside[0]
    return min(range(len(columns)), key=lambda place: abs(math.log(rate / columns[place].low)))


def heat_map(trials: Sequence[TrialRow], depths: dict[int, str], *, best: str) -> str:
    """One `<svg>`: a row for each depth that was tried, none frozen at the top. depths: number -> name."""
    columns = columns_of([trial.lr for trial in trials])
    rows = sorted({trial.depth for trial in trials})
    cells: defaultdict[tuple[int, int], list[TrialRow]] = defaultdict(list)
    for trial in trials:
        cells[rows.index(trial.depth), column_index(columns, trial.lr)].append(trial)
    names = [depths[row] for row in rows]
    left = round(LETTER * max(map(len, names))) + 14
    values = [trial.top1 for trial in trials if trial.top1 is not None]
    scale = (min(values), max(values)) if values else (0.0, 1.0)
    parts = [
        _cell((left + column * CELL_WIDTH, TOP + row * CELL_HEIGHT), cells.get((row, column), []), scale, best)
        for row in range(len(rows))
        for column in range(len(columns))
    ]
    parts += _words(names, columns, left)
    size = (left + len(columns) * CELL_WIDTH + 10, TOP + len(rows) * CELL_HEIGHT + BOTTOM)
    drawn = svg(parts, size=size, label="Best accuracy by learning rate and frozen stages", zoom=1.1)
    return f'<div class="scroll map">{drawn}</div>\n'


def _cell(corner: tuple[int, int], trials: Sequence[TrialRow], scale: tuple[float, float], best: str) -> str:
    """The best trial of a cell; an empty frame where there is none, a cross where all failed."""
    x, y = corner
    box = f'x="{x + GAP}" y="{y + GAP}" width="{CELL_WIDTH - 2 * GAP}" height="{CELL_HEIGHT - 2 * GAP}" rx="3"'
    middle = f'x="{x + CELL_WIDTH / 2:g}" y="{y + CELL_HEIGHT / 2 + 4:g}" text-anchor="middle"'
    title = f"<title>{html.text('; '.join(map(_told, trials)))}</title>" if trials else ""
    sound = [trial.top1 for trial in trials if trial.top1 is not None]
    if not sound:
        mark = f"<text {middle}>×</text>" if trials else ""
        return f'<g>{title}<rect class="blank" {box}></rect>{mark}</g>'
    low, high = scale
    strength = (max(sound) - low) / (high - low) if high > low else 1.0
    opacity = FAINTEST + (DEEPEST - FAINTEST) * strength
    frame = f'<rect class="frame" {box}></rect>' if any(trial.name == best for trial in trials) else ""
    return (
        f'<g>{title}<rect class="heat" {box} fill-opacity="{opacity:.2f}"></rect>{frame}'
        f"<text {middle}>{html.text(percent_text(max(sound)))}</text></g>"
    )


def _told(trial: TrialRow) -> str:
    reached = trial.reason if trial.top1 is None else percent_text(trial.top1)
    return f"trial {trial.name}, lr {number_text(trial.lr)}: {reached}, {trial.status}"


def _words(names: Sequence[str], columns: Sequence[Column], left: int) -> list[str]:
    """The depths on the left, the learning rates below, and what they are."""
    below = TOP + len(names) * CELL_HEIGHT
    parts = [
        f'<text x="{left - 8}" y="{TOP + (place + 0.5) * CELL_HEIGHT + 4:g}" text-anchor="end">'
        f"{html.text(name)}</text>"
        for place, name in enumerate(names)
    ]
    for place, column in enumerate(columns):
        x = left + (place + 0.5) * CELL_WIDTH
        lines = column.words.split(" – ")
        shown = lines[0] if len(lines) == 1 else f"{lines[0]} –"
        parts.append(
            f'<text class="axis" x="{x:g}" y="{below + 15}" text-anchor="middle">{html.text(shown)}</text>'
        )
        if len(lines) > 1:
            parts.append(f'<text class="axis" x="{x:g}" y="{below + 29}" text-anchor="middle">{lines[1]}</text>')
    parts.append(f'<text class="axis" x="{left - 8}" y="{below + 15}" text-anchor="end">learning rate</text>')
    return parts


def short(rate: float) -> str:
    """0.00012 -> 1.2e-4, in as few letters as tell it."""
    digits, _, exponent = f"{rate:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"
