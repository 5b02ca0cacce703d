"""README.md: every command and block of code is run or checked, and every link leads somewhere."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from pages import ROOT, Page
from PIL import Image

from jobs import cli
from pipelines import augment, batch, cluster
from pipelines.evaluate_config import EvaluateConfig
from pipelines.finetune_config import FinetuneConfig
from pipelines.predict_config import PredictConfig
from pipelines.stylize_config import StylizeConfig
from pipelines.tune_config import TuneConfig
from vtray import settings, tracking
from vtray.augment.recipe import Recipe
from vtray.classify.backbone import build_classifier
from vtray.classify.freezing import frozen_stages
from vtray.classify.networks import ShapesOnly

README = Page(ROOT / "README.md")
MAX_LINES = 6
INPUT_HEADER = "| `input.format` | what lies at `input.uri` | label | split |"

# Runs the DataLoader's snippet from stdin with other numbers of workers, each time with the same order of images.
LOADER_CHECK = """
import json, pickle, sys, torch
snippet = sys.stdin.read().replace("batch_size=32", "batch_size=8")

def load(epoch, num_workers):
    torch.manual_seed(0)
    names = {"epoch": epoch}
    exec(snippet.replace("num_workers=2", f"num_workers={num_workers}"), names)
    pickle.dumps(names["loader"].dataset)  # workers that are not forked get it this way
    batches = list(names["loader"])
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])

(alone, labels), (shared, same_labels), (later, _) = load(1, 0), load(1, 2), load(2, 0)
found = {"shape": list(alone.shape), "dtype": str(alone.dtype), "labels": sorted(labels.tolist())}
found |= {"same": torch.equal(alone, shared), "same_labels": torch.equal(labels, same_labels)}
print(json.dumps(found | {"next_epoch_differs": not torch.equal(alone, later)}))
"""


@pytest.fixture
def workplace(tiny_images, tmp_path, monkeypatch):
    """The folder of README's reader, who has images and a photo; units are done in this process, without Ray."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    shutil.copytree(tiny_images, tmp_path / "images" / "train")
    Image.open(tiny_images / "can" / "01.jpg").resize((400, 300)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "connect", lambda _: cluster.Cluster(nodes=(cluster.Node(num_cpus=2),)))
    monkeypatch.setattr(batch, "run_units", run_units_here)
    monkeypatch.setattr(tracking, "_open", lambda *_: None)
    return tmp_path


def run_units_here(units, step, digests, *, workers):
    for unit in units:
        yield step(unit, digests[unit.unit_id])


def commands(program):
    """The words of README's commands of one program, in blocks and in the text."""
    found = [words for words in README.commands() if words[0] == program]
    return found + README.inline_commands(program)


def parsed(words):
    """The options of a `vtray` command line as the real command reads them; a wrong one raises."""
    name, *arguments = words
    return typer.main.get_command(cli.app).commands[name].make_context(name, arguments).params


CONFIGS = {
    "augment": (augment.AugmentConfig, "lecture.yaml"),
    "stylize": (StylizeConfig, "stylize.yaml"),
    "finetune": (FinetuneConfig, "finetune.yaml"),
    "tune": (TuneConfig, "tune.yaml"),
    "evaluate": (EvaluateConfig, "evaluate.yaml"),
    "predict": (PredictConfig, "predict.yaml"),
}
OTHER_JOBS = {"stylize", "finetune", "tune", "evaluate", "predict", "export"}  # they have tests of their own


def config_of(words):
    """The config that the command line of a job asks for."""
    options = parsed(words)
    model, recipe = CONFIGS[words[0]]
    file = ROOT / (options["config"] or f"recipes/{recipe}")
    named = [f"model={options['model']}"] if options.get("model") else []
    return settings.load(model, file=file, overrides=[*named, *(options["set_"] or [])])


def test_every_block_and_command_is_of_a_kind_that_is_checked():
    assert sorted(README.languages()) == ["python"] * 2 + ["sh"] * 8 + ["text"]
    programs = [words[0] for words in README.commands()]
    assert {name: programs.count(name) for name in programs} == {
        "make": 2,
        ".": 1,
        "vtray": 18,
        "mlflow": 1,
        "ray": 1,
    }


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^(\w+):", makefile, re.MULTILINE)
    named = commands("make")
    for _, target, *variables in named:
        assert target in targets
        assert all(f"$({variable.partition('=')[0]})" in makefile for variable in variables)
    assert len(named) == 7
    assert {words[1] for words in named} == {"bench", "demo", "test"}


def test_the_environment_is_activated_where_make_puts_it():
    (activate,) = commands(".")
    assert f"BIN := {Path(activate[1]).parent}" in (ROOT / "Makefile").read_text()


def test_vtray_options_and_settings_exist():
    lines = [words[1:] for words in commands("vtray")]
    assert [line[0] for line in lines] == [
        "augment",
        "preview",
        "augment",
        "status",
        "verify",
        "replay",
        "augment",
        *["stylize"] * 3,
        *["finetune"] * 3,
        "evaluate",
        "predict",
        "export",
        *["tune"] * 2,
    ]
    assert all(parsed(line) for line in lines)
    configs = [config_of(line) for line in lines if line[0] == "augment"]
    assert [config.variants for config in configs] == [4, 4, 8]
    assert configs[2].operators[1].p == 0.2
    styles = [config_of(line) for line in lines if line[0] == "stylize"]
    assert [config.style.strength for config in styles] == [0.5, 0.5, 0.7]
    assert [config.features.network for config in styles] == ["vgg19"] * 3
    trainings = [config_of(line) for line in lines if line[0] == "finetune"]
    assert [config.freeze for config in trainings] == ["none", "none", "features.6"]
    assert [len(config.augmentation().operators) for config in trainings] == [2, 2, 4]
    assert [config.num_workers for config in trainings] == [None, None, 0]
    assert [config_of(line).search.planned for line in lines if line[0] == "tune"] == [16, 16]
    assert [config_of(line).model for line in lines if line[0] in ("evaluate", "predict")] == ["tuned"] * 2


def test_the_stage_that_is_frozen_is_one():
    (line,) = [words[1:] for words in commands("vtray") if "strategy=frozen" in words]
    config = config_of(line)
    with ShapesOnly():
        names = build_classifier(config.backbone, num_classes=2).stage_names
    assert len(frozen_stages(names, config.freeze)) == 7


def test_the_first_run_as_written(workplace, capsys):
    """All local commands on images to augment, one after the other, literally."""
    lines = [
        words[1:] for words in commands("vtray") if "s3://" not in " ".join(words) and words[1] not in OTHER_JOBS
    ]
    for line in lines:
        assert cli.main(line) == 0, line
        if line[0] == "preview" or "--dry-run" in line:
            assert not (workplace / "augmented").exists()
    assert len(lines) == 6
    printed = capsys.readouterr().out
    assert "0 faults" in printed
    assert "train/can/01.jpg variant 2: byte-identical" in printed
    assert Image.open(workplace / "again.jpg").size == (224, 224)
    assert sorted(path.name for path in (workplace / "preview").iterdir()) == ["operators.png", "variants.png"]


def is_run(line):
    return line[0] == "augment" and "--dry-run" not in line


def test_the_results_are_where_the_tree_says(workplace):
    (run,) = [words[1:] for words in commands("vtray") if is_run(words[1:]) and "s3://" not in " ".join(words)]
    (workplace / "images" / "train" / "can" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert cli.main([*run, "--set", "max_failed=1"]) == 0
    (tree,) = README.blocks("text")
    root, *paths = [line.split()[0] for line in tree.splitlines()]
    assert len(paths) == 6
    assert [path for path in paths if not (workplace / root / path).exists()] == []
    sheets = re.findall(r"\w+\.png", tree)
    assert [(workplace / root / "preview" / name).is_file() for name in sheets] == [True, True]
    assert (workplace / root / "_vtray" / "config.yaml").is_file()


def test_the_job_that_ray_submits_is_the_same_command():
    (words,) = commands("ray")
    assert words[:6] == ["ray", "job", "submit", "--working-dir", ".", "--"]
    python, script, *arguments = words[6:]
    assert (python, (ROOT / script).is_file()) == ("python", True)
    config = config_of([Path(script).stem, *arguments])
    assert config.output.uri == "s3://bucket/augmented"


def test_mlflow_has_the_command():
    """Read from its source, because importing its command line takes longer than all other tests here."""
    (words,) = commands("mlflow")
    package = Path(importlib.util.find_spec("mlflow").origin).parent
    source = (package / "cli" / "__init__.py").read_text()
    assert words[1] == "ui"
    assert f'"{words[1]}"' in source
    assert f'"{words[2]}"' in source
    assert words[3] == "sqlite:///mlflow.db"


class TestLibrary:
    """The two snippets, taken from the page and executed."""

    def test_both_are_short(self):
        lengths = [sum(map(bool, snippet.splitlines())) for snippet in README.blocks("python")]
        assert len(lengths) == 2
        assert max(lengths) <= MAX_LINES

    def test_notebook(self, workplace):
        names = {}
        exec(README.blocks("python")[0], names)
        variants = names["variants"]
        assert [variant.size for variant in variants] == [(224, 224)] * 4
        assert len({variant.tobytes() for variant in variants}) == 4
        recipe = Recipe.load(ROOT / "recipes" / "lecture.yaml")
        array = recipe(np.asarray(names["image"]), seed=7, variant=3)
        assert np.array_equal(array, np.asarray(variants[2]))

    def test_data_loader(self, workplace):
        snippet = README.blocks("python")[1]
        assert "num_workers=2" in snippet
        done = subprocess.run(
            [sys.executable, "-c", LOADER_CHECK],
            input=snippet,
            capture_output=True,
            text=True,
            cwd=workplace,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "shape": [24, 3, 224, 224],
            "dtype": "torch.float32",
            "labels": [0] * 8 + [1] * 8 + [2] * 8,
            "same": True,
            "same_labels": True,
            "next_epoch_differs": True,
        }


def test_every_recipe_is_in_the_table():
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert len(recipes) == 11
    rows = README.table("| recipe | what it does |")
    assert [row[0] for row in rows] == [f"[`recipes/{path.name}`](recipes/{path.name})" for path in recipes]


def test_every_input_format_is_in_the_table():
    formats = re.findall(r"`(\w+)` \|", "\n".join(f"{row[0]} |" for row in README.table(INPUT_HEADER)))
    schema = augment.AugmentConfig.model_json_schema()["$defs"]["InputConfig"]["properties"]["format"]
    assert {*formats, "auto"} == set(schema["enum"])
    assert len(formats) == 4


def test_exit_codes_are_those_of_the_errors():
    from jobs.environment import INTERRUPTED
    from vtray import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")]
    assert len(kinds) >= 9
    codes = [int(row[0]) for row in README.table("| code | meaning |")]
    assert codes == sorted({0, INTERRUPTED} | {kind.exit_code for kind in kinds})


def test_usage_reporting_is_off_where_the_page_says_so():
    from jobs.environment import DEFAULTS

    assert "switch the usage reporting of Ray and MLflow off" in README.text
    assert DEFAULTS["RAY_USAGE_STATS_ENABLED"] == "0"
    assert DEFAULTS["MLFLOW_DISABLE_TELEMETRY"] == "true"
    makefile = (ROOT / "Makefile").read_text()
    assert "export RAY_USAGE_STATS_ENABLED := 0" in makefile
    assert "export MLFLOW_DISABLE_TELEMETRY := true" in makefile


def test_pictures_are_there_and_small():
    pictures = [link for link in README.links() if link.startswith("docs/images/")]
    assert pictures == ["docs/images/flow.svg", "docs/images/showroom.png", "docs/images/stylize.jpg"]
    assert all(0 < (ROOT / picture).stat().st_size < 400_000 for picture in pictures)
