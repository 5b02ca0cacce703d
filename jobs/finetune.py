"""python jobs/finetune.py --set input.uri=images --set output.uri=model

The same as `vtray finetune`; also: ray job submit --working-dir . -- python jobs/finetune.py ...
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too: the folder above holds jobs, pipelines and vtray
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from jobs.cli import main

    sys.exit(main(["finetune", *sys.argv[1:]]))

from jobs.config import load_config
from pipelines import batch
from pipelines import evaluate as evaluation
from pipelines import finetune as pipeline
from pipelines.evaluate_config import EvaluateConfig
from pipelines.finetune_config import FinetuneConfig
from pipelines.finetune_estimate import estimate
from vtray import settings
from vtray.storage import absolute_uri, join_uri

SHARED = {"seed", "max_failed", "cluster", "shared_paths", "tracking", "use_gpu", "max_pixels", "replan"}
DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "finetune.yaml"


def load(file: Path | None, overrides: list[str]) -> FinetuneConfig:
    """The config of a finetune run."""
    return load_config(FinetuneConfig, file or DEFAULT_RECIPE, overrides)


def finetune(file: Path | None, overrides: list[str], *, dry_run: bool) -> None:
    """Run the job, or only say what it would do."""
    config = load(file, overrides)
    if dry_run:
        batch.require_apart(config)
        print(settings.dump(config))
        print(estimate(config).table())
        return
    print(pipeline.run(config).table())
    check(config)


def check(config: FinetuneConfig) -> None:
    """Evaluate the model on images that it was not trained on, in `evaluation` of the output."""
    split = pipeline.checked_split(config)
    if split is None:
        return
    output = absolute_uri(config.output.uri)
    values = {
        "model": output,
        "input": config.input.model_dump(mode="json"),
        "output": {"uri": join_uri(output, "evaluation")},
        "split": split,
        "robustness": {"conditions": "all" if config.check.robustness else "none"},
        "run_name": f"{config.run_name or 'finetune'}-evaluation",
    }
    shared = config.model_dump(mode="json", include=SHARED)
    print(evaluation.run(EvaluateConfig.model_validate(values | shared)).table())
