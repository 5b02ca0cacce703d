"""Small searches on drawn images."""

import json
from pathlib import Path

from finetune_support import config_of

from pipelines.tune_config import TuneConfig

SPACE = {"lr": {"low": 1e-4, "high": 1e-2}, "freeze": [0, 2, "all"]}


def tune_config(images, output, weights, /, *, search=None, **values):
    """A search of a few seconds; `search` is merged into its section."""
    base = config_of(images, output, weights, **values).model_dump(mode="json")
    section = {"num_trials": 4, "space": SPACE} | (search or {})
    return TuneConfig.model_validate(base | {"search": section})


def records_of(output):
    """The records of all trials that are over, as JSON."""
    return [json.loads(path.read_bytes()) for path in sorted(Path(output, "_vtray/trials").glob("*.json"))]


def begun(output):
    """How often each trial was started, in all runs: name -> times."""
    lines = Path(output, "_vtray/events.jsonl").read_text().splitlines()
    names = [event["trial"] for event in map(json.loads, lines) if event["event"] == "trial"]
    return {name: names.count(name) for name in names}
