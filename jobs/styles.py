"""`vtray styles`: the models below a folder, as a table here and as a page with their pictures."""

from pathlib import Path

from vtray.errors import InputError
from vtray.report.shelf_page import shelf_page
from vtray.storage import absolute_uri, open_storage
from vtray.style.fast.shelf import find_models


def styles(place: str, *, to: Path) -> None:
    """Print one line for each model and write the page. Raises: InputError if there is none; StorageError."""
    address = absolute_uri(place)
    models = find_models(open_storage(address))
    if not models:
        raise InputError(f"{address}: no model directories of train-style there; name a folder that holds some")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(shelf_page(models, place=address), encoding="utf-8")
    width = max(len(model.name) for model in models)
    for model in models:
        print(f"  {model.name:<{width}}  {model.engine:<11}  {', '.join(model.styles)}")
    print(f"  look at {to}")
