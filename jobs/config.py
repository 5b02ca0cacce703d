"""The config of a job from its file, `--set` and the environment."""

import os
from pathlib import Path
from typing import TypeVar

from pipelines.config import JobConfig
from vtray import settings

C = TypeVar("C", bound=JobConfig)


def load_config(model: type[C], file: Path, overrides: list[str]) -> C:
    """The YAML file with `overrides`; RAY_ADDRESS stands in for a cluster without a name. Raises: ConfigError."""
    config = settings.load(model, file=file, overrides=overrides)
    address = os.environ.get("RAY_ADDRESS")
    if config.cluster != "auto" or not address:
        return config
    # named by the user: if nothing answers there, that is an error and no reason to start a Ray of our own
    return settings.load(model, file=file, overrides=[*overrides, f"cluster={address}"])
