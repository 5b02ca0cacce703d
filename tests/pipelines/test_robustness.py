"""What a nightly job meets: a variant that fails, a bug in one unit, splits of other names, replan."""

import dataclasses
import json
import os
import shutil
import time

import pytest
from PIL import Image
from support import config_for, rows_of

from pipelines import augment, batch
from vtray.augment.geometry import FlipLeftRight
from vtray.errors import ConfigError, UnfinishedUnits
from vtray.steps.augment_unit import AugmentUnit
from vtray.storage import open_storage
from vtray.verification import verify


def test_an_image_whose_second_variant_fails_leaves_no_row(tiny_images, tmp_path, in_process, monkeypatch):
    images = shutil.copytree(tiny_images, tmp_path / "images")
    Image.new("RGB", (13, 7)).save(images / "can" / "odd.png")

    def fail_once(self, sample, params):
        if sample.image.shape[:2] == (7, 13):
            raise ZeroDivisionError("an operator's bug")
        return sample

    monkeypatch.setattr(FlipLeftRight, "apply", fail_once)
    operators = [{"op": "flip", "p": 0.5}]
    output = tmp_path / "out"
    report = augment.run(config_for(images, output, operators=operators, variants=8, max_failed=0.1))
    assert report.failures == {"augment: ZeroDivisionError": 1}
    assert "can/odd.png" not in {row.image_id for row in rows_of(output)}


def test_a_bug_in_one_unit_keeps_the_work_of_the_others(tiny_images, tmp_path, in_process, monkeypatch):
    from pipelines.units import DoUnits, _outcome

    def run_units(units, step, digests, *, workers):
        worker = DoUnits(step, "run")
        return (_outcome(worker(unit.to_dict() | {"digest": digests[unit.unit_id]})) for unit in units)

    monkeypatch.setattr(batch, "run_units", run_units)
    original = augment.AugmentUnit.make

    def make(self, unit):
        if unit.unit_id == "00002":
            raise KeyError("surprise")
        return original(self, unit)

    monkeypatch.setattr(augment.AugmentUnit, "make", make)
    output = tmp_path / "out"
    with pytest.raises(UnfinishedUnits, match=r"1 of 5 units are not done, such as 00002: KeyError"):
        augment.run(config_for(tiny_images, output))
    assert len(list((output / "_vtray" / "receipts").iterdir())) == 4
    monkeypatch.setattr(augment.AugmentUnit, "make", original)
    assert augment.run(config_for(tiny_images, output)).rows == 72


def test_a_unit_that_kills_its_worker_every_time_does_not_stop_the_others(tiny_images, tmp_path, ray_cluster):
    class DiesInOneUnit(AugmentUnit):  # in here, so that it is sent to the workers, who cannot import tests
        """As a crash inside a decoder: the process is gone, whatever Python would do about it."""

        def make(self, unit):
            if unit.unit_id == "00002":
                os._exit(9)
            return super().make(unit)

    job = augment.prepare(config_for(tiny_images, tmp_path / "out"))
    fields = {field.name: getattr(job.step, field.name) for field in dataclasses.fields(job.step)}
    with pytest.raises(
        UnfinishedUnits, match=r"1 of 5 units are not done, such as 00002: 5 workers in a row died"
    ):
        batch.run(dataclasses.replace(job, step=DiesInOneUnit(**fields)), started=time.monotonic())
    assert len(list((tmp_path / "out" / "_vtray" / "receipts").iterdir())) == 4
    assert augment.run(config_for(tiny_images, tmp_path / "out")).rows == 72
    assert not [path for path in (tmp_path / "out").glob("_vtray/attempts/**/*") if path.is_file()]


def test_splits_that_nobody_named_are_told(tiny_images, tmp_path, in_process):
    for split in ("train", "test"):
        shutil.copytree(tiny_images, tmp_path / "images" / split)
    with pytest.raises(ConfigError, match=r"\['training'\] names no split of the input, which has test, train"):
        augment.run(config_for(tmp_path / "images", tmp_path / "out", augment_splits=["training"]))


def test_replan_tries_again_what_could_not_be_read(tiny_images, tmp_path, in_process):
    images = shutil.copytree(tiny_images, tmp_path / "images")
    output, config = tmp_path / "out", config_for(tiny_images, tmp_path / "out")
    config = config_for(images, output, max_failed=0.1)
    job = augment.prepare(config)
    hidden = images / "can" / "01.jpg"
    kept = hidden.stat()
    hidden.rename(tmp_path / "hidden.jpg")
    for unit in job.units:  # as on a worker that does not see one file
        batch.Ledger(open_storage(str(output))).begin(job.plan, lambda: b"") if unit is job.units[0] else None
        job.step(unit, job.plan.unit_digest(unit.unit_id))
    (tmp_path / "hidden.jpg").rename(hidden)
    assert hidden.stat().st_mtime_ns == kept.st_mtime_ns
    assert augment.run(config).failures == {"read: missing": 1}
    again = augment.run(config_for(images, output, max_failed=0.1, replan=True))
    assert (again.failed, again.rows) == (0, 72)
    assert verify(open_storage(str(output)), deep=True).faults == ()


def test_no_password_is_stored(tiny_images, tmp_path, in_process, monkeypatch):
    from vtray import tracking

    monkeypatch.setattr(tracking, "_open", lambda *_: None)
    output = tmp_path / "out"
    augment.run(config_for(tiny_images, output, tracking={"uri": "http://me:secret@tracker:5000"}))
    assert (
        "http://tracker:5000" in json.loads((output / "_vtray/plan.json").read_text())["config"]["tracking"]["uri"]
    )
    assert not [path for path in output.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
