"""The page that a run leaves beside its contact sheets: what came out, where the time went, how to repeat it.

One static file without scripts or anything from elsewhere: it opens from a disk, a bucket or an MLflow artifact.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vtray.report import fragments as html
from vtray.report.numbers import bytes_text, count_text, number_text, seconds_text, share_text
from vtray.report.page_style import STYLE

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
        "Failures": _failures(preview),
        "Where the time went": _time(preview.seconds),
        "Run it again": _repeat(preview),
    }
    name = preview.output.rstrip("/").rpartition("/")[2] or preview.output
    body = _header(preview, name, [title for title, parts in sections.items() if parts])
    body += "".join(html.section(title, *parts) for title, parts in sections.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.text(f'{preview.job}: {name}')}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _header(preview: Preview, name: str, titles: Sequence[str]) -> str:
    kind = "status complete" if preview.status == "complete" else "status"
    return (
        f'<header>\n<p class="job">vtray {html.text(preview.job)}</p>\n'
        f'<h1>{html.text(name)}<span class="{kind}">{html.text(preview.status)}</span></h1>\n'
        f"{html.paragraph(preview.output, kind='uri')}{html.contents(titles)}</header>\n"
    )


def _totals(preview: Preview) -> list[str]:
    counts = {name: count_text(preview.totals.get(name, 0)) for name in ("images", "failed", "rows")}
    rate = {} if preview.images_per_s is None else {"images per second": number_text(float(preview.images_per_s))}
    return [html.tiles(counts | {"size": bytes_text(preview.totals.get("bytes", 0))} | rate)]


def _classes(rows_by_class: Mapping[str, int]) -> list[str]:
    if not rows_by_class:
        return [html.paragraph("The images have no classes.")]
    ordered = _most_first(rows_by_class)
    bars = _counted_bars(ordered)
    if len(bars) <= MOST_CLASSES:
        return [html.bars(bars, longest=ordered[0][1])]
    between = ordered[FIRST_CLASSES:-LAST_CLASSES]
    note = f"{count_text(len(between))} more classes with {between[-1][1]:,} to {between[0][1]:,} rows each"
    first, last = (html.bars(part, longest=ordered[0][1]) for part in (bars[:FIRST_CLASSES], bars[-LAST_CLASSES:]))
    return [first, html.paragraph(note, kind="note"), last]


def _failures(preview: Preview) -> list[str]:
    if not preview.failures:
        return [html.paragraph("No image failed.")]
    ordered = _most_first(preview.failures)
    examples = [html.subtitle("Examples"), html.listing(preview.examples)] if preview.examples else []
    where = html.paragraph("Each failed image is a row in quarantine/, with its whole message.", kind="note")
    return [html.bars(_counted_bars(ordered), longest=ordered[0][1]), *examples, where]


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _counted_bars(counts: Sequence[tuple[str, int]]) -> list[tuple[str, int, str]]:
    total = sum(count for _, count in counts)
    return [(name, count, f"{count_text(count)} · {share_text(count, total)}") for name, count in counts]


def _time(seconds: Mapping[str, float]) -> list[str]:
    total = sum(seconds.values())
    if not total:
        return []
    known = [phase for phase in PHASE_ORDER if phase in seconds]
    phases = known + sorted(seconds.keys() - set(known))
    parts = [(p, seconds[p], f"{seconds_text(seconds[p])} · {share_text(seconds[p], total)}") for p in phases]
    note = html.paragraph(f"{seconds_text(total)} in all, added up over all workers.", kind="note")
    return [html.stacked_bar(parts), note]


def _repeat(preview: Preview) -> list[str]:
    replay = f"vtray replay {shlex.quote(preview.output)} IMAGE_ID VARIANT"
    versions = " · ".join(f"{name} {version}" for name, version in sorted(preview.versions.items()))
    return [
        html.paragraph("The same command gives the same bytes; where the output is complete it writes nothing."),
        html.code(preview.command),
        html.paragraph("One image is made again, byte for byte, by its id and the number of its variant:"),
        html.code(replay),
        html.pairs((("fingerprint", preview.fingerprint), ("versions", versions))),
    ]
