"""The page that a stylize run leaves beside its contact sheets: losses, cost, settings, and how to repeat it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vtray.report import fragments as html
from vtray.report.document import Heading, count_bars, document, failures, how_made, time_by_phase
from vtray.report.histogram import STYLE, histogram
from vtray.report.numbers import bytes_text, count_text, number_text, seconds_text

PHASE_ORDER = ("load", "read", "decode", "stylize", "colour", "encode", "write")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The values of all images in one respect, and those of them that stand for all: "p50" -> 0.31."""

    title: str
    values: tuple[float, ...]
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StylePage:
    """What the page tells about a run, in plain values.

    totals: images, failed, bytes. losses: term -> median before and after. distributions: of relative losses.
    settings: what decided the pixels. warnings: kind -> images. failures, examples, seconds and sheets are as on
    augment's page. command: the line that repeats the run.
    """

    output: str
    status: str
    totals: Mapping[str, int]
    command: str
    fingerprint: str
    seconds_per_image: float | None = None
    hours_per_1000: float | None = None
    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    distributions: tuple[Distribution, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    sheets: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def style_page(page: StylePage) -> str:
    """A whole HTML document, UTF-8, to be written as index.html beside the sheets."""
    sections = {
        "Totals": [_totals(page)],
        "Pictures": [html.figure(file, caption=caption) for file, caption in page.sheets.items()],
        "Losses": _losses(page),
        "Warnings": _warnings(page.warnings),
        "Failures": failures(page.failures, page.examples),
        "Where the time went": time_by_phase(page.seconds, order=PHASE_ORDER),
        "Settings": [html.pairs(page.settings.items())] if page.settings else [],
        "Run it again": _repeat(page),
    }
    return document(Heading(job="stylize", output=page.output, status=page.status), sections, style=STYLE)


def _totals(page: StylePage) -> str:
    tiles = {name: count_text(page.totals.get(name, 0)) for name in ("images", "failed")}
    tiles["size"] = bytes_text(page.totals.get("bytes", 0))
    if page.seconds_per_image is not None:
        tiles["per image"] = seconds_text(page.seconds_per_image)
    if page.hours_per_1000 is not None:
        tiles["worker-hours per 1,000"] = number_text(page.hours_per_1000)
    return html.tiles(tiles)


def _losses(page: StylePage) -> list[str]:
    """Histograms with their marks, then the medians; nothing if no image was stylized."""
    parts = []
    for distribution in page.distributions:
        title = f"{distribution.title}, {count_text(len(distribution.values))} images"
        marks = {f"{name} {number_text(value)}": value for name, value in distribution.marks.items()}
        parts += [html.subtitle(title), histogram(distribution.values, label=title, marks=marks)]
    if page.losses:
        parts += [html.subtitle("Median loss of the 8-bit image"), html.pairs(_medians(page.losses))]
    return parts


def _medians(losses: Mapping[str, Mapping[str, float]]) -> Sequence[tuple[str, str]]:
    return [
        (term, f"{number_text(values['before'])} before, {number_text(values['after'])} after")
        for term, values in losses.items()
    ]


def _warnings(counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    note = "Each image's warnings are in _vtray/records.parquet; the worst sheet shows some of these images."
    return [count_bars(counts), html.paragraph(note, kind="note")]


def _repeat(page: StylePage) -> list[str]:
    return [
        html.paragraph("The same command gives the same images; where the output is complete it writes nothing."),
        html.code(page.command),
        how_made(page.fingerprint, page.versions),
    ]
