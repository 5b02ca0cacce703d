"""`vtray`: all jobs and tools on one command line; heavy modules are imported by the command that needs them."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs import environment

app = typer.Typer(
    name="vtray",
    help="Image augmentation, fine-tuning and style transfer as batch jobs, from one laptop to a Ray cluster.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file of the run; default: the job's own recipe")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override one key; repeatable"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print config, plan and cost; do nothing")]
Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="the output.uri of a run")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="model directory, or the output.uri of a finetune run")
]
AnyModel = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="the same as --set model=MODEL; may stand in the config")
]


@app.callback()
def vtray() -> None:
    """Kept so that every command has its name, also while there is only one."""


@app.command()
def augment(config: Config = None, set_: Set = None, dry_run: DryRun = False) -> None:
    """Make an image data set bigger: shards of augmented variants, with provenance."""
    from jobs import augment as job

    job.augment(config, set_ or [], dry_run=dry_run)


@app.command()
def finetune(config: Config = None, set_: Set = None, dry_run: DryRun = False) -> None:
    """Train an image classifier from a pretrained backbone: a model folder, a page, a registered model."""
    from jobs import finetune as job

    job.finetune(config, set_ or [], dry_run=dry_run)


@app.command()
def tune(config: Config = None, set_: Set = None, dry_run: DryRun = False) -> None:
    """Search learning rate and frozen stages on stored activations, and train the best configuration."""
    from jobs import tune as job

    job.tune(config, set_ or [], dry_run=dry_run)


@app.command()
def stylize(config: Config = None, set_: Set = None, dry_run: DryRun = False) -> None:
    """Repaint an image catalog in the style of a painting: one result for each image, under the same name."""
    from jobs import stylize as job

    job.stylize(config, set_ or [], dry_run=dry_run)


@app.command()
def predict(model: AnyModel = None, config: Config = None, set_: Set = None, dry_run: DryRun = False) -> None:
    """Label an image catalog with a model: one row with class, probability and top 5 for each image."""
    from jobs import predict as job

    job.predict(config, _with_model(model, set_), dry_run=dry_run)


@app.command()
def evaluate(model: AnyModel = None, config: Config = None, set_: Set = None, dry_run: DryRun = False) -> None:
    """Measure a model on labelled images: accuracy, calibration, bad light, and the worst images."""
    from jobs import evaluate as job

    job.evaluate(config, _with_model(model, set_), dry_run=dry_run)


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option("--to", help="the .onnx file to write")],
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="take uint8 images and normalise them inside")
    ] = False,
) -> None:
    """Write a model as ONNX, for runtimes without Python."""
    from jobs import export as job

    job.export(model, to=to, with_preprocessing=with_preprocessing)


@app.command()
def preview(
    config: Config = None,
    set_: Set = None,
    to: Annotated[Path, typer.Option("--to", help="folder for variants.png and operators.png")] = Path("preview"),
) -> None:
    """Draw contact sheets of a recipe with the exact production pixels, without running the job."""
    from jobs import augment as job

    job.preview(config, set_ or [], to=to)


@app.command()
def replay(
    output: Output,
    image_id: Annotated[str, typer.Argument(help="the row's image_id")],
    variant: Annotated[int, typer.Argument(help="the row's variant; 0 is the original")],
    to: Annotated[Path | None, typer.Option("--to", help="write the image to this file")] = None,
) -> None:
    """Make one image of an output again from its source and prove that the bytes are the same."""
    from jobs import augment as job

    raise typer.Exit(job.replay(output, image_id, variant, to=to))


@app.command()
def status(output: Output) -> None:
    """Say how far an output is; reads storage only."""
    from jobs import outputs

    outputs.status(output)


@app.command()
def verify(
    output: Output, deep: Annotated[bool, typer.Option("--deep", help="read and rehash every file")] = False
) -> None:
    """Check an output against its manifest; exit code 3 if something is missing or changed."""
    from jobs import outputs

    raise typer.Exit(outputs.verify(output, deep=deep))


def _with_model(model: str | None, overrides: list[str] | None) -> list[str]:
    """The overrides with the argument MODEL among them; JSON is YAML that no path can be misread in."""
    named = [] if model is None else [f"model={json.dumps(model, ensure_ascii=False)}"]
    return [*named, *(overrides or [])]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, 2 wrong usage or config, 3 partial, 4 environment, 130 interrupted."""
    environment.prepare()
    return environment.exit_code_of(lambda: environment.dispatch(app, arguments))


if __name__ == "__main__":
    sys.exit(main())
