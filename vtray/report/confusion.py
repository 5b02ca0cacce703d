"""Which classes are taken for which: a heat map for up to 40 classes, and the most confused pairs."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtray.report import fragments as html
from vtray.report.axes import svg
from vtray.report.numbers import count_text
from vtray.report.ratios import percent_text
from vtray.report.tables import table

Confusion = NDArray[np.int64]  # K x K: rows are the true classes, columns the predicted ones

MOST_CLASSES = 40
FEW_PAIRS, MOST_PAIRS = 10, 40  # listed below a heat map, and in its place
MOST_CELL, LEAST_CELL, ALL_CELLS = 56, 22, 800  # SVG units
LETTER, DIGIT = 6.8, 6.6  # widths in 12 px type
MOST_LETTERS = 24
FAINTEST, DEEPEST = 0.08, 0.55  # opacity; the counts stay readable on it, on light and dark pages
SLANT = 60  # degrees of the predicted classes' names
RIGHT = 14
LEAST_WIDTH = 640  # pixels; narrower screens scroll

STYLE = """
.confusion text { font-size: 12px; fill: var(--ink); }
.confusion .axis { fill: var(--faint); }
.confusion .right { fill: var(--accent); } .confusion .wrong { fill: #b9706a; }
.confusion .lines { stroke: var(--line); fill: none; }
.confusion svg { min-width: var(--least); }
"""


def confusion_parts(confusion: Confusion, classes: Sequence[str]) -> list[str]:
    """HTML: the heat map if it is readable, and the pairs that are confused most.

    Raises: ValueError if the matrix is not int64 (K, K) of as many classes.
    """
    check_confusion(confusion, classes)
    if not confusion.sum():
        return [html.paragraph("No image was evaluated.")]
    pairs = most_confused(confusion, most=FEW_PAIRS if len(classes) <= MOST_CLASSES else MOST_PAIRS)
    listed = (
        [_pairs_table(pairs, confusion, classes)] if pairs else [html.paragraph("No image was taken wrongly.")]
    )
    if len(classes) > MOST_CLASSES:
        return [html.paragraph(f"The most confused of {count_text(len(classes))} classes.", kind="note"), *listed]
    note = "Rows are the true classes, columns the predicted ones; strong colours are large shares of a row."
    return [html.paragraph(note, kind="note"), confusion_map(confusion, classes), *listed]


def check_confusion(confusion: Confusion, classes: Sequence[str]) -> None:
    expected = (len(classes), len(classes))
    if confusion.shape != expected or not np.issubdtype(confusion.dtype, np.integer):
        raise ValueError(
            f"a confusion matrix of {len(classes)} classes is integer {expected}, "
            f"got {confusion.dtype} {confusion.shape}"
        )


def most_confused(confusion: Confusion, *, most: int) -> list[tuple[int, int]]:
    """At most `most` pairs (true, predicted) that differ, the most frequent first, then in the classes' order."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    places = np.flatnonzero(wrong)
    order = places[np.argsort(-wrong.ravel()[places], kind="stable")][:most]
    return [(int(place) // len(confusion), int(place) % len(confusion)) for place in order]


def _pairs_table(pairs: Sequence[tuple[int, int]], confusion: Confusion, classes: Sequence[str]) -> str:
    rows = [
        [
            classes[true],
            classes[predicted],
            count_text(int(confusion[true, predicted])),
            percent_text(confusion[true, predicted] / confusion[true].sum()),
        ]
        for true, predicted in pairs
    ]
    return table(("true class", "predicted", "images", "of the true class"), rows, text_columns=2)


def confusion_map(confusion: Confusion, classes: Sequence[str]) -> str:
    """The matrix as one `<svg>`: right answers in the accent colour, wrong ones in red."""
    grid = _Grid.around(classes)
    parts = [_names(grid, classes), _lines(grid)]
    parts += [_cell(grid, (int(true), int(taken)), confusion, classes) for true, taken in np.argwhere(confusion)]
    drawn = svg(parts, size=grid.size, label=f"Confusion matrix of {len(classes)} classes", zoom=1.0)
    least = min(LEAST_WIDTH, grid.size[0])
    return f'<div class="scroll confusion" style="--least:{least}px">{drawn}</div>\n'


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Where the cells lie; `room` is the width of the longest name."""

    num_classes: int
    cell: int
    room: int

    @classmethod
    def around(cls, classes: Sequence[str]) -> "_Grid":
        cell = max(LEAST_CELL, min(MOST_CELL, ALL_CELLS // len(classes)))
        longest = max(_num_letters(shortened(name)) for name in classes)
        return cls(num_classes=len(classes), cell=cell, room=round(LETTER * max(longest, 12)))

    @property
    def left(self) -> int:
        return self.room + 10

    @property
    def top(self) -> int:
        return round(self.room * math.sin(math.radians(SLANT))) + 14

    @property
    def side(self) -> int:
        return self.num_classes * self.cell

    @property
    def size(self) -> tuple[int, int]:
        beyond = self.room * math.cos(math.radians(SLANT)) - self.cell / 2
        return self.left + self.side + max(RIGHT, round(beyond)), self.top + self.side + 2


def shortened(name: str, most: int = MOST_LETTERS) -> str:
    """The name with `…` for its middle if it is longer; wide letters count twice."""
    if _num_letters(name) <= most:
        return name
    first, last = name, name
    while _num_letters(first) > most // 2:
        first = first[:-1]
    while _num_letters(last) > most - most // 2 - 1:
        last = last[1:]
    return f"{first}…{last}"


def _num_letters(name: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)


def _names(grid: _Grid, classes: Sequence[str]) -> str:
    parts = [
        f'<text class="axis" x="{grid.left - 8}" y="{grid.top - 8}" text-anchor="end">true \\ predicted</text>'
    ]
    for place, name in enumerate(classes):
        middle = (place + 0.5) * grid.cell
        x, y = grid.left + middle + 4, grid.top - 6
        title = f"<title>{html.text(name)}</title>{html.text(shortened(name))}</text>"
        parts.append(f'<text x="{grid.left - 8}" y="{grid.top + middle + 4:.1f}" text-anchor="end">{title}')
        parts.append(f'<text x="{x:.1f}" y="{y}" transform="rotate(-{SLANT} {x:.1f} {y})">{title}')
    return "\n".join(parts)


def _lines(grid: _Grid) -> str:
    """The lines between the cells as one path."""
    steps = [place * grid.cell for place in range(grid.num_classes + 1)]
    across = "".join(f"M{grid.left},{grid.top + step}h{grid.side}" for step in steps)
    down = "".join(f"M{grid.left + step},{grid.top}v{grid.side}" for step in steps)
    return f'<path class="lines" d="{across}{down}"></path>'


def _cell(grid: _Grid, place: tuple[int, int], confusion: Confusion, classes: Sequence[str]) -> str:
    """The count in its cell, if it fits; what it means in a tooltip."""
    true, predicted = place
    count = int(confusion[place])
    share = count / int(confusion[true].sum())
    words = f"{classes[true]} taken for {classes[predicted]}: {count_text(count)}, {percent_text(share)}"
    # a wrong answer is rare: its root keeps one in a hundred visible
    strength = share if true == predicted else share**0.5
    x, y = grid.left + predicted * grid.cell, grid.top + true * grid.cell
    shown = count_text(count) if DIGIT * len(count_text(count)) <= grid.cell - 2 else ""
    return (
        f'<g><title>{html.text(words)}</title><rect class="{"right" if true == predicted else "wrong"}" '
        f'x="{x + 1}" y="{y + 1}" width="{grid.cell - 2}" height="{grid.cell - 2}" '
        f'fill-opacity="{FAINTEST + (DEEPEST - FAINTEST) * strength:.2f}"></rect>'
        f'<text x="{x + grid.cell / 2:g}" y="{y + grid.cell / 2 + 4:g}" text-anchor="middle">{shown}</text></g>'
    )
