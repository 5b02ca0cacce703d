"""python jobs/evaluate.py MODEL --set input.uri=images --set output.uri=evaluation

The same as `vtray evaluate`; also: ray job submit --working-dir . -- python jobs/evaluate.py ...
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too: the folder above holds jobs, pipelines and vtray
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from jobs.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))

from jobs.config import load_config
from pipelines import batch
from pipelines import evaluate as pipeline
from pipelines.classify_estimate import estimate
from pipelines.evaluate_config import EvaluateConfig
from pipelines.machine import gpu_here
from vtray import settings

DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "evaluate.yaml"


def load(file: Path | None, overrides: list[str]) -> EvaluateConfig:
    """The config of an evaluate run."""
    return load_config(EvaluateConfig, file or DEFAULT_RECIPE, overrides)


def evaluate(file: Path | None, overrides: list[str], *, dry_run: bool) -> None:
    """Run the job, or only say what it would do."""
    config = load(file, overrides)
    if dry_run:
        batch.require_apart(config)
        print(settings.dump(config))
        print(estimate(pipeline.prepare(config, has_gpu=gpu_here)).table())
        return
    print(pipeline.run(config).table())
