"""python jobs/demo.py [--to FOLDER] [--images FOLDER]: what `make demo` runs, without any network.

Draws a small vending-machine catalog (or takes your images), augments it with the showroom recipe, stylizes a few
images with a painting that it draws, fine-tunes a network for products that it has not seen, says where to look.
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
PRETRAIN, FINETUNE = RECIPES / "demo-pretrain.yaml", RECIPES / "demo-finetune.yaml"
PLAIN = "operators=[{op: random_resized_crop, size_px: 96, area: [0.5, 1]}, {op: flip}]"

RUNS = {
    "scratch": "from scratch",
    "finetuned-plain": "fine-tuned",
    "finetuned": "and showroom recipe",
}
Folder = Annotated[Path, typer.Option("--to", help="folder of the demo's inputs and outputs")]
Images = Annotated[Path | None, typer.Option("--images", help="your own images instead of the drawn catalog")]


def demo(to: Folder = Path("demo"), images: Images = None) -> None:
    """Draw or take images, augment them, stylize some of them, train a network, say where to look."""
    source = images or draw(to / "catalog")
    ending = "-own" if images else ""
    database = f"sqlite:///{(to / 'mlflow.db').resolve()}"
    augmented, stylized = to / f"augmented{ending}", to / f"stylized{ending}"
    augment(source, augmented, database)
    styled = stylize(images or source / "test", stylized, database)
    if images is None:
        finetune(to, database)
    print("5. look at")
    print(f"  {augmented}/preview/index.html     the augmentation as a page")
    print(f"  {augmented}/preview/variants.png   images and their variants, with what was drawn")
    print(f"  {augmented}/preview/operators.png  each operator alone")
    num_shards = sum(1 for _ in (augmented / "data").iterdir())
    print(f"  {augmented}/data                   the shards: {num_shards} files")
    if styled:
        print(f"  {stylized}/preview/index.html      the stylized images as a page")
        print(f"  {stylized}/data                    the images, under their own names")
    if images is None:
        print(f"  {to}/finetuned/report/index.html   the training as a page")
        print(f"  {to}/finetuned/model               the classifier: vtray predict {to}/finetuned --set ...")
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


def finetune(to: Path, database: str) -> None:
    """Pre-train on one half of the products; fine-tune on the other in two ways, and train it from scratch."""
    from vtray.demo.comparison import accuracy
    from vtray.demo.pretraining import write_pretraining_set, write_target_set

    print("4. fine-tuning a small network for six products, pre-trained on six others", flush=True)
    write_pretraining_set(to / "pretraining")
    write_target_set(to / "products")
    train(PRETRAIN, to / "pretraining", to / "pretrained", database, [])
    weights = settings({"weights": to / "pretrained" / "model" / "model.safetensors"})
    for name, changes in {
        "finetuned": weights,
        "finetuned-plain": [*weights, PLAIN],
        "scratch": ["strategy=scratch", "lr=3e-3", PLAIN],
    }.items():
        train(FINETUNE, to / "products", to / name, database, changes)
    print("   accuracy on            test  showroom")
    for name, text in RUNS.items():
        clean, showroom = (accuracy(str(to / name), to / "products", split) for split in ("test", "showroom"))
        print(f"   {text:20} {100 * clean:5.1f} % {100 * showroom:7.1f} %", flush=True)


def train(recipe: Path, source: Path, output: Path, database: str, changes: list[str]) -> None:
    """One training, without a table of its own."""
    from jobs.finetune import load
    from pipelines import finetune as pipeline

    report = pipeline.run(load(recipe, [*job_settings(source, output, database), *changes]))
    print(f"   {output.name}: {report.epochs} epochs in {report.seconds:.0f} s", flush=True)


def job_settings(source: Path, output: Path, database: str) -> list[str]:
    """The settings of all jobs: pictures of another demo are replaced, and broken ones do not end this one."""
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
