"""docs/finetune.md says what the code says, its commands and blocks are valid, and its snippets run."""

import inspect
import re
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
import typer
import yaml
from classify_support import CLASSES, write_model
from drawn import draw_image
from finetune_support import config_of, history_of, write_backbone, write_images
from pages import ROOT, Page
from PIL import Image
from test_guide import settings_of

from jobs import augment, cli, evaluate, finetune, predict
from pipelines import finetune as pipeline
from pipelines import finetune_begin, finetune_rows, prefix_cache_check
from pipelines.evaluate_config import EvaluateConfig
from pipelines.evaluate_measures import measures
from pipelines.finetune_config import FinetuneConfig
from pipelines.predict_config import PredictConfig
from vtray.classify import mlflow_model, numerics
from vtray.classify.backbone import build_classifier
from vtray.classify.checkpoint import Checkpoints
from vtray.classify.class_names import match_classes, read_aliases
from vtray.classify.conditions import CONDITIONS, SEVERITIES
from vtray.classify.evaluation import Evaluation
from vtray.classify.examples import NAMES
from vtray.classify.learning_rate_finder import find_learning_rate
from vtray.classify.metrics import Tally
from vtray.classify.model_dir import load_model
from vtray.classify.networks import ShapesOnly
from vtray.classify.phases import NEW_HEAD_FACTOR, Strategy
from vtray.classify.predictions import EVALUATED, encode_predictions
from vtray.classify.published import class_names_of
from vtray.errors import ConfigError
from vtray.storage import open_storage
from vtray.verification import verify

GUIDE = Page(ROOT / "docs" / "finetune.md")
JOBS = {"augment": augment, "finetune": finetune, "evaluate": evaluate, "predict": predict}
IN_WORDS = {
    "output.register_as",
    "sha256",
    "head.aliases",
    "head.dropout",
    "preprocess.resize_px",
    "preprocess.crop_px",
    "train_stages",
    "loop.head_lr_factor",
    "loop.layer_decay",
    "loop.clip_norm",
    "loop.ema_decay",
    "loop.patience",
    "recipe",
    "cache_uri",
    "num_workers",
    "threads",
    "use_gpu",
    "units.max_images",
    "tracking.uri",
    "run_name",
}  # their default is null, and the page says what that means
STRENGTHS = {
    "dim_light": "stops",
    "too_much_light": "stops",
    "warm_light": "kelvin",
    "cold_light": "kelvin",
    "uneven_light": "strength",
    "cast_shadow": "darkness",
    "glare": "count",
    "desk_reflection": "opacity",
    "blur": "sigma",
    "noise": "std",
    "jpeg": "quality",
    "erased": "area",
}


def defaults_told(*headers):
    """key -> what the page says of its default, from tables with these headers."""
    rows = [row for header in headers for row in GUIDE.table(header)]
    told = {key.strip("`"): default for key, default, _ in rows}
    assert len(told) == len(rows)
    return told


def assert_told(told, expected):
    assert told.keys() == expected.keys()
    for key, value in expected.items():
        if value is ...:
            assert told[key] == "required"
        elif value is None:
            assert key in IN_WORDS
            assert told[key]
        else:
            plain = list(value) if isinstance(value, tuple) else value
            assert yaml.safe_load(told[key].strip("`")) == plain, key


def test_every_setting_of_finetune_has_its_line_and_its_default():
    told = defaults_told("| key | default | meaning |")
    assert_told(told, settings_of(FinetuneConfig))
    assert len(told) == 62
    assert told["loop.head_lr_factor"] == f"{NEW_HEAD_FACTOR:.0f} for a new head, else 1"


def test_every_setting_of_predict_and_evaluate_has_its_line_and_its_default():
    both, more = "| key of both | default | meaning |", "| more of evaluate | default | meaning |"
    assert_told(defaults_told(both), settings_of(PredictConfig))
    assert_told(defaults_told(both, more), settings_of(EvaluateConfig))


def test_every_choice_of_a_setting_is_named():
    """What a key with fixed words allows stands in its line, or is told in the section that the line names."""
    named = {key.strip("`"): meaning for key, _, meaning in GUIDE.table("| key | default | meaning |")}
    looked_at = 0
    for section, model in {"": FinetuneConfig, "loop.": FinetuneConfig.model_fields["loop"].annotation}.items():
        for name, field in model.model_fields.items():
            words = [word for word in get_args(field.annotation) if isinstance(word, str)]
            if not words or name == "strategy":
                continue
            looked_at += 1
            line = f"{named[section + name]} `{field.default}`"
            assert [word for word in words if f"`{word}`" not in line] == [], name
    assert looked_at >= 6


def test_every_strategy_has_its_line():
    rows = GUIDE.table("| `strategy` | what is trained | what is frozen |")
    assert [name.strip("`") for name, *_ in rows] == list(get_args(Strategy))


def test_every_network_has_the_stages_that_are_told():
    rows = GUIDE.table("| network | stages | head |")
    assert len(rows) == 7
    for name, stages, head in rows:
        with ShapesOnly():
            classifier = build_classifier(name.strip("`"), num_classes=2)
        told = [stage for code in re.findall(r"`([^`]+)`", stages) for stage in code.split(", ")]
        assert [stage for stage in told if stage not in classifier.stage_names] == []
        assert (told[0], told[-1]) == (classifier.stage_names[0], classifier.stage_names[-1])
        assert " to " in stages or told == list(classifier.stage_names)
        assert head.strip("`") == classifier.head_name


def test_every_condition_has_its_line_and_its_strengths():
    rows = GUIDE.table("| condition | what grows | severity 1 to 5 |")
    assert [name.strip("`") for name, *_ in rows] == list(CONDITIONS) == list(STRENGTHS)
    for name, meaning, severities in rows:
        condition = CONDITIONS[name.strip("`")]
        field, *values = severities.replace(",", "").split()
        assert meaning == condition.meaning
        assert field == STRENGTHS[condition.name]
        fixed = [getattr(operator, field) for operator in condition.operators]
        assert fixed == [(value, value) for value in map(float, values)]
        assert len(fixed) == len(SEVERITIES)


def test_every_key_of_the_metrics_has_its_line():
    evaluation = Evaluation.of(torch.eye(3), torch.arange(3), temperature=2.0)
    measured = measures(evaluation, ("a", "b", "c"), temperature=2.0)
    rows = dict(GUIDE.table("| key of `metrics.json` | meaning |"))
    assert [name for key in rows for name in re.findall(r"`(\w+)`", key)] == list(measured)
    for key in ("calibrated", "robustness"):
        assert [name for name in measured[key] if f"`{name}`" not in rows[f"`{key}`"]] == []
    assert [name for name in measured["per_class"]["a"] if f"`{name}`" not in rows["`per_class`"]] == []
    assert f"over {len(Tally.of(torch.eye(3), torch.arange(3)).bin_count)} bins" in rows["`ece`"]


def test_every_column_of_the_rows_has_its_line(tmp_path):
    import io

    from pyarrow import parquet

    columns = parquet.read_schema(io.BytesIO(encode_predictions([], evaluated=True))).names
    rows = {name.strip("`"): meaning for name, _, meaning in GUIDE.table("| column | type | meaning |")}
    assert list(rows) == columns
    assert {name for name, meaning in rows.items() if meaning.startswith("only of evaluate")} == set(EVALUATED)


def test_exit_codes_are_those_of_the_program():
    codes = [row[0] for row in Page(ROOT / "README.md").table("| code | meaning |")]
    assert [row[0] for row in GUIDE.table("| code | here |")] == codes


def test_numbers_in_the_text_are_those_of_the_code():
    text = " ".join(GUIDE.text.split())
    rates = inspect.signature(find_learning_rate).parameters
    lowest, highest = rates["lowest"].default, rates["highest"].default
    assert (lowest, highest, Checkpoints.keep_last, Checkpoints.keep_best) == (1e-6, 1.0, 2, 1)
    assert f"{rates['num_steps'].default} steps with rates from 1e-6 to 1," in text
    assert f"up to {finetune_begin.MEAN_IMAGES} images of their class" in text
    assert f"take more than {finetune_rows.LIMIT_BYTES >> 30} GiB" in text
    assert f"`{finetune_rows.CACHES}/KEY/`" in text
    assert f"training, {prefix_cache_check.NUM_COMPARED} images (or all" in text
    assert f"another is at least {100 * (numerics.WORTH - 1):.0f} % faster" in text
    for split, others in NAMES.items():
        assert f"`{split}`" in text
        assert [name for name in others if f"`{name}`" not in text] == []


def test_commands_are_those_of_the_program():
    commands = GUIDE.commands()
    submitted = [words for words in commands if words[0] == "ray"]
    assert [words[6:8] for words in submitted] == [["python", "jobs/finetune.py"]]
    assert isinstance(finetune.load(*given(["finetune", *submitted[0][8:]])), FinetuneConfig)
    seen = []
    for name, *arguments in commands:
        if name != "vtray":
            continue
        seen.append(arguments[0])
        file, overrides = given(arguments)
        if arguments[0] in JOBS:
            JOBS[arguments[0]].load(file, overrides)
    assert seen == [
        *["finetune"] * 3,
        "augment",
        "finetune",
        "evaluate",
        "evaluate",
        "predict",
        "export",
        "export",
    ]
    assert len(commands) == len(seen) + len(submitted)


def given(words):
    """Config file and overrides of a command line as the real command reads it; a wrong one raises."""
    options = typer.main.get_command(cli.app).commands[words[0]].make_context("vtray", words[1:]).params
    model = [f"model={options['model']}"] if options.get("model") else []
    file = ROOT / options["config"] if options.get("config") else None
    return file, [*model, *(options.get("set_") or [])]


def test_every_recipe_that_is_named_exists():
    named = set(re.findall(r"recipes/[\w-]+\.yaml", GUIDE.source))
    assert {"recipes/finetune.yaml", "recipes/showroom.yaml"} <= named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_aliases_are_classes_of_the_weights(tmp_path):
    (block,) = GUIDE.blocks("yaml")
    (tmp_path / "aliases.yaml").write_text(block)
    aliases = read_aliases(str(tmp_path / "aliases.yaml"))
    categories = class_names_of("resnet18")
    matches = match_classes([*aliases, "n02085620-Chihuahua", "n02123045"], categories=categories, aliases=aliases)
    assert [match.wnid for match in matches] == ["n02012849", "n07930864", None, "n02085620", "n02123045"]
    for name in ("crane", "maillot"):
        assert f"`{name}`" in GUIDE.text
        with pytest.raises(ConfigError, match="ambiguous"):
            match_classes([name], categories=categories)
    with pytest.raises(ConfigError, match="n03126707"):
        match_classes(["crane"], categories=categories)


def test_the_mixes_are_valid():
    (mixes,) = re.findall(r"`(\[\{op: mixup.*?\}\])`", " ".join(GUIDE.text.split()))
    places = {"input": {"uri": "a"}, "output": {"uri": "b"}}
    config = FinetuneConfig.model_validate(places | {"loop": {"mix": yaml.safe_load(mixes)}})
    assert [mix.op for mix in config.loop.mix] == ["mixup", "cutmix"]


def test_blocks_are_of_kinds_that_are_checked():
    assert sorted(GUIDE.languages()) == ["python"] * 2 + ["sh"] * 6 + ["text"] * 2 + ["yaml"]


def test_the_model_in_torchvision_is_the_model(tmp_path, monkeypatch):
    """The block as written, on a model folder: the same logits as ours for the same photograph."""
    model = write_model(tmp_path / "tuned" / "model")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(GUIDE.blocks("python")[0], names)
    photo = draw_image(7, 90, 70)
    with torch.no_grad():
        logits = names["network"](names["prepare"](Image.fromarray(photo))[None])
    assert names["classes"] == list(CLASSES)
    torch.testing.assert_close(logits, model.logits(np.stack([model.preprocessing(photo)])), rtol=0, atol=1e-4)


def test_what_mlflow_gives_is_what_the_page_says():
    """That such a model is loaded so is shown in test_model_tracking.py."""
    block = GUIDE.blocks("python")[1]
    compile(block, "docs/finetune.md", "exec")
    assert f"@{FinetuneConfig.model_fields['output'].annotation.model_fields['alias'].default}" in block
    assert "register_as=products" in GUIDE.text
    assert "models:/products@" in block
    assert '{"image": ' in block
    assert [name for name in mlflow_model.OUTPUTS if f"`{name}`" not in GUIDE.text] == []


def test_a_run_leaves_what_the_tree_says(tmp_path):
    """In this process; what the page calls removable is removed, and the output is as good as before."""
    images = write_images(tmp_path / "images", test=3)
    weights = write_backbone(tmp_path / "weights.safetensors")
    config = config_of(images, tmp_path / "tuned", weights, strategy="linear_probe")
    pipeline.run(config)
    root, *paths = [line.split()[0].replace("HASH", "*") for line in GUIDE.blocks("text")[0].splitlines()]
    assert root == "tuned/"
    elsewhere = {"evaluation/", "quarantine/"}  # of another job, and of broken images
    there = [path for path in paths if any((tmp_path / "tuned").glob(path.rstrip("/")))]
    assert set(there) == set(paths) - elsewhere
    (line,) = [line for line in GUIDE.blocks("text")[0].splitlines() if "metrics.jsonl" in line]
    told = line.partition("epoch: ")[2].split(", ")
    assert [name for name in told if name not in history_of(tmp_path / "tuned")[0]] == []
    for name in ("caches", "training-*"):
        (found,) = (tmp_path / "tuned" / "_vtray").glob(name)
        shutil.rmtree(found)
    assert verify(open_storage(str(tmp_path / "tuned")), deep=True).faults == ()
    assert pipeline.run(config).nothing_to_do
    assert load_model(str(tmp_path / "tuned")).classes == ("a", "b", "c")
