"""python jobs/train_style.py --set input.uri=images --set style.uri=painting.jpg --set output.uri=style

The same as `vtray train-style`; also: ray job submit --working-dir . -- python jobs/train_style.py ...
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too: the folder above holds jobs, pipelines and vtray
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from jobs.cli import main

    sys.exit(main(["train-style", *sys.argv[1:]]))

from jobs.config import load_config
from pipelines import batch
from pipelines import train_style as pipeline
from pipelines.train_style_config import TrainStyleConfig
from pipelines.train_style_estimate import estimate
from vtray import settings

DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "train-style.yaml"


def load(file: Path | None, overrides: list[str]) -> TrainStyleConfig:
    """The config of a train-style run."""
    return load_config(TrainStyleConfig, file or DEFAULT_RECIPE, overrides)


def train_style(file: Path | None, overrides: list[str], *, dry_run: bool) -> None:
    """Run the job, or only say what it would do."""
    config = load(file, overrides)
    if dry_run:
        batch.require_apart(config)
        print(settings.dump(config))
        print(estimate(config).table())
        return
    print(pipeline.run(config).table())
