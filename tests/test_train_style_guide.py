"""docs/train-style.md says what the code says, and its commands are valid."""

from typing import get_args

import typer
import yaml
from pages import ROOT, Page
from test_guide import settings_of

from jobs import cli
from jobs import train_style as job
from pipelines.train_style_config import STRENGTH, TrainStyleConfig
from vtray.style.fast.keys import FastEngine
from vtray.style.fast.load import GRAMS, MODEL, PREVIEW, THUMBNAILS

GUIDE = Page(ROOT / "docs" / "train-style.md")


def test_every_setting_has_its_line_and_its_default():
    expected = settings_of(TrainStyleConfig)
    rows = GUIDE.table("| key | default | meaning |")
    told = {key.strip("`"): default.strip("`") for key, default, _ in rows}
    assert told.keys() == expected.keys()
    assert len(rows) == len(told) == 50
    for key, value in expected.items():
        if value is ...:
            assert told[key] == "required"
        else:
            assert yaml.safe_load(told[key]) == (list(value) if isinstance(value, tuple) else value), key


def test_every_engine_has_its_line():
    rows = GUIDE.table("| `network.engine` | what it is | styles |")
    assert [row[0].strip("`") for row in rows] == list(get_args(FastEngine))


def test_commands_are_valid():
    lines = [words[1:] for words in GUIDE.commands() if words[0] == "vtray"]
    configs = []
    for name, *arguments in lines:
        options = typer.main.get_command(cli.app).commands[name].make_context(name, arguments).params
        configs.append(job.load(options["config"], options["set_"]))
    assert [config.network.engine for config in configs] == ["feedforward", "feedforward", "msgnet"]


def test_files_and_numbers_are_those_of_the_code():
    (tree,) = GUIDE.blocks("text")
    assert all(f"model/{name}" in tree for name in (MODEL, GRAMS, PREVIEW, THUMBNAILS))
    assert f"Its default is lower, {STRENGTH}" in GUIDE.text
