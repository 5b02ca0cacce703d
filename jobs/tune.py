"""python jobs/tune.py --set input.uri=images --set output.uri=search

The same as `vtray tune`; also: ray job submit --working-dir . -- python jobs/tune.py ...
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too: the folder above holds jobs, pipelines and vtray
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from jobs.cli import main

    sys.exit(main(["tune", *sys.argv[1:]]))

from jobs.config import load_config
from jobs.finetune import check
from pipelines import batch
from pipelines import tune as pipeline
from pipelines.tune_config import TuneConfig
from pipelines.tune_estimate import estimate
from vtray import settings

DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "tune.yaml"


def load(file: Path | None, overrides: list[str]) -> TuneConfig:
    """The config of a search."""
    return load_config(TuneConfig, file or DEFAULT_RECIPE, overrides)


def tune(file: Path | None, overrides: list[str], *, dry_run: bool) -> None:
    """Run the job, or only say what it would do."""
    config = load(file, overrides)
    if dry_run:
        batch.require_apart(config)
        print(settings.dump(config))
        print(estimate(config).table())
        return
    print(pipeline.run(config).table())
    check(config)
