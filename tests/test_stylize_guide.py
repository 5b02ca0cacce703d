"""docs/stylize.md says what the code says, and its commands and blocks are valid."""

import re
from typing import get_args

import pytest
import torch
import typer
import yaml
from pages import ROOT, Page
from test_guide import settings_of

from jobs import cli
from jobs import stylize as job
from pipelines.stylize_config import NetworkName, StyleConfig, StylizeConfig
from vtray.report.records import FIELDS
from vtray.style.colour import ColourMode
from vtray.style.losses import total_variation
from vtray.style.networks import IMAGENET_MEAN, NETWORKS
from vtray.style.objective import _weights
from vtray.style.work import LossSpec

GUIDE = Page(ROOT / "docs" / "stylize.md")
IN_WORDS = {
    "style.weights",
    "style.masks",
    "features.sha256",
    "features.content_layers",
    "features.style_layers",
    "loss.content_weight",
    "loss.style_weight",
    "loss.tv_weight",
    "use_gpu",
    "num_workers",
    "units.max_images",
    "tracking.uri",
    "run_name",
}  # their default is null, and the page says what that means


def test_every_setting_has_its_line_and_its_default():
    expected = settings_of(StylizeConfig)
    rows = GUIDE.table("| key | default | meaning |")
    told = {key.strip("`"): default for key, default, _ in rows}
    assert told.keys() == expected.keys()
    assert len(rows) == len(told) == 45
    for key, value in expected.items():
        if key in IN_WORDS:
            assert value is None, key
        elif value is ...:
            assert told[key] == "required"
        else:
            assert yaml.safe_load(told[key].strip("`")) == value, key


def test_every_network_has_its_line():
    header = "| `features.network` | what it is | content layers | style layers | RGB goes in as |"
    rows = {name.strip("`"): rest for name, *rest in GUIDE.table(header)}
    assert list(rows) == list(NETWORKS) == list(get_args(NetworkName))
    for name, (_, content, style, preprocessing) in rows.items():
        network = NETWORKS[name]
        assert content.strip("`") == ", ".join(network.content_layers)
        assert style.strip("`") == ", ".join(network.style_layers)
        assert ("ImageNet" in preprocessing) == (network.mean == IMAGENET_MEAN)


def test_every_column_of_the_records_has_its_line():
    rows = GUIDE.table("| column of `records.parquet` | type | meaning |")
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row[0])) == sorted(FIELDS)


def test_every_failure_of_the_stage_has_its_line():
    sources = [*(ROOT / "vtray" / "style").rglob("*.py"), *(ROOT / "vtray" / "steps").glob("*.py")]
    raised = {
        reason for path in sources for reason in re.findall(r'ImageError\("stylize", "(\w+)"', path.read_text())
    }
    rows = GUIDE.table("| stage | error_type | meaning |")
    assert {(stage, reason.strip("`")) for stage, reason, _ in rows} == {("stylize", reason) for reason in raised}
    assert len(rows) == len(raised) == 7


def test_every_colour_mode_has_its_line():
    rows = GUIDE.table("| `colour` | what comes out |")
    assert [name.strip("`") for name, _ in rows] == list(get_args(ColourMode))


def test_the_weights_of_strength_are_those_of_the_code():
    rows = GUIDE.table("| strength | weight of content | of style | of tv |")
    assert len(rows) == 3
    for row in rows:
        strength, *weights = map(float, row)
        assert _weights(LossSpec(strength=strength)) == pytest.approx(weights)
        kept, given = (1 - strength) ** 2, strength**2
        assert weights == pytest.approx([kept, 30 * given, 0.3 * (kept + given)])  # the formula above the table


def test_the_sum_of_total_variation_is_that_much_larger():
    pixels = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    ratio = float(total_variation(pixels, reduction="sum") / total_variation(pixels, reduction="mean"))
    assert ratio == pytest.approx(1.6e6, rel=0.03)


def test_commands_are_those_of_the_program():
    commands = GUIDE.commands()
    assert len(commands) == 3
    for name, *arguments in commands:
        assert name == "vtray"
        options = (
            typer.main.get_command(cli.app).commands[arguments[0]].make_context("vtray", arguments[1:]).params
        )
        assert isinstance(job.load(options["config"], options["set_"]), StylizeConfig)


def test_blocks_of_yaml_are_valid():
    blocks = [yaml.safe_load(block) for block in GUIDE.blocks("yaml")]
    assert [len(StyleConfig.model_validate(block["style"]).uri) for block in blocks] == [2, 2]
    assert sorted(GUIDE.languages()) == ["sh", "text", "yaml", "yaml"]
