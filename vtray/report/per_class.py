"""Precision, recall and F1 of each class as a table, the worst classes first."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vtray.report import fragments as html
from vtray.report.classifier_findings import PerClass, SplitFindings
from vtray.report.confusion import check_confusion
from vtray.report.numbers import count_text
from vtray.report.ratios import DASH, percent_text
from vtray.report.tables import Cell, Tinted, table

MOST_CLASSES = 40
WORST_LACK = 0.5  # to 100 %: the deepest tint
MEASURES = ("precision", "recall", "F1")


def per_class_parts(split: SplitFindings, classes: Sequence[str]) -> list[str]:
    """HTML: the table, and how many classes are not in it; nothing if the split has no `per_class`.

    Raises: ValueError for arrays of another length than the classes.
    """
    if split.per_class is None:
        return []
    measures, support = _checked(split.per_class, len(classes))
    order = _worst_first(measures[:, 2], support)
    taken = _taken_for(split.confusion, classes)
    rows = [
        _row(classes[place], measures[place], int(support[place]), taken[place]) for place in order[:MOST_CLASSES]
    ]
    columns = ("class", "mostly taken for", *MEASURES, "images")
    return [table(columns, rows, text_columns=2), *_notes(support)]


def _notes(support: NDArray[np.int64]) -> list[str]:
    lines = []
    if len(support) > MOST_CLASSES:
        lines.append(f"The {MOST_CLASSES} classes with the lowest F1 of {count_text(len(support))}.")
    if empty := int((support == 0).sum()):
        lines.append(f"Classes without any image: {count_text(empty)}.")
    return [html.paragraph(" ".join(lines), kind="note")] if lines else []


def _checked(per_class: PerClass, num_classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(K, 3) precision, recall, F1 and (K,) support."""
    arrays = [np.asarray(values, np.float64) for values in (per_class.precision, per_class.recall, per_class.f1)]
    support = np.asarray(per_class.support, np.int64)
    if any(array.shape != (num_classes,) for array in (*arrays, support)):
        shapes = ", ".join(str(array.shape) for array in (*arrays, support))
        raise ValueError(f"precision, recall, f1 and support need shape ({num_classes},), got {shapes}")
    return np.stack(arrays, axis=1), support


def _worst_first(f1: NDArray[np.float64], support: NDArray[np.int64]) -> list[int]:
    """Classes with images by their F1, those without any at the end; equal ones in the classes' order."""
    known = np.where(np.isfinite(f1), f1, 0.0)
    return [int(place) for place in np.lexsort((known, support == 0))]


def _taken_for(confusion: NDArray[np.int64] | None, classes: Sequence[str]) -> list[str]:
    """For each class the one that most of its wrongly recognised images were taken for, and how many."""
    if confusion is None:
        return [DASH] * len(classes)
    check_confusion(confusion, classes)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    most = wrong.argmax(axis=1)
    return [
        f"{classes[other]} ({count_text(int(row[other]))})" if row[other] else DASH
        for row, other in zip(wrong, most, strict=True)
    ]


def _row(name: str, measures: NDArray[np.float64], support: int, taken: str) -> list[Cell]:
    """Tinted by what is missing to 100 %; a class without images has no recall."""
    cells = [_cell(float(value), known=bool(support)) for value in measures]
    return [name, taken, *cells, count_text(support)]


def _cell(value: float, *, known: bool) -> Cell:
    return Tinted(percent_text(value), (1 - value) / WORST_LACK) if known and np.isfinite(value) else DASH
