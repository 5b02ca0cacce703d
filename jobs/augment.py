"""python jobs/augment.py --config recipes/lecture.yaml --set input.uri=images --set output.uri=augmented

The same as `vtray augment`; also: ray job submit --working-dir . -- python jobs/augment.py ...
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too: the folder above holds jobs, pipelines and vtray
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from jobs.cli import main

    sys.exit(main(["augment", *sys.argv[1:]]))

from jobs.config import load_config
from pipelines import augment as pipeline
from pipelines import batch
from pipelines.estimate import estimate
from pipelines.preview import preview_sheets
from pipelines.replay import replay_image
from vtray import settings

DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "lecture.yaml"


def load(file: Path | None, overrides: list[str]) -> pipeline.AugmentConfig:
    """The config of an augment run."""
    return load_config(pipeline.AugmentConfig, file or DEFAULT_RECIPE, overrides)


def augment(file: Path | None, overrides: list[str], *, dry_run: bool) -> None:
    """Run the job, or only say what it would do."""
    config = load(file, overrides)
    if dry_run:
        batch.require_apart(config)
        print(settings.dump(config))
        print(estimate(pipeline.prepare(config)).table())
        return
    print(pipeline.run(config).table())


def preview(file: Path | None, overrides: list[str], *, to: Path) -> None:
    """Draw the contact sheets of a config into a folder."""
    job = pipeline.prepare(load(file, ["output.uri=unused", *overrides]))
    to.mkdir(parents=True, exist_ok=True)
    for name, content in preview_sheets(job.units, job.step).items():
        (to / name).write_bytes(content)
        print(to / name)


def replay(output: str, image_id: str, variant: int, *, to: Path | None) -> int:
    """Make one image again, say so, and write it out if asked; returns 0, or 3 if the bytes are not the same."""
    replayed = replay_image(output, image_id=image_id, variant=variant)
    if to is not None:
        to.write_bytes(replayed.image)
    print(replayed.text())
    return 0 if replayed.identical else 3
