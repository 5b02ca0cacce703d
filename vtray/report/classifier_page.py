"""The page about a trained classifier: how it was trained, how good it is on each split, and where it fails."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vtray.report import axes, confusion, line_chart, reliability, robustness, tables
from vtray.report import fragments as html
from vtray.report.classifier_findings import ClassifierFindings, HeadEntry, SplitFindings
from vtray.report.curves import training_curves
from vtray.report.document import Heading, count_bars, document, failures, how_made, time_by_phase
from vtray.report.numbers import count_text
from vtray.report.per_class import per_class_parts
from vtray.report.ratios import DASH, decimals_text, interval_text, percent_text
from vtray.report.settings_table import dotted

MOST_ROWS = 40  # of the head; more are folded away
FEWEST_FOR_TOP5 = 6  # with five classes or fewer, top-5 is always right
STYLE = axes.STYLE + line_chart.STYLE + tables.STYLE + confusion.STYLE + reliability.STYLE


@dataclass(frozen=True, kw_only=True)
class _ModelHeading(Heading):
    """A heading with the model's name in place of the address's last part."""

    title: str

    @property
    def name(self) -> str:
        return self.title or super().name


def classifier_page(findings: ClassifierFindings) -> str:
    """A whole HTML document, UTF-8, to be written as index.html beside its worst images.

    Raises: ValueError for arrays that do not belong to as many classes.
    """
    sections = {
        "Totals": [_totals(findings)],
        "Accuracy": _accuracy(findings),
        "Training": training_curves(findings.epochs),
        "Head": _head(findings.head),
        "Per class": _by_split(findings, lambda split: per_class_parts(split, findings.classes)),
        "Confusion": _by_split(findings, lambda split: _confusion(split, findings.classes)),
        "Calibration": _by_split(findings, _calibration),
        "Robustness": robustness.robustness_parts(findings.robustness, clean=findings.clean_top1),
        "Worst images": _worst(findings),
        "Failures": _failures(findings),
        "Where the time went": time_by_phase(findings.seconds, order=tuple(findings.seconds)),
        "Settings": [html.pairs(dotted(findings.config))] if findings.config else [],
        "Notes": [html.listing(findings.notes)] if findings.notes else [],
        "Run it again": _repeat(findings),
    }
    heading = _ModelHeading(job=findings.job, output=findings.output, status=findings.status, title=findings.title)
    return document(heading, sections, style=STYLE)


def _totals(findings: ClassifierFindings) -> str:
    """What counts most, of the first split."""
    tiles = {"classes": count_text(len(findings.classes))}
    for name, split in list(findings.splits.items())[:1]:
        tiles[f"images of {name}"] = count_text(split.count)
        tiles["top-1"] = percent_text(_of(split, split.top1))
        if len(findings.classes) >= FEWEST_FOR_TOP5 and split.top5 is not None:
            tiles["top-5"] = percent_text(_of(split, split.top5))
    if (mean := robustness.mean_top1(findings.robustness)) is not None:
        tiles["top-1 under conditions"] = percent_text(mean)
    return html.tiles(tiles)


def _of(split: SplitFindings, value: float | None) -> float | None:
    """A measure of no images is none."""
    return value if split.count else None


def _accuracy(findings: ClassifierFindings) -> list[str]:
    """One row for each split; measures that no split has are left out."""
    splits = findings.splits.values()
    shown = {name: words for name, words in _MEASURES.items() if any(words(split) != DASH for split in splits)}
    if len(findings.classes) < FEWEST_FOR_TOP5:
        shown.pop("top-5", None)
    rows = [
        [name, count_text(split.count), *(words(split) for words in shown.values())]
        for name, split in findings.splits.items()
    ]
    note = "The interval is where top-1 lies in 95 of 100 cases, given the number of images (Wilson)."
    return [tables.table(("split", "images", *shown), rows), html.paragraph(note, kind="note")] if rows else []


_MEASURES: dict[str, Callable[[SplitFindings], str]] = {
    "top-1": lambda split: percent_text(_of(split, split.top1)),
    "95 % interval": lambda split: interval_text(split.top1, split.count),
    "top-5": lambda split: percent_text(_of(split, split.top5)),
    "NLL": lambda split: decimals_text(_of(split, split.nll)),
    "NLL calibrated": lambda split: decimals_text(_of(split, split.nll_calibrated)),
    "ECE": lambda split: decimals_text(_of(split, split.ece)),
    "ECE calibrated": lambda split: decimals_text(_of(split, split.ece_calibrated)),
    "temperature": lambda split: decimals_text(split.temperature, 2),
}


def _by_split(findings: ClassifierFindings, parts_of: Callable[[SplitFindings], list[str]]) -> list[str]:
    """The parts of each split that has images, under its name; those after the first are folded away."""
    seen = ((name, split) for name, split in findings.splits.items() if split.count)
    found = [(f"Split {name}", parts) for name, split in seen if (parts := parts_of(split))]
    first = [part for title, parts in found[:1] for part in (html.subtitle(title), *parts)]
    return first + [tables.folded(title, *parts) for title, parts in found[1:]]


def _confusion(split: SplitFindings, classes: Sequence[str]) -> list[str]:
    return [] if split.confusion is None else confusion.confusion_parts(split.confusion, classes)


def _calibration(split: SplitFindings) -> list[str]:
    """The diagrams before and after temperature scaling, side by side."""
    diagrams = {
        f"As trained, ECE {decimals_text(_of(split, split.ece))}": split.reliability,
        f"Logits divided by {decimals_text(split.temperature, 2)}, ECE "
        f"{decimals_text(_of(split, split.ece_calibrated))}": split.reliability_calibrated,
    }
    shown = [
        f"<div>{html.subtitle(title)}{reliability.reliability_diagram(bins, label=title)}</div>\n"
        for title, bins in diagrams.items()
        if bins is not None
    ]
    return [reliability.reliability_key(), f'<div class="charts">\n{"".join(shown)}</div>\n'] if shown else []


def _head(head: Sequence[HeadEntry]) -> list[str]:
    """How many rows came from where, and each of them."""
    if not head:
        return []
    rows = [[entry.class_name, entry.source, entry.origin] for entry in head]
    listed = tables.table(("class", "row of the head", "from"), rows, text_columns=3)
    bars = count_bars(Counter(entry.source for entry in head))
    return [bars, listed if len(rows) <= MOST_ROWS else tables.folded("All rows", listed)]


def _worst(findings: ClassifierFindings) -> list[str]:
    if not findings.worst_images and not findings.worst_examples:
        return []
    caption = "What the classifier was most wrong about, and where it looked (Grad-CAM)"
    picture = [html.figure(findings.worst_images, caption=caption)] if findings.worst_images else []
    return picture + ([html.listing(findings.worst_examples)] if findings.worst_examples else [])


def _failures(findings: ClassifierFindings) -> list[str]:
    return [] if findings.failures is None else failures(findings.failures, findings.examples)


def _repeat(findings: ClassifierFindings) -> list[str]:
    made = findings.fingerprint or findings.versions
    return [
        html.code(findings.command),
        *([how_made(findings.fingerprint, findings.versions)] if made else []),
    ]
