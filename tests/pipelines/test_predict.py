"""The predict job: its rows and books, what a rerun does, and how it is refused."""

import json
import shutil

import pytest
from classify_support import CLASSES, write_images, write_model
from support import output_bytes

from pipelines import cluster, predict
from pipelines.predict_config import PredictConfig
from vtray.classify.predictions import read_predictions
from vtray.errors import ConfigError, InputError, PlanMismatch, ResourcesError, TooManyFailures, WeightsError
from vtray.storage import open_storage
from vtray.verification import verify


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Fourteen unlabelled images and a model; image n below six is of class n."""
    folder = tmp_path_factory.mktemp("predict")
    write_images(folder / "catalog", range(14), classes=("shelf",))
    for path in (folder / "catalog/shelf").iterdir():
        path.rename(folder / "catalog" / path.name)
    (folder / "catalog/shelf").rmdir()
    write_model(folder / "run/model")
    return folder


@pytest.fixture
def config_of(place):
    return lambda to, **values: make_config(place, to, **values)


def make_config(place, to, **values):
    settings = {
        "model": str(place / "run"),
        "input": {"uri": str(place / "catalog")},
        "output": {"uri": str(to)},
        "units": {"max_images": 5},
        "batch": 2,
        "tracking": {"uri": "none"},
        "use_gpu": False,
    }
    return PredictConfig.model_validate(settings | values)


@pytest.fixture(scope="module")
def finished(place, ray_cluster):
    """An undisturbed run on two workers; nobody may change it."""
    report = predict.run(make_config(place, place / "finished"))
    assert (report.status, report.images, report.failed) == ("complete", 14, 0)
    return place / "finished"


@pytest.fixture
def no_ray(monkeypatch):
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))


def rows_of(output):
    return [row for path in sorted(output.glob("data/*.parquet")) for row in read_predictions(path.read_bytes())]


class TestOutput:
    def test_every_image_has_one_row(self, finished):
        rows = {row.image_id: row for row in rows_of(finished)}
        assert sorted(rows) == [f"{number:02}.jpg" for number in range(14)]
        assert [rows[f"{number:02}.jpg"].class_name for number in range(6)] == list(CLASSES)
        assert verify(open_storage(str(finished)), deep=True).faults == ()

    def test_workers_make_what_one_process_makes(self, finished, tmp_path, config_of, in_process):
        predict.run(config_of(tmp_path / "out"))
        assert output_bytes(tmp_path / "out") == output_bytes(finished)

    def test_the_page_counts_images_by_class(self, finished):
        page = (finished / "preview/index.html").read_text()
        assert "Images per class" in page
        assert "Least certain" in page
        assert (finished / "preview/least_certain.png").read_bytes().startswith(b"\x89PNG")
        manifest = json.loads((finished / "_vtray/manifest.json").read_text())
        assert sum(manifest["rows_by_class"].values()) == 14
        assert manifest["classes"] == list(CLASSES)

    def test_the_table_names_the_classes(self, tmp_path, config_of, in_process):
        table = predict.run(config_of(tmp_path / "out")).table()
        assert "14 (0 failed)" in table
        assert all(f"as {name}" in table for name in CLASSES)


class TestRerun:
    def test_a_finished_output_is_left_alone(self, finished, tmp_path, config_of, no_ray):
        copied = shutil.copytree(finished, tmp_path / "out")
        before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
        assert predict.run(config_of(copied)).nothing_to_do
        assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before

    def test_only_what_has_no_receipt_is_done_again(self, finished, tmp_path, config_of, in_process):
        copied = shutil.copytree(finished, tmp_path / "out")
        kept = (copied / "_vtray/receipts/00000.json").read_bytes()
        for name in ("_vtray/receipts/00001.json", "_SUCCESS", "_vtray/manifest.json"):
            (copied / name).unlink()
        predict.run(config_of(copied))
        assert output_bytes(copied) == output_bytes(finished)
        assert (copied / "_vtray/receipts/00000.json").read_bytes() == kept

    def test_another_model_is_another_plan(self, place, finished, tmp_path, config_of, in_process):
        copied = shutil.copytree(finished, tmp_path / "out")
        write_model(tmp_path / "other", temperature=3.0)
        with pytest.raises(PlanMismatch, match=r"model\.temperature: 2\.0 -> 3\.0"):
            predict.run(config_of(copied, model=str(tmp_path / "other")))

    def test_the_same_model_elsewhere_is_the_same_plan(self, place, finished, tmp_path, config_of, no_ray):
        copied = shutil.copytree(finished, tmp_path / "out")
        moved = shutil.copytree(place / "run/model", tmp_path / "moved")
        assert predict.run(config_of(copied, model=str(moved))).nothing_to_do


class TestFailures:
    def test_a_bad_image_is_in_quarantine(self, place, tmp_path, config_of, in_process):
        catalog = shutil.copytree(place / "catalog", tmp_path / "catalog")
        (catalog / "cut.jpg").write_bytes((catalog / "00.jpg").read_bytes()[:200])
        config = config_of(tmp_path / "out", input={"uri": str(catalog)})
        with pytest.raises(TooManyFailures, match=r"1 of 15 images failed"):
            predict.run(config)
        report = predict.run(config_of(tmp_path / "out", input={"uri": str(catalog)}, max_failed=0.1))
        assert (report.status, report.failures) == ("complete", {"decode: truncated": 1})
        assert len(rows_of(tmp_path / "out")) == 14
        assert verify(open_storage(str(tmp_path / "out")), deep=True).faults == ()

    def test_gpus_that_are_not_there_are_told(self, tmp_path, config_of, in_process):
        with pytest.raises(ResourcesError, match="each worker needs 1 CPU and 1 GPU"):
            predict.run(config_of(tmp_path / "out", use_gpu=True))

    @pytest.mark.parametrize(
        ("values", "error", "match"),
        [
            ({"model": "/no/such"}, WeightsError, "/no/such: no model there"),
            ({"input": {"uri": "/no/such"}}, InputError, "no such file or folder"),
        ],
    )
    def test_wrong_input_is_told_before_anything_starts(self, tmp_path, config_of, no_ray, values, error, match):
        with pytest.raises(error, match=match):
            predict.run(config_of(tmp_path / "out", **values))
        assert not (tmp_path / "out").exists()

    def test_output_inside_the_catalog(self, place, config_of, no_ray):
        with pytest.raises(ConfigError, match="inside the input"):
            predict.run(config_of(place / "catalog/out"))


def test_the_stored_config_repeats_the_run_from_any_folder(place, tmp_path, monkeypatch, config_of, in_process):
    from vtray import settings

    monkeypatch.chdir(place)
    predict.run(config_of(tmp_path / "o", model="run", input={"uri": "catalog"}))
    monkeypatch.chdir(tmp_path)
    again = settings.load(PredictConfig, file=tmp_path / "o/_vtray/config.yaml")
    assert again.model == str(place / "run")
    assert predict.run(again).nothing_to_do
