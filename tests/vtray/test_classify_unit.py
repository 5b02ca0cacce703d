"""The classify step, called as a worker calls it, on a small network with random weights."""

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from classify_support import CLASSES, write_images, write_model
from drawn import draw_image
from PIL import Image

from vtray.classify.conditions import CONDITIONS, SEVERITIES
from vtray.classify.evaluation import Doubt, Evaluation, total, worst
from vtray.classify.metrics import Tally
from vtray.classify.model_dir import Model
from vtray.classify.predictions import Prediction, encode_predictions, read_predictions
from vtray.errors import WeightsError
from vtray.manifest import Ledger
from vtray.sources import open_source
from vtray.steps import classify_unit
from vtray.steps.classify_unit import Checks, ClassifyUnit
from vtray.storage import open_storage


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def images(tmp_path):
    """Seven images and one file of text."""
    folder = write_images(tmp_path / "images", range(7), classes=("bottle", "box", "can"))
    (folder / "box" / "text.png").write_text("not an image")
    return folder


def step_for(images, output, model, **values):
    defaults = {"device": "cpu", "threads": 1, "batch": 3, "max_pixels": 10**6, "output_uri": str(output)}
    step = ClassifyUnit(model_uri=model.uri, model_digest=model.digest, **(defaults | values))
    (unit,) = open_source(str(images)).units(max_bytes=10**8, max_images=100)
    return step, unit


def checks(sample=(), conditions=("dim_light", "noise"), severities=(1, 5)):
    return Checks(conditions=conditions, severities=severities, sample=frozenset(sample), seed=0)


class TestPrediction:
    def test_each_image_becomes_one_row(self, images, tmp_path, model):
        step, unit = step_for(images, tmp_path / "out", model)
        receipt = step(unit, "digest")
        (file,) = receipt.files
        rows = read_predictions((tmp_path / "out" / file.key).read_bytes())
        assert [row.image_id for row in rows] == [f"{CLASSES[n % 3]}/{n:02}.jpg" for n in (0, 3, 6, 1, 4, 2, 5)]
        assert (receipt.num_images, receipt.num_failed, file.rows) == (8, 1, 7)
        assert receipt.failures == {"decode: unidentified": 1}
        assert receipt.rows_by_class == dict(Counter(row.class_name for row in rows))
        assert set(receipt.seconds) == {"load", "read", "decode", "classify", "write"}
        assert receipt == Ledger(open_storage(str(tmp_path / "out"))).receipt(unit.unit_id)

    def test_a_row_says_what_the_network_says(self, images, tmp_path, model):
        """Computed here from the file by Pillow and the bare network: softmax of logits over the temperature."""
        step, unit = step_for(images, tmp_path / "out", model)
        rows = {row.image_id: row for row in step.make(unit).rows}
        for image_id, row in rows.items():
            resized = Image.open(images / image_id).resize((64, 48), Image.Resampling.BILINEAR)
            crop = np.asarray(resized.crop((8, 0, 56, 48)))
            pixels = (torch.tensor(crop).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
            with torch.inference_mode():
                shares = (model.classifier.network(pixels)[0] / 2.0).softmax(0)
            best = shares.argsort(descending=True)[:5].tolist()
            assert [name for name, _ in row.top5] == [CLASSES[index] for index in best]
            assert row.class_name == row.top5[0][0]
            assert [share for _, share in row.top5] == pytest.approx(shares[best].tolist(), abs=2e-3)
        assert {rows[f"{CLASSES[n % 3]}/{n:02}.jpg"].class_name for n in range(6)} == set(CLASSES)

    def test_columns(self, images, tmp_path, model):
        step, unit = step_for(images, tmp_path / "out", model)
        (file,) = step(unit, "digest").files
        table = pq.read_table(io.BytesIO((tmp_path / "out" / file.key).read_bytes()))
        assert table.column_names == ["image_id", "class_name", "probability", "top5", "source_sha256"]

    def test_work_that_is_booked_is_not_done_again(self, images, tmp_path, model, monkeypatch):
        step, unit = step_for(images, tmp_path / "out", model)
        receipt = step(unit, "digest")
        monkeypatch.setattr(classify_unit, "loaded_model", lambda *_: pytest.fail("the model was loaded"))
        assert step(unit, "digest") == receipt

    def test_a_unit_without_one_good_image(self, tmp_path, model):
        folder = tmp_path / "bad"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"\xff\xd8\xff cut")
        step, unit = step_for(folder, tmp_path / "out", model)
        receipt = step(unit, "digest")
        assert (receipt.num_failed, receipt.files[0].rows, receipt.rows_by_class) == (1, 0, {})

    def test_the_least_certain_come_first(self, images, tmp_path, model):
        step, unit = step_for(images, tmp_path / "out", model)
        made = step.make(unit)
        expected = sorted(made.rows, key=lambda row: row.probability)
        assert [doubt.image_id for doubt in made.doubts] == [row.image_id for row in expected]

    def test_a_model_that_changed_on_the_way_is_refused(self, images, tmp_path, model):
        step, unit = step_for(images, tmp_path / "out", model)
        with pytest.raises(WeightsError, match="the model changed since the run began"):
            replace(step, model_digest="0" * 64)(unit, "digest")


class TestEvaluation:
    def test_tallies_are_those_of_the_rows(self, images, tmp_path, model):
        step, unit = step_for(images, tmp_path / "out", model, checks=checks())
        receipt = step(unit, "digest")
        rows = read_predictions((tmp_path / "out" / receipt.files[0].key).read_bytes())
        assert [row.true_class for row in rows] == [row.image_id.partition("/")[0] for row in rows]
        logits = torch.tensor([row.logits for row in rows])
        labels = torch.tensor([CLASSES.index(row.true_class) for row in rows])
        (record,) = receipt.records
        evaluation = Evaluation.from_json(record["evaluation"])
        assert evaluation.plain.to_json() == Tally.of(logits, labels).to_json()
        assert evaluation.calibrated.to_json() == Tally.of(logits / 2.0, labels).to_json()
        assert evaluation.plain.count == 7
        assert evaluation.plain.top1 == np.mean([row.class_name == row.true_class for row in rows])
        assert (evaluation.conditions, evaluation.sampled.count) == ({}, 0)

    def test_the_sample_is_classified_under_every_condition(self, images, tmp_path, model):
        sample = ("bottle/00.jpg", "box/01.jpg", "can/02.jpg", "can/05.jpg")
        step, unit = step_for(images, tmp_path / "out", model, checks=checks(sample))
        evaluation = step.make(unit).evaluation
        assert {name: sorted(tallies) for name, tallies in evaluation.conditions.items()} == {
            "dim_light": [1, 5],
            "noise": [1, 5],
        }
        counts = {t.count for tallies in evaluation.conditions.values() for t in tallies.values()}
        assert counts == {4}
        clean = [row for row in step.make(unit).rows if row.image_id in sample]
        assert evaluation.sampled.top1 == np.mean([row.class_name == row.true_class for row in clean])
        dark = evaluation.conditions["dim_light"]
        assert dark[5].to_json() != dark[1].to_json()

    def test_worst_images_are_wrong_and_sure(self, images, tmp_path, model):
        step, unit = step_for(images, tmp_path / "out", model, checks=checks())
        made = step.make(unit)
        wrong = [row for row in made.rows if row.class_name != row.true_class]
        assert 0 < len(wrong) < 7
        expected = [row.image_id for row in sorted(wrong, key=lambda row: -row.probability)]
        assert [doubt.image_id for doubt in made.doubts][: len(wrong)] == expected
        right = made.doubts[len(wrong) :]
        assert all(doubt.class_name == doubt.true_class for doubt in right)
        assert list(right) == sorted(right, key=lambda doubt: -doubt.nll)
        share = made.doubts[0]
        (row,) = (row for row in made.rows if row.image_id == share.image_id)
        chance = (torch.tensor(row.logits) / 2.0).softmax(0)[CLASSES.index(row.true_class)]
        assert share.nll == pytest.approx(-float(chance.log()), rel=1e-5)

    def test_weights_that_give_nan_are_refused(self, images, tmp_path, model, monkeypatch):
        broken = replace(model)
        monkeypatch.setattr(classify_unit, "loaded_model", lambda *_: broken)
        monkeypatch.setattr(Model, "logits", lambda self, crops: torch.full((len(crops), 6), torch.nan))
        step, unit = step_for(images, tmp_path / "out", model)
        with pytest.raises(WeightsError, match="NaN or infinity"):
            step(unit, "digest")


class TestAddingUp:
    def test_parts_add_to_the_whole(self, images, tmp_path, model):
        sample = ("bottle/00.jpg", "box/01.jpg")
        step, unit = step_for(images, tmp_path / "out", model, batch=1, checks=checks(sample))
        whole = step.make(unit).evaluation
        cut = [replace(unit, refs=(ref,)) for ref in unit.refs]
        parts = [Evaluation.from_json(step.make(part).evaluation.to_json()) for part in reversed(cut)]
        assert total(parts, num_classes=6).to_json() == whole.to_json()

    def test_no_parts(self):
        nothing = total([], num_classes=3)
        assert (nothing.plain.count, nothing.sampled.count, nothing.conditions) == (0, 0, {})

    def test_only_twelve_doubts_are_kept(self):
        doubts = [Doubt(image_id=f"{n:02}", class_name="a", probability=n / 20) for n in range(20)]
        assert [doubt.image_id for doubt in worst(reversed(doubts))] == [f"{n:02}" for n in range(12)]


class TestConditions:
    @pytest.mark.parametrize("name", CONDITIONS)
    def test_each_severity_changes_more(self, name):
        image = draw_image(1, 64, 64)
        noisy = image + np.random.default_rng(0).integers(0, 8, image.shape).astype(np.uint8) * (image < 240)
        condition, before = CONDITIONS[name], noisy.copy()
        changes = []
        for severity in SEVERITIES:
            disturbed = condition(noisy, severity, seed=0, source_sha256="x")
            assert (disturbed.shape, disturbed.dtype) == (noisy.shape, np.uint8)
            changes.append(np.abs(disturbed.astype(int) - noisy).mean())
        assert changes == sorted(changes)
        assert changes[0] > 0
        assert changes[4] > 1.5 * changes[0]
        assert np.array_equal(noisy, before)

    def test_chance_depends_on_seed_and_image_only(self):
        image, shadow = draw_image(1, 64, 64), CONDITIONS["cast_shadow"]
        same = [shadow(image, 3, seed=0, source_sha256="x") for _ in range(2)]
        assert np.array_equal(*same)
        assert not np.array_equal(same[0], shadow(image, 3, seed=1, source_sha256="x"))
        assert not np.array_equal(same[0], shadow(image, 3, seed=0, source_sha256="y"))

    def test_dim_light_of_two_stops_is_a_quarter_of_the_light(self):
        grey = np.full((64, 64, 3), 200, np.uint8)
        light = ((200 / 255 + 0.055) / 1.055) ** 2.4  # sRGB, IEC 61966-2-1
        dim = CONDITIONS["dim_light"](grey, 2, seed=0, source_sha256="x").mean()
        assert ((dim / 255 + 0.055) / 1.055) ** 2.4 == pytest.approx(light / 4, rel=0.02)


class TestRows:
    ROW = Prediction(
        image_id="b",
        class_name="can",
        probability=0.5,
        top5=(("can", 0.5), ("jar", 0.25)),
        source_sha256="x",
    )

    def test_they_come_back_sorted(self):
        rows = [self.ROW, replace(self.ROW, image_id="a")]
        assert read_predictions(encode_predictions(rows, evaluated=False)) == rows[::-1]

    def test_evaluated_rows_have_logits_and_class(self):
        rows = [replace(self.ROW, true_class="jar", logits=(1.5, -0.25))]
        assert read_predictions(encode_predictions(rows, evaluated=True)) == rows

    def test_the_same_bytes_in_any_order(self):
        rows = [replace(self.ROW, image_id=name) for name in "abc"]
        assert encode_predictions(rows, evaluated=False) == encode_predictions(rows[::-1], evaluated=False)
