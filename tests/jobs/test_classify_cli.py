"""predict, evaluate and export on the command line."""

import json

import numpy as np
import onnxruntime
import pytest
from classify_support import CLASSES, write_images, write_model

from jobs import cli
from pipelines import cluster

ROOT = cli.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write_model(folder / "model")
    write_images(folder / "images", range(12))
    return folder


@pytest.fixture
def run(capsys):
    """Run a command in this process: (exit code, stdout, stderr lines)."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.strip().splitlines()

    return call


def sets(place, output, **values):
    given = {
        "input.uri": place / "images",
        "output.uri": output,
        "tracking.uri": "none",
        "use_gpu": "false",
    } | values
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_dry_run_of_the_recipe(run, place, tmp_path, monkeypatch, command):
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))
    recipe = ROOT / f"recipes/{command}.yaml"
    code, out, _ = run(command, place / "model", "--dry-run", "--config", recipe, *sets(place, tmp_path / "out"))
    assert code == 0
    assert f"model: {place / 'model'}" in out
    assert "12 in 1 units, 6 classes" in out
    assert ("720 times under conditions" in out) == (
        command == "evaluate"
    )  # 12 images, 12 conditions, 5 severities
    assert not (tmp_path / "out").exists()


def test_predict_ends_with_images_per_class(run, place, tmp_path, in_process):
    code, out, _ = run("predict", place / "model", *sets(place, tmp_path / "out"))
    assert code == 0
    assert "12 (0 failed)" in out
    assert all(f"as {name}" in out for name in CLASSES)
    code, out, _ = run("verify", tmp_path / "out", "--deep")
    assert (code, "0 faults" in out) == (0, True)
    code, out, _ = run("status", tmp_path / "out")
    assert "predict" in out
    assert "complete" in out


def test_the_model_may_be_a_key(run, place, tmp_path, in_process):
    named = sets(place, tmp_path / "out", model=place / "model", **{"robustness.conditions": "none"})
    code, out, _ = run("evaluate", *named)
    assert code == 0
    assert "12 of 12 images of split all" in out
    assert json.loads((tmp_path / "out/metrics.json").read_text())["evaluated"] == 12


def test_without_a_model(run, place, tmp_path):
    code, _, lines = run("predict", *sets(place, tmp_path / "out"))
    assert code == 2
    assert lines == [
        f"error: {ROOT}/recipes/predict.yaml: model: required, but not given (model directory, or the "
        "output.uri of a finetune run; local path or s3://)"
    ]


def test_export_writes_what_onnxruntime_runs(run, place, tmp_path):
    code, out, _ = run("export", place / "model", "--to", tmp_path / "new/model.onnx")
    assert code == 0
    assert "pixels, float32 (batch, 3, 48, 48)" in out
    session = onnxruntime.InferenceSession(tmp_path / "new/model.onnx", providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(None, {"pixels": np.zeros((4, 3, 48, 48), np.float32)})
    assert (logits.shape, probabilities.shape) == ((4, 6), (4, 6))


def test_export_to_another_kind_of_file(run, place, tmp_path):
    code, _, lines = run("export", place / "model", "--to", tmp_path / "model.pt")
    assert code == 2
    assert lines == [f"error: --to {tmp_path}/model.pt: ONNX is what vtray writes; give a name that ends in .onnx"]
