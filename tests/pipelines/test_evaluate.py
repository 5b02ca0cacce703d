"""The evaluate job: exact counts, its measures and page, and how labels of another model are refused."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import torch
from classify_support import CLASSES, write_images, write_model
from PIL import Image
from support import output_bytes

from pipelines import cluster, evaluate
from pipelines.evaluate_config import ConditionName, EvaluateConfig
from vtray.classify.conditions import CONDITIONS
from vtray.classify.metrics import Tally
from vtray.classify.predictions import read_predictions
from vtray.errors import InputError, PlanMismatch, TooManyFailures
from vtray.storage import open_storage
from vtray.verification import verify

ROBUSTNESS = {"conditions": ["dim_light", "erased"], "severities": [1, 4], "max_images": 7}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and 101 images in splits of 60, 13 and 28; it is right about numbers 0 to 5, of test."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_images(folder / "images/test", range(28))
    write_images(folder / "images/val", range(28, 41))
    write_images(folder / "images/train", range(41, 101))
    write_model(folder / "model")
    return folder


def make_config(place, to, **values):
    settings = {
        "model": str(place / "model"),
        "input": {"uri": str(place / "images")},
        "output": {"uri": str(to)},
        "units": {"max_images": 10},
        "batch": 4,
        "robustness": ROBUSTNESS,
        "tracking": {"uri": "none"},
        "use_gpu": False,
    }
    return EvaluateConfig.model_validate(settings | values)


@pytest.fixture
def config_of(place):
    return lambda to, **values: make_config(place, to, **values)


@pytest.fixture(scope="module")
def finished(place, ray_cluster):
    """All 101 images on two workers; nobody may change it."""
    evaluate.run(make_config(place, place / "finished", split="all"))
    return place / "finished"


@pytest.fixture
def no_ray(monkeypatch):
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))


def rows_of(output):
    return [row for path in sorted(output.glob("data/*.parquet")) for row in read_predictions(path.read_bytes())]


def metrics_of(output):
    return json.loads((output / "metrics.json").read_text())


class TestMeasures:
    def test_every_image_is_counted_once(self, finished):
        """101 images in uneven units on two workers."""
        metrics, rows = metrics_of(finished), rows_of(finished)
        assert len({row.image_id for row in rows}) == len(rows) == metrics["evaluated"] == 101
        assert sum(sum(counts.values()) for counts in metrics["confusion"].values()) == 101
        assert sum(scores["images"] for scores in metrics["per_class"].values()) == 101

    def test_they_are_those_of_the_rows(self, finished):
        metrics, rows = metrics_of(finished), rows_of(finished)
        logits = torch.tensor([row.logits for row in rows])
        labels = torch.tensor([CLASSES.index(row.true_class) for row in rows])
        expected, calibrated = Tally.of(logits, labels), Tally.of(logits / 2.0, labels)
        assert metrics["top1"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
        assert metrics["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
        assert (metrics["top5"], metrics["ece"]) == pytest.approx((expected.top5, expected.ece))
        assert metrics["calibrated"] == pytest.approx({"nll": calibrated.nll, "ece": calibrated.ece})
        assert metrics["temperature"] == 2.0
        found = Counter((row.true_class, row.class_name) for row in rows)
        assert metrics["confusion"] == {
            true: {name: found[true, name] for name in CLASSES if found[true, name]} for true in CLASSES
        }

    def test_robustness_is_of_a_sample(self, finished):
        robustness = metrics_of(finished)["robustness"]
        assert robustness["images"] == 7
        assert {name: list(scores) for name, scores in robustness["top1"].items()} == {
            "dim_light": ["1", "4"],
            "erased": ["1", "4"],
        }
        shares = [share for scores in robustness["top1"].values() for share in scores.values()]
        assert all(round(7 * share, 6).is_integer() for share in [*shares, robustness["clean"]])

    def test_workers_make_what_one_process_makes(self, finished, tmp_path, config_of, in_process):
        evaluate.run(config_of(tmp_path / "out", split="all"))
        assert output_bytes(tmp_path / "out") == output_bytes(finished)
        for name in ("metrics.json", "preview/worst.png"):
            assert (tmp_path / "out" / name).read_bytes() == (finished / name).read_bytes()

    def test_however_the_input_is_cut(self, finished, tmp_path, config_of, in_process):
        """Batches differ, so the last bits of logits may; counts do not."""
        evaluate.run(config_of(tmp_path / "out", split="all", units={"max_images": 33}))
        ours, theirs = metrics_of(tmp_path / "out"), metrics_of(finished)
        assert ours["confusion"] == theirs["confusion"]
        assert ours["robustness"] == theirs["robustness"]
        assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-5)

    def test_without_conditions(self, tmp_path, config_of, in_process):
        report = evaluate.run(config_of(tmp_path / "out", robustness={"conditions": "none"}))
        assert metrics_of(tmp_path / "out")["robustness"] == {"images": 0, "clean": None, "top1": {}}
        assert "robustness" not in report.table()

    def test_conditions_in_the_config_are_those_of_the_library(self):
        assert get_args(ConditionName) == tuple(CONDITIONS)


class TestSplit:
    @pytest.mark.parametrize(
        ("left", "expected", "number"),
        [("test", "test", 28), ("val", "val", 13), (None, "all", 60)],
    )
    def test_auto_is_test_then_val_then_all(self, place, tmp_path, config_of, left, expected, number):
        images = tmp_path / "images"
        for split in ("train", "val", "test"):
            shutil.copytree(place / "images" / split, images / split)
            if split == left:
                break
        else:
            shutil.rmtree(images / "test")
            shutil.rmtree(images / "val")
        config = config_of(tmp_path / "out", input={"uri": str(images)})
        job = evaluate.prepare(config, has_gpu=lambda: False)
        assert (job.split, len(job.source.refs)) == (expected, number)

    def test_one_by_name(self, tmp_path, config_of, in_process):
        report = evaluate.run(config_of(tmp_path / "out", split="val"))
        assert (report.split, report.images, report.evaluated) == ("val", 13, 13)
        assert "13 of 13 images of split val; 0 failed" in report.table()

    def test_one_that_is_not_there(self, tmp_path, config_of, no_ray):
        with pytest.raises(InputError, match="has no split 'dev2'; it has test, train, val; or choose all"):
            evaluate.run(config_of(tmp_path / "out", split="dev2"))

    def test_another_split_is_another_plan(self, tmp_path, config_of, in_process):
        evaluate.run(config_of(tmp_path / "out", split="val"))
        with pytest.raises(PlanMismatch, match='split: "val" -> "test"'):
            evaluate.run(config_of(tmp_path / "out"))


class TestOutput:
    def test_a_bad_image_is_not_counted_and_told(self, place, tmp_path, config_of, in_process):
        images = shutil.copytree(place / "images/test", tmp_path / "images")
        (images / "can" / "cut.jpg").write_bytes(b"\xff\xd8\xff cut")
        config = config_of(tmp_path / "out", input={"uri": str(images)})
        with pytest.raises(TooManyFailures, match="1 of 29 images failed"):
            evaluate.run(config)
        report = evaluate.run(config_of(tmp_path / "out", input={"uri": str(images)}, max_failed=0.1))
        assert (report.images, report.failed, report.evaluated) == (29, 1, 28)
        assert "28 of 29 images of split all; 1 failed" in report.table()
        assert "could not be read and are in quarantine" in (tmp_path / "out/preview/index.html").read_text()
        assert verify(open_storage(str(tmp_path / "out")), deep=True).faults == ()

    def test_the_page_shows_where_it_fails(self, finished):
        page = (finished / "preview/index.html").read_text()
        for words in ("101 of 101 images of split all", "Confusion", "Calibration", "dim_light", "worst.png"):
            assert words in page
        width, height = Image.open(finished / "preview/worst.png").size
        assert width > 400
        assert height > 400

    def test_a_finished_output_is_left_alone(self, finished, tmp_path, config_of, no_ray):
        copied = shutil.copytree(finished, tmp_path / "out")
        before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
        report = evaluate.run(config_of(copied, split="all"))
        assert report.nothing_to_do
        assert (report.evaluated, report.top1) == (101, metrics_of(finished)["top1"])
        assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before

    def test_measures_that_somebody_removed_are_added_up_again(self, finished, tmp_path, config_of, no_ray):
        copied = shutil.copytree(finished, tmp_path / "out")
        (copied / "metrics.json").unlink()
        report = evaluate.run(config_of(copied, split="all"))
        assert report.measured == metrics_of(finished)

    def test_only_what_has_no_receipt_is_done_again(self, finished, tmp_path, config_of, in_process):
        copied = shutil.copytree(finished, tmp_path / "out")
        for name in ("_vtray/receipts/00001.json", "_SUCCESS", "_vtray/manifest.json", "metrics.json"):
            (copied / name).unlink()
        evaluate.run(config_of(copied, split="all"))
        assert output_bytes(copied) == output_bytes(finished)
        assert metrics_of(copied) == metrics_of(finished)

    def test_one_mlflow_run_with_measures_and_page(self, tmp_path, config_of, in_process):
        from mlflow.tracking import MlflowClient

        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        report = evaluate.run(config_of(tmp_path / "out", split="val", tracking={"uri": uri}))
        client = MlflowClient(tracking_uri=uri)
        (run,) = client.search_runs([client.get_experiment_by_name("vtray").experiment_id])
        assert (run.info.run_name, run.info.status) == ("evaluate", "FINISHED")
        assert run.data.metrics["top1"] == report.top1
        assert {"ece_calibrated", "nll", "top1_dim_light", "top1_erased", "evaluated"} <= run.data.metrics.keys()
        artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"index.html", "worst.png", "config.yaml"} <= artifacts

    def test_where_no_image_can_be_read(self, tmp_path, config_of, in_process):
        place = tmp_path / "images/can"
        place.mkdir(parents=True)
        (place / "cut.jpg").write_bytes(b"\xff\xd8\xff cut")
        report = evaluate.run(config_of(tmp_path / "out", input={"uri": str(tmp_path / "images")}, max_failed=1))
        assert (report.evaluated, report.failed) == (0, 1)
        assert metrics_of(tmp_path / "out")["top1"] is None
        assert "top1" not in report.metrics()


class TestRefusals:
    """Everything is told before anything is written, in one line."""

    @pytest.fixture
    def refusal(self, tmp_path, config_of, no_ray):
        def run(match, images):
            with pytest.raises(InputError, match=match) as raised:
                evaluate.run(config_of(tmp_path / "out", input={"uri": str(images)}))
            assert "\n" not in str(raised.value)
            assert not (tmp_path / "out").exists()

        return run

    def test_labels_of_another_model(self, refusal, tmp_path):
        images = write_images(tmp_path / "images", range(6), classes=("apple", "can", "oats"))
        refusal(
            "labels of another model: apple, oats are not among its 6 classes .bottle, .*choose the model",
            images,
        )

    def test_many_of_them(self, refusal, tmp_path):
        images = write_images(tmp_path / "images", range(8), classes=tuple("abcdefgh"))
        refusal("a, b, c, d, e and 3 more are not among", images)

    def test_images_without_a_class(self, refusal, tmp_path):
        images = write_images(tmp_path / "images", range(3), classes=("can",))
        for path in (images / "can").iterdir():
            path.rename(images / path.name)
        Path(images / "can").rmdir()
        refusal("3 of 3 images have no class, such as 00.jpg; an evaluation needs labels", images)

    @pytest.mark.parametrize(
        ("robustness", "match"),
        [
            ({"conditions": ["dimlight"]}, "dim_light"),
            ({"severities": [0]}, "greater than or equal to 1"),
            ({"max_images": 0}, "greater than or equal to 1"),
        ],
    )
    def test_keys_that_do_not_fit(self, tmp_path, config_of, robustness, match):
        with pytest.raises(ValueError, match=match):
            config_of(tmp_path / "out", robustness=robustness)


def test_classes_without_images_are_told(place, tmp_path, config_of, caplog):
    images = write_images(tmp_path / "images", range(4), classes=("can", "box"))
    evaluate.prepare(config_of(tmp_path / "out", input={"uri": str(images)}), has_gpu=lambda: False)
    assert "no image of bottle, carton, jar, tube in split all" in caplog.text
