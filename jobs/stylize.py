"""python jobs/stylize.py --set input.uri=catalog --set style.uri=painting.jpg --set output.uri=stylized

The same as `vtray stylize`; also: ray job submit --working-dir . -- python jobs/stylize.py ...
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs without installation too: the folder above holds jobs, pipelines and vtray
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from jobs.cli import main

    sys.exit(main(["stylize", *sys.argv[1:]]))

from jobs.config import load_config
from pipelines import batch
from pipelines import stylize as pipeline
from pipelines.machine import gpu_here
from pipelines.stylize_config import StylizeConfig
from pipelines.stylize_estimate import estimate
from vtray import settings

DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "stylize.yaml"


def load(file: Path | None, overrides: list[str]) -> StylizeConfig:
    """The config of a stylize run."""
    return load_config(StylizeConfig, file or DEFAULT_RECIPE, overrides)


def stylize(file: Path | None, overrides: list[str], *, dry_run: bool) -> None:
    """Run the job, or only say what it would do."""
    config = load(file, overrides)
    if dry_run:
        batch.require_apart(config)
        print(settings.dump(config))
        print(estimate(pipeline.prepare(config, has_gpu=gpu_here)).table())
        return
    print(pipeline.run(config).table())
