"""python jobs/demo.py [--to FOLDER] [--images FOLDER]: what `make demo` runs, without any network.

Draws a small vending-machine catalog (or takes your images), augments it with the showroom recipe, stylizes a few
images with a painting that it draws, and says where to look.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":  # runs without installation too
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from typing import Annotated

import typer

from jobs import environment

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
AUGMENT, STYLIZE = RECIPES / "showroom.yaml", RECIPES / "demo-style.yaml"

Folder = Annotated[Path, typer.Option("--to", help="folder of the demo's inputs and outputs")]
Images = Annotated[Path | None, typer.Option("--images", help="your own images instead of the drawn catalog")]


def demo(to: Folder = Path("demo"), images: Images = None) -> None:
    """Draw or take images, augment them, stylize some of them, say where to look."""
    source = images or draw(to / "catalog")
    ending = "-own" if images else ""
    database = f"sqlite:///{(to / 'mlflow.db').resolve()}"
    augmented, stylized = to / f"augmented{ending}", to / f"stylized{ending}"
    augment(source, augmented, database)
    styled = stylize(images or source / "test", stylized, database)
    print("4. look at")
    print(f"  {augmented}/preview/index.html     the augmentation as a page")
    print(f"  {augmented}/preview/variants.png   images and their variants, with what was drawn")
    print(f"  {augmented}/preview/operators.png  each operator alone")
    num_shards = sum(1 for _ in (augmented / "data").iterdir())
    print(f"  {augmented}/data                   the shards: {num_shards} files")
    if styled:
        print(f"  {stylized}/preview/index.html      the stylized images as a page")
        print(f"  {stylized}/data                    the images, under their own names")
    print(f"  .venv/bin/mlflow ui --backend-store-uri {database}   the MLflow runs, then http://127.0.0.1:5000")


def draw(folder: Path) -> Path:
    """Draw the catalog, unless it is there."""
    from vtray.demo.catalog import write_catalog

    print(f"1. drawing the vending-machine catalog to {folder}", flush=True)
    num_written = write_catalog(folder)
    print(f"   {sum(1 for _ in folder.glob('*/*/*.jpg'))} images, {num_written} of them new", flush=True)
    return folder


def augment(source: Path, output: Path, database: str) -> None:
    """Augment all images."""
    from jobs import augment as job

    print(f"2. augmenting {source} with recipes/{AUGMENT.name}", flush=True)
    job.augment(AUGMENT, job_settings(source, output, database), dry_run=False)


def stylize(source: Path, output: Path, database: str) -> bool:
    """Stylize a few images with a drawn painting and a learned extractor; False where there are no image files."""
    from jobs import stylize as job
    from vtray.demo.showcase import choose_images, write_showcase

    if not (names := choose_images(source)):
        print(f"3. no image files in {source}, so none are stylized", flush=True)
        return False
    print(f"3. stylizing {len(names)} images of {source} with a painting that the demo drew", flush=True)
    style = style_settings(output.parent)
    showcase = output.parent / "showcase.csv"
    write_showcase(showcase, names, root=source)
    job.stylize(STYLIZE, [*job_settings(showcase, output, database), *style], dry_run=False)
    return True


def style_settings(folder: Path) -> list[str]:
    """Draw the painting and learn the extractor; the settings that name them."""
    from vtray.demo.kit import write_style_kit

    started = time.perf_counter()
    kit = write_style_kit(folder)
    print(f"   painting: {kit.painting}")
    print(f"   extractor: {kit.extractor}, five slim convolutions in VGG-19's layout, learned here without labels")
    seconds = time.perf_counter() - started
    print(f"   from {kit.num_drawings} drawn products and the painting in {seconds:.0f} s", flush=True)
    return settings({"style.uri": kit.painting, "features.weights": kit.extractor})


def job_settings(source: Path, output: Path, database: str) -> list[str]:
    """The settings of both jobs: pictures of another demo are replaced, and broken ones do not end this one."""
    places = settings({"input.uri": source, "output.uri": output, "tracking.uri": database})
    return [*places, "run_name=demo", "replan=true", "max_failed=0.5"]


def settings(values: Mapping[str, Path | str]) -> list[str]:
    """Values as they follow `--set`."""
    return [f"{key}={json.dumps(str(value))}" for key, value in values.items()]


def main() -> int:
    """Run the demo; returns the exit code."""
    environment.prepare()
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(demo)
    return environment.exit_code_of(lambda: environment.dispatch(app))


if __name__ == "__main__":
    sys.exit(main())
