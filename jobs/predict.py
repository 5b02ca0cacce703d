"""python jobs/predict.py MODEL --set input.uri=catalog --set output.uri=predicted

The same as `vtray predict`; also: ray job submit --working-dir . -- python jobs/predict.py ...
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too: the folder above holds jobs, pipelines and vtray
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from jobs.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))

from jobs.config import load_config
from pipelines import batch
from pipelines import predict as pipeline
from pipelines.classify_estimate import estimate
from pipelines.machine import gpu_here
from pipelines.predict_config import PredictConfig
from vtray import settings

DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "predict.yaml"


def load(file: Path | None, overrides: list[str]) -> PredictConfig:
    """The config of a predict run."""
    return load_config(PredictConfig, file or DEFAULT_RECIPE, overrides)


def predict(file: Path | None, overrides: list[str], *, dry_run: bool) -> None:
    """Run the job, or only say what it would do."""
    config = load(file, overrides)
    if dry_run:
        batch.require_apart(config)
        print(settings.dump(config))
        print(estimate(pipeline.prepare(config, has_gpu=gpu_here)).table())
        return
    print(pipeline.run(config).table())
