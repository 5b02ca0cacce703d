"""Small pieces of HTML; every text that comes in is escaped here and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import quote


def text(value: object) -> str:
    """A value as HTML text, safe in attributes too."""
    return escape(str(value), quote=True)


def section(title: str, *bodies: str) -> str:
    """A titled part of the page with its own address; bodies are HTML, and without any there is no section."""
    if not bodies:
        return ""
    return f'<section id="{text(anchor(title))}">\n<h2>{text(title)}</h2>\n{"".join(bodies)}</section>\n'


def anchor(title: str) -> str:
    """The address of a section within the page: `Rows per class` -> rows-per-class."""
    return title.lower().replace(" ", "-")


def contents(titles: Iterable[str]) -> str:
    """Links to the sections."""
    links = "\n".join(f'<a href="#{text(anchor(title))}">{text(title)}</a>' for title in titles)
    return f"<nav>\n{links}\n</nav>\n"


def subtitle(words: str) -> str:
    return f"<h3>{text(words)}</h3>\n"


def paragraph(words: str, *, kind: str = "") -> str:
    return f'<p class="{text(kind)}">{text(words)}</p>\n' if kind else f"<p>{text(words)}</p>\n"


def code(command: str) -> str:
    """A command to copy."""
    return f"<pre><code>{text(command)}</code></pre>\n"


def tiles(values: Mapping[str, str]) -> str:
    """A table of one row: large values below their names."""
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in values)
    cells = "".join(f"<td>{text(value)}</td>" for value in values.values())
    return f'<table class="tiles"><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>\n'


def pairs(values: Iterable[tuple[str, str]]) -> str:
    """A table of two columns: name and value."""
    rows = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>\n' for name, value in values)
    return f'<table class="pairs"><tbody>\n{rows}</tbody></table>\n'


def listing(lines: Sequence[str]) -> str:
    items = "\n".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<ul>\n{items}\n</ul>\n"


def bars(rows: Iterable[tuple[str, float, str]], *, longest: float) -> str:
    """One horizontal bar for each (name, value, words); a bar of the value `longest` takes the whole width."""
    return f'<table class="bars"><tbody>\n{"".join(_bar(*row, longest=longest) for row in rows)}</tbody></table>\n'


def _bar(name: str, value: float, words: str, *, longest: float) -> str:
    percent = 100 * value / longest if longest else 0
    return (
        f'<tr><th scope="row">{text(name)}</th><td class="track"><div class="bar" style="width:{percent:.2f}%">'
        f'</div></td><td class="value">{text(words)}</td></tr>\n'
    )


def stacked_bar(rows: Sequence[tuple[str, float, str]]) -> str:
    """One bar of (name, value, words) parts, with a legend below; colours repeat after eight parts."""
    parts = "".join(
        f'<div class="part c{i % 8}" style="flex-grow:{value:.6f}" title="{text(f"{name}: {words}")}"></div>'
        for i, (name, value, words) in enumerate(rows)
    )
    legend = "".join(
        f'<tr><th scope="row"><span class="dot c{i % 8}"></span>{text(name)}</th>'
        f'<td class="value">{text(words)}</td></tr>\n'
        for i, (name, _, words) in enumerate(rows)
    )
    return f'<div class="stack">{parts}</div>\n<table class="legend"><tbody>\n{legend}</tbody></table>\n'


def figure(file: str, *, caption: str) -> str:
    """A picture that lies beside the page, at its own size and a click away from it alone."""
    address = text(quote(file))
    return (
        f'<figure><a href="{address}"><img src="{address}" alt="{text(caption)}"></a>'
        f"<figcaption>{text(caption)}</figcaption></figure>\n"
    )
