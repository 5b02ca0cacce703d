"""The page of `vtray styles`: every model with the thumbnails of its styles, its preview and how to use it.

Pictures are inside the page, so that it may lie anywhere.
"""

import base64
from collections.abc import Iterator, Sequence

from vtray.report import fragments as html
from vtray.report.document import Heading, document
from vtray.style.fast.shelf import ShelvedModel

STYLE = """
.styles { display: flex; flex-wrap: wrap; gap: 1rem; }
.styles figure { margin: 0; width: 160px; }
.styles img { width: 160px; height: 160px; object-fit: contain; }
img.preview { max-width: 100%; }
"""


def shelf_page(models: Sequence[ShelvedModel], *, place: str) -> str:
    """A whole HTML document."""
    sections = {model.name: list(_bodies(model)) for model in models}
    count = f"{len(models)} model{'s' * (len(models) != 1)}"
    return document(Heading(job="styles", output=place, status=count), sections, style=STYLE)


def _bodies(model: ShelvedModel) -> Iterator[str]:
    yield html.pairs([("engine", model.engine), ("styles", ", ".join(model.styles)), ("model", model.uri)])
    figures = [_figure(model.thumbnails.get(name), name) for name in model.styles]
    yield f'<div class="styles">\n{"".join(figures)}</div>\n'
    if model.preview:
        yield f'<p><img class="preview" src="{_address(model.preview)}" alt="preview"></p>\n'
    yield html.code(command_of(model))


def command_of(model: ShelvedModel) -> str:
    """What stylizes a catalog with it."""
    named = f" --set 'style.name={model.styles[0]}'" if model.engine == "msgnet" else ""
    return (
        f"vtray stylize --set engine.name={model.engine} --set 'engine.model={model.uri}'{named} "
        "--set input.uri=CATALOG --set output.uri=OUT"
    )


def _figure(picture: bytes | None, name: str) -> str:
    words = html.text(name)
    shown = (
        f'<img src="{_address(picture)}" alt="{words}">'
        if picture
        else html.paragraph("no thumbnail", kind="note")
    )
    return f"<figure>{shown}<figcaption>{words}</figcaption></figure>\n"


def _address(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
