"""Models and histories in MLflow: loaded where vtray is not, the same as ours, and once also after a crash."""

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import draw_image
from PIL import Image

from vtray.classify import mlflow_code
from vtray.classify.backbone import build_classifier
from vtray.classify.mlflow_model import mlflow_model
from vtray.classify.model_dir import Model, encode_model
from vtray.classify.networks import ShapesOnly, build_network
from vtray.classify.preprocessing import Preprocessing, decode_for
from vtray.images import MAX_PIXELS
from vtray.manifest import Ledger
from vtray.storage import open_storage
from vtray.tracking import Tracker, TrackingTarget

pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")  # MLflow of its own classes
CLASSES = ("can", "carton", "bottle", "straw")
NORMS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
PREPROCESSING = Preprocessing(resize_px=72, crop_px=64, interpolation="bilinear", **NORMS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A migrated SQLite store and its client."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'store.db'}"
    client = MlflowClient(tracking_uri=uri)
    client.search_experiments()
    return SimpleNamespace(uri=uri, client=client)


@pytest.fixture(scope="module")
def model():
    """A small network whose answers depend on the picture: random weights, the head's made large."""
    torch.manual_seed(0)
    classifier = build_classifier("squeezenet1_1", num_classes=len(CLASSES)).eval()
    with torch.no_grad():
        classifier.head.weight.mul_(60)
    return Model(classifier=classifier, classes=CLASSES, preprocessing=PREPROCESSING, temperature=1.7)


@pytest.fixture(scope="module")
def package(model):
    return mlflow_model(encode_model(model), [draw_image(1), draw_image(2)])


def tracker_of(store, output: Path, *, uri: str | None = None) -> Tracker:
    target = TrackingTarget(uri=uri or store.uri, experiment="models", run_name=output.name)
    return Tracker(target, Ledger(open_storage(str(output))), {"fingerprint": output.name})


def run_of(store, output: Path):
    return store.client.get_run(json.loads((output / "_vtray/tracking.json").read_text())["run_id"])


def logged_models(store, output: Path):
    run = run_of(store, output)
    own = f"source_run_id = '{run.info.run_id}'"
    return store.client.search_logged_models([run.info.experiment_id], filter_string=own)


def versions_of(store, name: str):
    return store.client.search_model_versions(f"name = '{name}'")


def log_once(store, output: Path, package, **names) -> str | None:
    """What a job does that is killed right after the model was sent: the run is not finished."""
    return tracker_of(store, output).log_model(package, **names).result()


def encoded(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def files_of_all_kinds() -> dict[str, bytes]:
    image = draw_image(3, height=150, width=97)
    alpha = draw_image(4, height=150, width=97)[..., :1]
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "jpeg": encoded(image, "jpeg", quality=90),
        "upright by EXIF": encoded(image, "jpeg", exif=turned),
        "wide": encoded(draw_image(5, height=40, width=301), "png"),
        "strip": encoded(draw_image(7, height=2, width=700), "png"),
        "square": encoded(draw_image(6, height=72, width=72), "webp", lossless=True),
        "transparent": encoded(np.dstack([image, alpha]), "png"),
        "grey": encoded(image[..., 0], "png"),
        "16 bit": encoded(image[..., 0].astype(np.uint16) * 257, "png"),
        "palette": encoded(Image.fromarray(image).quantize(16), "gif"),
    }


# the module that travels with the model --------------------------------------------------------------------------


ELSEWHERE = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("vtray", "pipelines", "jobs"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
import mlflow
import pandas as pd

uri, name, folder = sys.argv[1:]
mlflow.set_tracking_uri(uri)
loaded = mlflow.pyfunc.load_model(name)
table = pd.read_pickle(f"{folder}/images.pkl")
answers = loaded.predict(table)
served = loaded.predict(pd.DataFrame(loaded.input_example))
try:
    loaded.predict(pd.DataFrame({"image": [table["image"][0], b"no image"]}))
except Exception as error:
    fault = str(error)
blocked = [module for module in sys.modules if module.partition(".")[0] in ("vtray", "pipelines", "jobs")]
print(json.dumps([answers.to_dict("list"), len(served), fault, blocked]))
"""


def test_the_registered_model_answers_as_ours_where_vtray_is_not(store, model, package, tmp_path):
    log_once(store, tmp_path / "out", package, registered_name="vtray-elsewhere")
    images = list(files_of_all_kinds().values())
    pd.DataFrame({"image": images}).to_pickle(tmp_path / "images.pkl")
    address = "models:/vtray-elsewhere@candidate"
    command = [sys.executable, "-I", "-c", ELSEWHERE, store.uri, address, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers, num_examples, fault, blocked = json.loads(done.stdout.splitlines()[-1])
    crops = np.stack([decode_for(PREPROCESSING, image, MAX_PIXELS) for image in images])
    expected = (model.logits(crops) / model.temperature).softmax(dim=1).numpy()
    assert np.abs(np.array(answers["probabilities"]) - expected).max() < 1e-5
    assert expected.std(axis=0).min() > 0.01, "the network must tell these pictures apart"
    assert answers["class_name"] == [CLASSES[best] for best in expected.argmax(axis=1)]
    assert np.array(answers["probability"]) == pytest.approx(expected.max(axis=1), abs=1e-5)
    assert num_examples == 2
    assert "image in row 1" in fault
    assert blocked == []


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize_px", "crop_px"), [(72, 64), (64, 64), (57, 64), (100, 64)])
def test_crops_are_ours_to_the_bit(tmp_path, model, interpolation, resize_px, crop_px):
    ours = Preprocessing(resize_px=resize_px, crop_px=crop_px, interpolation=interpolation, **NORMS)
    travelling = loaded_beside(tmp_path, Model(classifier=model.classifier, classes=CLASSES, preprocessing=ours))
    for kind, content in files_of_all_kinds().items():
        found = travelling._crop(content, 0)
        assert np.array_equal(found, decode_for(ours, content, MAX_PIXELS)), kind


def loaded_beside(folder: Path, model: Model) -> mlflow_code.ImageClassifier:
    for name, content in encode_model(model).items():
        (folder / name).write_bytes(content)
    return mlflow_code._load_pyfunc(str(folder), {"device": "cpu"})


@pytest.mark.fixtures
def test_crops_of_photographs_are_ours_to_the_bit(fixtures, tmp_path, model):
    ours = Preprocessing(resize_px=232, crop_px=224, interpolation="bilinear", **NORMS)
    travelling = loaded_beside(tmp_path, Model(classifier=model.classifier, classes=CLASSES, preprocessing=ours))
    photographs = [fixtures / "content" / f"{name}.jpg" for name in ("hot_dog", "owl", "parrot")]
    for photograph in photographs:
        content = photograph.read_bytes()
        assert np.array_equal(travelling._crop(content, 0), decode_for(ours, content, MAX_PIXELS)), photograph


def test_networks_with_auxiliary_heads_are_built_as_ours():
    with ShapesOnly():
        ours = build_network("googlenet", num_classes=2)
    theirs = mlflow_code._build("googlenet", num_classes=2)
    assert (theirs.transform_input, theirs.aux_logits) == (ours.transform_input, ours.aux_logits) == (True, False)
    shapes = [{name: each.shape for name, each in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_no_images_give_no_rows(tmp_path, model):
    answers = loaded_beside(tmp_path, model).predict(pd.DataFrame({"image": []}))
    assert list(answers) == ["class_name", "probability", "probabilities"]
    assert len(answers) == 0


# what MLflow holds -----------------------------------------------------------------------------------------------


def test_the_logged_model_has_signature_example_pins_and_our_files(store, package, tmp_path):
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model as Logged

    address = log_once(store, tmp_path / "out", package)
    (model,) = logged_models(store, tmp_path / "out")
    assert address == f"models:/{model.model_id}"
    folder = Path(download_artifacts(artifact_uri=model.artifact_location, dst_path=str(tmp_path / "copy")))
    logged = Logged.load(folder)
    assert [(column.name, column.type.name) for column in logged.signature.inputs] == [("image", "binary")]
    assert logged.signature.outputs.input_names() == ["class_name", "probability", "probabilities"]
    assert list(logged.load_input_example(folder)["image"]) == list(package.example["image"])
    pins = (folder / "requirements.txt").read_text().split()
    assert {pin.partition("==")[0] for pin in pins} == set(package.requirements)
    assert all("==" in pin and "+" not in pin for pin in pins)
    found = {path.name: path.read_bytes() for path in (folder / "data/files").iterdir()}
    assert found == package.files
    outputs = run_of(store, tmp_path / "out").outputs.model_outputs
    assert [output.model_id for output in outputs] == [model.model_id]


def test_a_second_attempt_after_a_crash_makes_no_second_version(store, package, tmp_path):
    names = {"registered_name": "vtray-twice"}
    first = log_once(store, tmp_path / "out", package, **names)
    assert log_once(store, tmp_path / "out", package, **names) == first == "models:/vtray-twice/1"
    assert len(logged_models(store, tmp_path / "out")) == 1
    (version,) = versions_of(store, "vtray-twice")
    assert version.run_id == run_of(store, tmp_path / "out").info.run_id
    assert store.client.get_registered_model("vtray-twice").aliases == {"candidate": version.version}


def test_a_model_that_was_half_uploaded_is_finished(store, package, tmp_path, monkeypatch, caplog):
    from mlflow.entities import LoggedModelStatus
    from mlflow.tracking import MlflowClient

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", full)
        assert log_once(store, tmp_path / "out", package) is None
    assert "no space left; the run goes on without it" in caplog.text
    (half,) = logged_models(store, tmp_path / "out")
    assert half.status == LoggedModelStatus.PENDING
    assert log_once(store, tmp_path / "out", package) == f"models:/{half.model_id}"
    (whole,) = logged_models(store, tmp_path / "out")
    assert (whole.model_id, whole.status) == (half.model_id, LoggedModelStatus.READY)


def test_the_alias_moves_forward_only_and_is_set_again_when_it_was_lost(store, package, tmp_path):
    names = {"registered_name": "vtray-alias", "alias": "next"}
    log_once(store, tmp_path / "a", package, **names)
    store.client.delete_registered_model_alias("vtray-alias", "next")  # as if killed before it was set
    log_once(store, tmp_path / "a", package, **names)
    assert store.client.get_registered_model("vtray-alias").aliases == {"next": 1}
    log_once(store, tmp_path / "b", package, **names)
    log_once(store, tmp_path / "a", package, **names)
    assert store.client.get_registered_model("vtray-alias").aliases == {"next": 2}
    assert len(versions_of(store, "vtray-alias")) == 2


def test_without_a_registry_the_model_is_logged_all_the_same(store, package, tmp_path, monkeypatch, caplog):
    from mlflow.tracking import MlflowClient

    def absent(*_, **__):
        raise NotImplementedError("no registry here")

    monkeypatch.setattr(MlflowClient, "create_registered_model", absent)
    address = log_once(store, tmp_path / "out", package, registered_name="vtray-nowhere")
    (model,) = logged_models(store, tmp_path / "out")
    assert address == f"models:/{model.model_id}"
    assert "no registry here; the run goes on without it" in caplog.text


def test_other_content_is_another_model(store, model, package, tmp_path):
    other = mlflow_model(encode_model(model, config_yaml=b"epochs: 3\n"), [draw_image(1)])
    log_once(store, tmp_path / "out", package, registered_name="vtray-changed")
    assert log_once(store, tmp_path / "out", other, registered_name="vtray-changed") == "models:/vtray-changed/2"
    assert len(logged_models(store, tmp_path / "out")) == 2


def test_nothing_goes_through_the_global_state_of_mlflow(store, package, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    log_once(store, tmp_path / "out", package, registered_name="vtray-global")
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# history ---------------------------------------------------------------------------------------------------------


def history(num_epochs: int) -> list[dict]:
    epochs = range(1, num_epochs + 1)
    return [
        {"step": 6 * epoch, "time": 1e9 + epoch, "loss": 1 / epoch, "val": {"top1": epoch / 10}, "note": "x"}
        for epoch in epochs
    ]


def steps_of(store, output: Path, name: str) -> list[int]:
    return [metric.step for metric in store.client.get_metric_history(run_of(store, output).info.run_id, name)]


def log_history(store, output: Path, records: list[dict]) -> None:
    """As a driver that is killed afterwards: sent, not finished."""
    tracker = tracker_of(store, output)
    tracker.log_history(records[:1])
    tracker.log_history(records)
    tracker._pool.shutdown()


def test_every_step_is_there_once_also_after_a_kill(store, tmp_path):
    log_history(store, tmp_path / "out", history(3))
    log_history(store, tmp_path / "out", history(5))
    tracker = tracker_of(store, tmp_path / "out")
    tracker.log_history(history(6))
    tracker.finish("FINISHED")
    run = run_of(store, tmp_path / "out")
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == {"loss", "val.top1"}
    assert steps_of(store, tmp_path / "out", "loss") == [6, 12, 18, 24, 30, 36]
    assert steps_of(store, tmp_path / "out", "val.top1") == [6, 12, 18, 24, 30, 36]
    second = store.client.get_metric_history(run.info.run_id, "loss")[1]
    assert (second.value, second.timestamp) == (0.5, 1_000_000_002_000)


def test_a_batch_that_failed_half_way_is_completed_without_repeats(store, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    records = [{"step": step, "loss": 0.1, "accuracy": 0.2, "lr": 0.3} for step in range(400)]
    log_batch, calls = MlflowClient.log_batch, Counter()

    def fails_at_the_second(self, *args, metrics=(), **kwargs):
        calls["sent"] += bool(metrics)
        log_batch(self, *args, metrics=metrics, **kwargs)
        if calls["sent"] == 1 and metrics:
            raise ConnectionError("gone before the answer came")

    monkeypatch.setattr(MlflowClient, "log_batch", fails_at_the_second)
    tracker = tracker_of(store, tmp_path / "out")
    tracker.log_history(records)
    tracker.log_history(records)
    tracker.finish("FINISHED")
    assert calls["sent"] == 2, "1,000 metrics arrived although the call failed; the other 200 are sent once"
    assert all(steps_of(store, tmp_path / "out", name) == list(range(400)) for name in ("loss", "accuracy", "lr"))


def test_without_tracking_nothing_is_logged_and_nothing_fails(store, package, tmp_path):
    tracker = tracker_of(store, tmp_path / "out", uri="none")
    tracker.log_history(history(2))
    assert tracker.log_model(package, registered_name="vtray-off").result() is None
    tracker.finish("FINISHED")
    assert not (tmp_path / "out").exists()
