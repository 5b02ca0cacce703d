"""What the pages of all jobs have in common: the frame of the document, failures, and where the time went.

A page is one static file without scripts or anything from elsewhere: it opens from a disk, a bucket or an MLflow
artifact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vtray.report import fragments as html
from vtray.report.numbers import count_text, seconds_text, share_text
from vtray.report.page_style import STYLE


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What a page is about: the job, the address of its output, and the status of that."""

    job: str
    output: str
    status: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.output.rstrip("/").rpartition("/")[2] or self.output


def document(heading: Heading, sections: Mapping[str, Sequence[str]], *, style: str = "") -> str:
    """A whole HTML document, UTF-8. sections: title -> bodies in HTML; a title without any is left out.

    style: CSS of the page's own, after that of all pages.
    """
    body = _header(heading, [title for title, parts in sections.items() if parts])
    body += "".join(html.section(title, *parts) for title, parts in sections.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.text(f'{heading.job}: {heading.name}')}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _header(heading: Heading, titles: Sequence[str]) -> str:
    kind = "status complete" if heading.status == "complete" else "status"
    return (
        f'<header>\n<p class="job">vtray {html.text(heading.job)}</p>\n'
        f'<h1>{html.text(heading.name)}<span class="{kind}">{html.text(heading.status)}</span></h1>\n'
        f"{html.paragraph(heading.output, kind='uri')}{html.contents(titles)}</header>\n"
    )


def failures(counts: Mapping[str, int], examples: Sequence[str]) -> list[str]:
    """The images that failed: "stage: reason" -> how many, with a few of them."""
    if not counts:
        return [html.paragraph("No image failed.")]
    shown = [html.subtitle("Examples"), html.listing(examples)] if examples else []
    where = html.paragraph("Each failed image is a row in quarantine/, with its whole message.", kind="note")
    return [count_bars(counts), *shown, where]


def count_bars(counts: Mapping[str, int]) -> str:
    """One bar for each name, the most frequent first; empty for no names."""
    ordered = most_first(counts)
    return html.bars(counted(ordered), longest=ordered[0][1]) if ordered else ""


def most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def counted(counts: Sequence[tuple[str, int]]) -> list[tuple[str, int, str]]:
    """Names and counts as rows of `fragments.bars`, with their share of the whole."""
    total = sum(count for _, count in counts)
    return [(name, count, f"{count_text(count)} · {share_text(count, total)}") for name, count in counts]


def time_by_phase(seconds: Mapping[str, float], *, order: Sequence[str]) -> list[str]:
    """Seconds per phase as one bar; phases of `order` come first. Nothing if no time was measured."""
    total = sum(seconds.values())
    if not total:
        return []
    known = [phase for phase in order if phase in seconds]
    phases = known + sorted(seconds.keys() - set(known))
    parts = [(p, seconds[p], f"{seconds_text(seconds[p])} · {share_text(seconds[p], total)}") for p in phases]
    note = html.paragraph(f"{seconds_text(total)} in all, added up over all workers.", kind="note")
    return [html.stacked_bar(parts), note]


def how_made(fingerprint: str, versions: Mapping[str, str]) -> str:
    """The plan's fingerprint and the versions of what made the bytes."""
    listed = " · ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return html.pairs((("fingerprint", fingerprint), ("versions", listed)))
