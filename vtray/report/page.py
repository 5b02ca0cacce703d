"""The page that an augment run leaves beside its contact sheets: what came out and how to repeat it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from vtray.report import fragments as html
from vtray.report.document import Heading, counted, document, failures, how_made, most_first, time_by_phase
from vtray.report.numbers import bytes_text, count_text, number_text

MOST_CLASSES, FIRST_CLASSES, LAST_CLASSES = 50, 30, 10
PHASE_ORDER = ("read", "decode", "operators", "encode", "write")


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What the page tells about a run, in plain values.

    totals: images, failed, rows and bytes, as in the manifest. rows_by_class: class name -> rows. failures:
    "stage: reason" -> images, with a few `examples` of "image id (message)". seconds: phase -> seconds, added up
    over all workers. sheets: file name beside the page -> caption. command: the line that repeats the run.
    """

    job: str
    output: str
    status: str
    totals: Mapping[str, int]
    command: str
    fingerprint: str
    images_per_s: float | None = None
    rows_by_class: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    sheets: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def preview_page(preview: Preview) -> str:
    """A whole HTML document, UTF-8, to be written as index.html beside the sheets."""
    sections = {
        "Totals": _totals(preview),
        "Pictures": [html.figure(file, caption=caption) for file, caption in preview.sheets.items()],
        "Rows per class": _classes(preview.rows_by_class),
        "Failures": failures(preview.failures, preview.examples),
        "Where the time went": time_by_phase(preview.seconds, order=PHASE_ORDER),
        "Run it again": _repeat(preview),
    }
    return document(Heading(job=preview.job, output=preview.output, status=preview.status), sections)


def _totals(preview: Preview) -> list[str]:
    counts = {name: count_text(preview.totals.get(name, 0)) for name in ("images", "failed", "rows")}
    rate = {} if preview.images_per_s is None else {"images per second": number_text(float(preview.images_per_s))}
    return [html.tiles(counts | {"size": bytes_text(preview.totals.get("bytes", 0))} | rate)]


def _classes(rows_by_class: Mapping[str, int]) -> list[str]:
    if not rows_by_class:
        return [html.paragraph("The images have no classes.")]
    ordered = most_first(rows_by_class)
    bars = counted(ordered)
    if len(bars) <= MOST_CLASSES:
        return [html.bars(bars, longest=ordered[0][1])]
    between = ordered[FIRST_CLASSES:-LAST_CLASSES]
    note = f"{count_text(len(between))} more classes with {between[-1][1]:,} to {between[0][1]:,} rows each"
    first, last = (html.bars(part, longest=ordered[0][1]) for part in (bars[:FIRST_CLASSES], bars[-LAST_CLASSES:]))
    return [first, html.paragraph(note, kind="note"), last]


def _repeat(preview: Preview) -> list[str]:
    replay = f"vtray replay {shlex.quote(preview.output)} IMAGE_ID VARIANT"
    return [
        html.paragraph("The same command gives the same bytes; where the output is complete it writes nothing."),
        html.code(preview.command),
        html.paragraph("One image is made again, byte for byte, by its id and the number of its variant:"),
        html.code(replay),
        how_made(preview.fingerprint, preview.versions),
    ]
