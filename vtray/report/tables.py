"""Tables with a head: names on the left, numbers on the right, and a tint where a number is bad."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtray.report.fragments import text

STYLE = """
.scroll { overflow-x: auto; margin-bottom: .75rem; }
.columns { min-width: 100%; }
.columns th, .columns td { padding: .2rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }
.columns th { white-space: nowrap; }
.columns thead th { color: var(--faint); font-size: .875rem; vertical-align: bottom; }
.columns .words { min-width: 7rem; text-align: left; white-space: normal; overflow-wrap: anywhere; }
.columns tr > :first-child { padding-left: 0; }
.bars + .scroll, .bars + details { margin-top: 1rem; }
.columns td { white-space: nowrap; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
details { margin: 0 0 .75rem; }
details[open] > summary { margin-bottom: .5rem; }
summary { color: var(--accent); cursor: pointer; font-size: .875rem; }
"""
TINT = "185, 112, 106"
DEEPEST = 0.55  # black and white letters stay readable on it


@dataclass(frozen=True)
class Tinted:
    """A cell with a background: strength 0 is none, 1 the deepest."""

    words: str
    strength: float


Cell = str | Tinted


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, text_columns: int = 1) -> str:
    """A table of rows, each as long as `columns`, in a frame that scrolls sideways on narrow screens.

    The first `text_columns` columns are words on the left, the others numbers on the right; empty without rows.
    """
    if not rows:
        return ""
    head = "".join(_head(name, is_text=place < text_columns) for place, name in enumerate(columns))
    body = "".join(f"<tr>{_cells(row, text_columns)}</tr>\n" for row in rows)
    return (
        f'<div class="scroll"><table class="columns"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def folded(title: str, *bodies: str) -> str:
    """HTML that a click on the title opens."""
    return f"<details><summary>{text(title)}</summary>\n{''.join(bodies)}</details>\n"


def _head(name: str, *, is_text: bool) -> str:
    return f'<th scope="col"{_words(is_text)}>{text(name)}</th>'


def _cells(row: Sequence[Cell], text_columns: int) -> str:
    cells = "".join(_cell(cell, is_text=place < text_columns) for place, cell in enumerate(row[1:], start=1))
    first = row[0].words if isinstance(row[0], Tinted) else row[0]
    return f'<th scope="row" class="words">{text(first)}</th>{cells}'


def _cell(cell: Cell, *, is_text: bool) -> str:
    if isinstance(cell, str):
        return f"<td{_words(is_text)}>{text(cell)}</td>"
    alpha = DEEPEST * min(1.0, max(0.0, cell.strength))
    style = f' style="background:rgba({TINT},{alpha:.2f})"' if alpha >= 0.01 else ""
    return f"<td{style}>{text(cell.words)}</td>"


def _words(is_text: bool) -> str:
    return ' class="words"' if is_text else ""
