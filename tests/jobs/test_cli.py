import json
import os
import re
import shutil
import subprocess
import sys
from urllib.error import URLError

import pytest
import torch
from finetune_support import BACKBONE, write_backbone
from PIL import Image
from style_support import write_painting, write_weights
from support import config_for

from jobs import cli
from pipelines import augment, cluster
from vtray.manifest import Ledger
from vtray.storage import open_storage

ROOT = cli.Path(__file__).resolve().parents[2]
RECIPES = {
    path: re.search(r"# vtray (\w+) --config", path.read_text())[1] for path in sorted(ROOT.glob("recipes/*.yaml"))
}
AUGMENT = [path for path, job in RECIPES.items() if job == "augment"]
STYLIZE = [path for path, job in RECIPES.items() if job == "stylize"]
FINETUNE = [path for path, job in RECIPES.items() if job == "finetune"]
TUNE = [path for path, job in RECIPES.items() if job == "tune"]
CLASSIFY = [path for path, job in RECIPES.items() if job in ("evaluate", "predict")]  # in test_classify_cli.py
HEAVY = ("ray", "torch", "torchvision", "mlflow", "numpy", "pydantic", "pyarrow", "cv2", "PIL", "s3fs", "rich")


@pytest.fixture
def run(capsys):
    """Run a command in this process: (exit code, stdout, stderr lines)."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.strip().splitlines()

    return call


@pytest.fixture
def augment_with(run, tiny_images, tmp_path, monkeypatch):
    """`vtray augment` of the smoke recipe on drawn images, with overrides; fails if it asks for a cluster."""
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))

    def call(*overrides, config=ROOT / "recipes" / "smoke.yaml"):
        values = (f"input.uri={tiny_images}", f"output.uri={tmp_path / 'out'}", "tracking.uri=none", *overrides)
        return run("augment", "--config", config, *(part for value in values for part in ("--set", value)))

    return call


@pytest.mark.parametrize("arguments", [["--help"], ["augment", "--help"], ["augment", "--cofnig", "x"], ["nope"]])
def test_help_and_wrong_options_import_nothing_heavy(arguments):
    code = (
        "import sys; from jobs.cli import main\n"
        f"try: code = main({arguments!r})\n"
        "except SystemExit as error: code = error.code\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    expected = 0 if "--help" in arguments else 2
    assert done.stderr.strip().splitlines()[-1] == f"{expected} []"


def test_wrong_usage_is_one_line_with_a_near_match(run):
    code, _, lines = run("augment", "--cofnig", "x")
    assert (code, len(lines)) == (2, 1)
    assert "--cofnig" in lines[0]
    assert "--config" in lines[0]


@pytest.mark.parametrize("recipe", AUGMENT, ids=lambda path: path.stem)
def test_dry_run_of_every_augment_recipe(run, tiny_images, tmp_path, recipe):
    code, out, _ = run(
        "augment",
        "--dry-run",
        "--config",
        recipe,
        "--set",
        f"input.uri={tiny_images}",
        "--set",
        f"output.uri={tmp_path}/o",
    )
    assert code == 0
    assert f"uri: {tiny_images}" in out
    assert "24 in 1 units, 3 classes" in out
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_command_time_and_expectation(recipe):
    header = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    text = " ".join(header)
    assert f"--config recipes/{recipe.name}" in text
    assert "Time:" in text
    assert "Expect:" in text


def test_every_recipe_was_seen():
    assert [path.stem for path in AUGMENT] == ["lecture", "showroom", "smoke"]
    assert "stylize" in [path.stem for path in STYLIZE]
    assert [path.stem for path in FINETUNE] == ["demo-finetune", "demo-pretrain", "finetune"]
    assert [path.stem for path in CLASSIFY] == ["evaluate", "predict"]
    assert [path.stem for path in TUNE] == ["tune"]
    assert len(AUGMENT) + len(STYLIZE) + len(FINETUNE) + len(TUNE) + len(CLASSIFY) == len(RECIPES)


@pytest.fixture
def stylize_with(run, tiny_images, tmp_path, monkeypatch):
    """`vtray stylize` on drawn images with a tiny network, and overrides; fails if it asks for a cluster."""
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))
    values = {"input.uri": tiny_images, "output.uri": tmp_path / "out", "tracking.uri": "none", "use_gpu": "false"}
    values |= {"style.uri": write_painting(tmp_path / "painting.png")}
    values |= {"features.weights": write_weights(tmp_path / "tiny.pth"), "engine.steps": 2}

    def call(*options, config=ROOT / "recipes" / "stylize.yaml", **changed):
        given = values | {key.replace("__", "."): value for key, value in changed.items()}
        return run(
            "stylize", *options, "--config", config, *(p for k, v in given.items() for p in ("--set", f"{k}={v}"))
        )

    return call


@pytest.mark.parametrize("recipe", STYLIZE, ids=lambda path: path.stem)
def test_dry_run_of_every_stylize_recipe(stylize_with, tiny_images, tmp_path, recipe):
    code, out, _ = stylize_with("--dry-run", config=recipe)
    assert code == 0
    assert f"uri: {tiny_images}" in out
    assert "  images" in out
    assert not (tmp_path / "out").exists()


@pytest.fixture
def finetune_with(run, tiny_images, tmp_path, monkeypatch):
    """`vtray finetune` on small drawn images, with overrides; fails if it asks for a cluster."""
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))
    values = {"input.uri": tiny_images, "output.uri": tmp_path / "out", "tracking.uri": "none", "use_gpu": "false"}
    values |= {"preprocess.resize_px": 36, "preprocess.crop_px": 32, "threads": 1}

    def call(*options, config, job="finetune", **changed):
        given = values | {key.replace("__", "."): value for key, value in changed.items()}
        pairs = (part for key, value in given.items() for part in ("--set", f"{key}={value}"))
        return run(job, *options, "--config", config, *pairs)

    return call


@pytest.mark.parametrize("recipe", FINETUNE, ids=lambda path: path.stem)
def test_dry_run_of_every_finetune_recipe(finetune_with, tiny_images, tmp_path, recipe):
    backbone = re.search(r"^backbone: (\w+)$", recipe.read_text(), re.MULTILINE)[1]
    weights = write_backbone(tmp_path / "weights.safetensors", backbone=backbone)
    threads = torch.get_num_threads()
    code, out, _ = finetune_with("--dry-run", config=recipe, weights=weights)
    torch.set_num_threads(threads)
    assert code == 0
    assert f"uri: {tiny_images}" in out
    assert "train 21, val 3, test 0 (val taken from train), 3 classes" in out
    assert re.search(r"total +about [\d.]+ min", out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", TUNE, ids=lambda path: path.stem)
def test_dry_run_of_every_tune_recipe(finetune_with, tiny_images, tmp_path, recipe):
    weights = write_backbone(tmp_path / "weights.safetensors")
    threads = torch.get_num_threads()
    code, out, _ = finetune_with("--dry-run", job="tune", config=recipe, weights=weights, backbone=BACKBONE)
    torch.set_num_threads(threads)
    assert code == 0
    assert f"uri: {tiny_images}" in out
    assert "freeze 0, 2, 3, 5; searcher random" in out
    assert "16 of 6 epochs" in out
    assert re.search(r"search +about [\d.]+ min with asha, [\d.]+ min if nothing is stopped", out)
    assert not (tmp_path / "out").exists()


class TestWrongSearch:
    """Issue: empty space, lr <= 0, freeze deeper than the model, too few epochs, no Optuna: one line each."""

    @pytest.fixture
    def tune_with(self, finetune_with, tmp_path):
        weights = write_backbone(tmp_path / "weights.safetensors")
        recipe = ROOT / "recipes" / "tune.yaml"

        def call(**changed):
            code, _, lines = finetune_with(
                job="tune", config=recipe, weights=weights, backbone=BACKBONE, **changed
            )
            assert len(lines) == 1
            return code, lines[0]

        return call

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (
                {"search__space": "{lr: null, freeze: null}"},
                "search.space: nothing to search; give values for",
            ),
            ({"search__space__lr": "{low: 0, high: 1}"}, "search.space.lr.low: 0 is not allowed; allowed: > 0"),
            (
                {"search__space__lr": "[1e-3, -1]"},
                "search.space.lr: ['1e-3', -1]: -1 is not allowed;",
            ),
            (
                {"search__space__freeze": "[0, 6]"},
                "search.space.freeze: 6 is not allowed; give 0 to 5",
            ),
            ({"search__asha__grace_epochs": 6}, "grace_epochs 6: with loop.epochs 6 no trial could be stopped"),
            ({"search__num_trial": 6}, "search.num_trial: not a known key; did you mean 'num_trials'?"),
        ],
    )
    def test_one_clear_line(self, tune_with, changed, message):
        code, line = tune_with(**changed)
        assert code == 2
        assert message in line

    def test_no_optuna(self, tune_with, monkeypatch):
        monkeypatch.setitem(sys.modules, "optuna", None)
        code, line = tune_with(search__searcher="optuna")
        assert code == 2
        assert "pip install 'vtray[optuna]'" in line


class TestWrongTraining:
    """Issue: unknown backbone, unknown stage, no weights: one line each and its exit code."""

    RECIPE = ROOT / "recipes" / "finetune.yaml"

    def test_unknown_backbone(self, finetune_with):
        code, _, lines = finetune_with(config=self.RECIPE, backbone="resnet81")
        assert (code, len(lines)) == (2, 1)
        assert "backbone 'resnet81': not a classification model of torchvision; did you mean resnet18" in lines[0]

    def test_unknown_stage(self, finetune_with, tmp_path):
        weights = write_backbone(tmp_path / "weights.safetensors")
        code, _, lines = finetune_with(
            config=self.RECIPE, backbone=BACKBONE, weights=weights, strategy="frozen", freeze="stage5"
        )
        assert (code, len(lines)) == (2, 1)
        assert "freeze: 'stage5' is not a stage" in lines[0]
        assert "conv1, stage2, stage3, stage4, conv5" in lines[0]

    def test_no_weights(self, finetune_with, tmp_path):
        code, _, lines = finetune_with(config=self.RECIPE, weights=tmp_path / "none.pth")
        assert (code, len(lines)) == (4, 1)
        assert f"{tmp_path}/none.pth" in lines[0]

    def test_a_key_that_is_none(self, finetune_with):
        code, _, lines = finetune_with(config=self.RECIPE, loop__epoch=3)
        assert (code, len(lines)) == (2, 1)
        assert "loop.epoch: not a known key; did you mean 'epochs'?" in lines[0]


class TestWrongStyle:
    """Issue: no weights, bad style image, unknown layer, weights all zero: one line each and its exit code."""

    def test_no_weights_and_no_network(self, stylize_with, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise URLError("no network")

        before = torch.hub.get_dir()
        torch.hub.set_dir(str(tmp_path / "hub"))
        monkeypatch.setattr(torch.hub, "urlopen", fail)
        code, _, lines = stylize_with(features__weights="torchvision:DEFAULT")
        torch.hub.set_dir(before)
        assert (code, len(lines)) == (4, 1)
        assert f"vgg19-dcbb9e9d.pth is not in {tmp_path}/hub/checkpoints and cannot be downloaded" in lines[0]
        assert "put it there" in lines[0]
        assert "or give the path of a local file" in lines[0]

    def test_broken_style_image(self, stylize_with, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        code, _, lines = stylize_with(style__uri=tmp_path / "broken.png")
        assert (code, len(lines)) == (2, 1)
        assert lines[0].startswith(f"error: style.uri: {tmp_path}/broken.png: ")

    def test_style_image_of_eight_pixels(self, stylize_with, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "dot.png")
        code, _, lines = stylize_with(style__uri=tmp_path / "dot.png")
        told = f"error: style.uri: {tmp_path}/dot.png is 8 x 8 px, each side must have 32; choose a larger image"
        assert (code, lines) == (2, [told])

    def test_unknown_layer(self, stylize_with):
        code, _, lines = stylize_with(features__style_layers="[relu1_1, rleu2_1]")
        assert (code, len(lines)) == (2, 1)
        assert "vgg19 has no layer 'rleu2_1' (did you mean relu2_1?); it has conv1_1, relu1_1, conv1_2" in lines[0]

    def test_weights_all_zero(self, stylize_with, tmp_path):
        code, _, lines = stylize_with(features__weights=write_weights(tmp_path / "zero.pth", scale=0.0))
        assert (code, len(lines)) == (4, 1)
        assert "zero.pth: weights all zero" in lines[0]

    def test_unknown_key_and_network(self, stylize_with):
        code, _, lines = stylize_with(engine__step=3, features__network="vgg")
        assert (code, len(lines)) == (2, 2)
        assert "engine.step: not a known key; did you mean 'steps'?" in "".join(lines)
        assert "features.network: 'vgg' is not allowed" in "".join(lines)

    def test_no_style(self, run, tmp_path):
        code, _, lines = run("stylize", "--set", "input.uri=x", "--set", "output.uri=y")
        assert (code, len(lines)) == (2, 1)
        assert "style.uri: required, but not given (the style image" in lines[0]


def test_status_verify_and_replay_of_a_stylized_output(stylize_with, run, tmp_path, in_process):
    code, out, _ = stylize_with()
    assert code == 0
    assert "complete" in out
    code, out, _ = run("status", tmp_path / "out")
    assert code == 0
    assert re.search(r"job +stylize", out)
    assert "24" in out
    assert run("verify", tmp_path / "out", "--deep")[0] == 0
    code, _, lines = run("replay", tmp_path / "out", "can/01.jpg", 1)
    assert (code, len(lines)) == (2, 1)
    assert "an output of vtray stylize; only images of vtray augment are made again" in lines[0]


def test_a_mask_of_another_size_is_told_with_its_size(stylize_with, tmp_path, in_process):
    Image.new("L", (10, 10)).save(tmp_path / "mask.png")
    code, _, lines = stylize_with(style__masks=tmp_path / "mask.png")
    assert code == 3
    assert "24 of 24 images failed" in lines[-1]
    assert f"mask {tmp_path}/mask.png is 10 x 10, the image 64 x 48" in lines[-1]


class TestWrongInput:
    """Issue: one clear line each, and exit code 2 or 4."""

    def test_missing_input(self, augment_with):
        code, _, lines = augment_with("input.uri=/no/such/folder")
        assert (code, lines) == (2, ["error: /no/such/folder: no such file or folder; check input.uri"])

    def test_empty_input(self, augment_with, tmp_path):
        (tmp_path / "empty").mkdir()
        code, _, lines = augment_with(f"input.uri={tmp_path / 'empty'}")
        assert (code, lines) == (2, [f"error: {tmp_path / 'empty'}: the folder is empty; check input.uri"])

    def test_input_without_images(self, augment_with, tmp_path):
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").write_text("a")
        code, _, lines = augment_with(f"input.uri={tmp_path / 'texts'}")
        assert (code, len(lines)) == (2, 1)
        assert "no image found" in lines[0]
        assert ".txt (1)" in lines[0]

    def test_unknown_operator(self, augment_with):
        code, _, lines = augment_with("operators=[{op: flpi}]")
        assert (code, len(lines)) == (2, 1)
        assert "'flpi' is not known; did you mean 'flip'?" in lines[0]

    def test_value_out_of_range(self, augment_with):
        code, _, lines = augment_with("image.quality=101")
        assert (code, len(lines)) == (2, 1)
        assert "--set: image.quality: 101 is not allowed; allowed: >= 1 and <= 100" in lines[0]

    def test_two_faults_at_once(self, augment_with):
        code, _, lines = augment_with("image.quality=101", "sede=1")
        assert (code, len(lines)) == (2, 2)
        assert "did you mean 'seed'?" in "".join(lines)

    def test_no_input_given(self, run):
        code, _, lines = run("augment")
        assert code == 2
        assert [line.split(": ")[-3:-1] for line in lines]
        assert "input: required, but not given" in lines[0]

    def test_output_that_holds_another_plan(self, augment_with, tmp_path, tiny_images):
        out = tmp_path / "out"
        job = augment.prepare(config_for(tiny_images, out))
        Ledger(open_storage(str(out))).begin(job.plan, lambda: b"")
        code, _, lines = augment_with()
        assert code == 2
        assert lines[0].startswith(f"error: {out}: holds another plan; it differs in")
        assert "  variants: 2 -> 1" in lines
        assert "replan=true" in lines[-1]

    def test_output_that_holds_other_files(self, augment_with, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        code, _, lines = augment_with()
        assert (code, len(lines)) == (2, 1)
        assert "holds files that vtray did not write (such as thesis.txt)" in lines[0]

    def test_output_inside_the_input(self, augment_with, tiny_images):
        code, _, lines = augment_with(f"output.uri={tiny_images}/augmented")
        assert (code, len(lines)) == (2, 1)
        assert "inside the input" in lines[0]

    def test_unreadable_config(self, run, tmp_path):
        (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
        code, _, lines = run("augment", "--config", tmp_path / "run.yaml")
        assert (code, len(lines)) == (2, 1)
        assert "cannot be read" in lines[0]

    def test_missing_config(self, run):
        code, _, lines = run("augment", "--config", ROOT / "recipes" / "lectrue.yaml")
        assert (code, len(lines)) == (2, 1)
        assert "did you mean" in lines[0]
        assert "lecture.yaml" in lines[0]

    @pytest.mark.skipif(os.geteuid() != 0, reason="root gives up its rights here; others have none to give")
    def test_no_write_permission(self, augment_with, tmp_path):
        code, _, lines = augment_with("output.uri=/proc/vtray-out")
        assert (code, len(lines)) == (4, 1)
        assert lines[0].startswith("error: /proc/vtray-out")

    def test_output_below_a_file(self, augment_with, tmp_path):
        (tmp_path / "file").write_text("")
        code, _, lines = augment_with(f"output.uri={tmp_path / 'file' / 'out'}")
        assert (code, len(lines)) == (4, 1)

    def test_bucket_address_without_a_bucket(self, augment_with):
        code, _, lines = augment_with("output.uri=s3://")
        assert (code, len(lines)) == (2, 1)
        assert "no bucket" in lines[0]


def finish(tiny_images, out):
    """An output made without Ray: the step called unit by unit."""
    from vtray.sources import encode_units

    job = augment.prepare(config_for(tiny_images, out))
    ledger = Ledger(open_storage(str(out)))
    ledger.begin(job.plan, lambda: encode_units(job.units))
    for unit in job.units:
        job.step(unit, job.plan.unit_digest(unit.unit_id))
    return job, ledger


def test_status_verify_replay_of_an_output(run, tiny_images, tmp_path):
    out = tmp_path / "out"
    job, ledger = finish(tiny_images, out)
    code, text, _ = run("status", out)
    assert code == 0
    assert "5 of 5" in text
    assert "done, not yet finished" in text
    ledger.finish(job.plan, {}, complete=True)
    ledger.mark_complete()
    assert "complete" in run("status", out)[1]
    assert run("verify", out, "--deep")[:1] == (0,)
    code, text, _ = run("replay", out, "can/01.jpg", 2, "--to", tmp_path / "again.jpg")
    assert code == 0
    assert "byte-identical" in text
    assert Image.open(tmp_path / "again.jpg").size == (32, 32)


def test_verify_finds_damage_with_exit_code_3(run, tiny_images, tmp_path):
    out = tmp_path / "out"
    job, ledger = finish(tiny_images, out)
    ledger.finish(job.plan, {}, complete=True)
    ledger.mark_complete()
    victim = next((out / "data").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert run("verify", out)[0] == 0
    code, _, lines = run("verify", out, "--deep")
    assert (code, len(lines)) == (3, 1)
    assert victim.name in lines[0]


def test_replay_of_a_changed_source_says_so(run, tiny_images, tmp_path):
    images = shutil.copytree(tiny_images, tmp_path / "images")
    finish(images, tmp_path / "out")
    shutil.copy(images / "can" / "04.jpg", images / "can" / "01.jpg")
    code, text, _ = run("replay", tmp_path / "out", "can/01.jpg", 1)
    assert code == 3
    assert "NOT the same bytes (the source image has changed since)" in text


@pytest.mark.parametrize("command", [("status",), ("verify",), ("replay", "x", "0")])
def test_a_place_without_output_is_told(run, tmp_path, command):
    code, _, lines = run(command[0], tmp_path, *command[1:])
    assert (code, len(lines)) == (2, 1)
    assert "no" in lines[0]


def test_preview_without_a_run(run, tiny_images, tmp_path):
    recipe = ROOT / "recipes" / "showroom.yaml"
    code, text, _ = run("preview", "--config", recipe, "--set", f"input.uri={tiny_images}", "--to", tmp_path / "p")
    assert code == 0
    assert len(text.splitlines()) == 2
    for name in ("variants.png", "operators.png"):
        assert Image.open(tmp_path / "p" / name).width > 400


def test_preview_shows_production_pixels(tiny_images, tmp_path):
    """The sheet's cells are the decoded bytes of the rows, not something drawn for show."""
    import numpy as np

    from pipelines import preview
    from vtray.images import decode

    job = augment.prepare(config_for(tiny_images, tmp_path / "out"))
    shown = []
    original = preview.contact_sheet

    def spy(rows, **options):
        shown.append(rows)
        return original(rows, **options)

    preview.contact_sheet = spy
    try:
        preview.preview_sheets(job.units, job.step)
    finally:
        preview.contact_sheet = original
    made = {}
    for unit in job.units:
        for row in job.step.make(unit).rows:
            made[row.image_id, row.variant] = decode(row.image).image
    assert len(shown[0]) == 6
    for row in shown[0]:
        for variant, cell in enumerate(row.cells[1:], start=1):
            assert np.array_equal(cell.image, made[row.label, variant])


def test_json_report_matches_the_table(tiny_images, tmp_path, in_process):
    out = tmp_path / "out"
    report = augment.run(config_for(tiny_images, out))
    stored = json.loads((out / "_vtray" / "report.json").read_text())
    assert stored["rows"] == report.rows == 72
    assert "72 in" in report.table()
