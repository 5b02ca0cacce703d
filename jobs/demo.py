"""python jobs/demo.py [--to FOLDER] [--images FOLDER]: what `make demo` runs, without any network.

Draws a small vending-machine catalog (or takes your images), augments it with the showroom recipe and says where
to look.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from typing import Annotated

import typer

from jobs import environment

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "showroom.yaml"

Folder = Annotated[Path, typer.Option("--to", help="folder of the demo's inputs and outputs")]
Images = Annotated[Path | None, typer.Option("--images", help="your own images instead of the drawn catalog")]


def demo(to: Folder = Path("demo"), images: Images = None) -> None:
    """Draw or take images, augment them, say where to look."""
    from jobs import augment as job

    source = images or draw(to / "catalog")
    output = to / ("augmented-own" if images else "augmented")
    database = f"sqlite:///{(to / 'mlflow.db').resolve()}"
    print(f"2. augmenting {source} with recipes/{RECIPE.name}", flush=True)
    values = {"input.uri": source, "output.uri": output, "tracking.uri": database}
    values |= {"run_name": "demo", "replan": "true"}  # pictures of another demo are replaced
    job.augment(RECIPE, [f"{key}={json.dumps(str(value))}" for key, value in values.items()], dry_run=False)
    print("3. look at")
    print(f"  {output}/preview/index.html     the run as a page")
    print(f"  {output}/preview/variants.png   images and their variants, with what was drawn")
    print(f"  {output}/preview/operators.png  each operator alone")
    print(f"  {output}/data                   the shards: {sum(1 for _ in (output / 'data').iterdir())} files")
    print(f"  .venv/bin/mlflow ui --backend-store-uri {database}   the MLflow run, then http://127.0.0.1:5000")


def draw(folder: Path) -> Path:
    """Draw the catalog, unless it is there."""
    from vtray.demo.catalog import write_catalog

    print(f"1. drawing the vending-machine catalog to {folder}", flush=True)
    num_written = write_catalog(folder)
    print(f"   {sum(1 for _ in folder.glob('*/*/*.jpg'))} images, {num_written} of them new", flush=True)
    return folder


def main() -> int:
    """Run the demo; returns the exit code."""
    environment.prepare()
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(demo)
    return environment.exit_code_of(lambda: environment.dispatch(app))


if __name__ == "__main__":
    sys.exit(main())
