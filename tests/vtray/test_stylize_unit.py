"""The stylize step, called as a worker calls it, on the real engine with a tiny network."""

import io
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn import draw_image
from PIL import Image
from style_support import write_painting, write_weights

from vtray.manifest import Ledger
from vtray.report.records import FIELDS
from vtray.sources import open_source
from vtray.steps import stylize_unit
from vtray.steps.file_names import FileNames
from vtray.steps.style_masks import MaskSource
from vtray.steps.stylize_unit import StylizeUnit, batches_of_one_size
from vtray.storage import open_storage
from vtray.style.colour import merge_luma
from vtray.style.work import FeatureSpec, LossSpec, OptimizeSpec, StyleImage, StyleWork
from vtray.weights import weights_sha256

RELUS = ("relu1_1", "relu2_1", "relu3_1")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    weights = write_weights(folder / "tiny.pth")
    painting = np.asarray(Image.open(write_painting(folder / "painting.png")))
    return StyleWork(
        styles=(StyleImage(name="painting.png", image=painting, sha256="p"),),
        features=FeatureSpec(
            network="vgg19",
            weights_uri=str(weights),
            weights_sha256=weights_sha256(str(weights)),
            content_layers=RELUS[-1:],
            style_layers=RELUS,
        ),
        optimize=OptimizeSpec(steps=3, levels=1, tolerance=0),
    )


@pytest.fixture
def images(tmp_path):
    """Two classes, two sizes, one file of text."""
    folder = tmp_path / "images"
    for number, size in enumerate([(48, 64), (40, 40), (48, 64)]):
        place = folder / ("can", "carton")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(number, *size)).save(place / f"{number}.jpg")
    (folder / "can" / "text.png").write_text("not an image")
    return folder


def step_for(images, output, work, **values):
    source = open_source(str(images))
    names = FileNames.of(
        (ref.image_id for ref in source.refs),
        input_format=source.format,
        output_format=values.pop("format", "same"),
    )
    defaults = {"device": "cpu", "masks": (), "quality": 95, "colour": "style", "max_pixels": 10**6}
    step = StylizeUnit(work=work, names=names, output_uri=str(output), **(defaults | values))
    (unit,) = source.units(max_bytes=10**8, max_images=100)
    return step, unit


def quarantine_of(output):
    rows = [row for path in (output / "quarantine").glob("*") for row in pq.read_table(path).to_pylist()]
    return {row["image_id"]: row for row in rows}


def test_each_image_becomes_one_file_of_its_name_and_size(images, tmp_path, work):
    step, unit = step_for(images, tmp_path / "out", work)
    receipt = step(unit, "digest")
    assert [file.key for file in receipt.files] == ["data/can/0.jpg", "data/can/2.jpg", "data/carton/1.jpg"]
    for name in ("can/0.jpg", "can/2.jpg", "carton/1.jpg"):
        result, content = Image.open(tmp_path / "out/data" / name), Image.open(images / name)
        assert (result.size, result.format) == (content.size, "JPEG")
        change = np.abs(np.asarray(result, int) - np.asarray(content, int)).mean()
        assert change > 3, f"{name} was left as it was"


def test_the_receipt_counts_and_records(images, tmp_path, work):
    step, unit = step_for(images, tmp_path / "out", work)
    receipt = step(unit, "digest")
    assert (receipt.num_images, receipt.num_failed) == (4, 1)
    assert receipt.failures == {"decode: unidentified": 1}
    assert receipt.rows_by_class == {"can": 2, "carton": 1}
    assert set(receipt.seconds) == {"load", "read", "decode", "stylize", "colour", "encode", "write"}
    first = receipt.records[0]
    assert set(first) == set(FIELDS)
    assert (first["image_id"], first["file"]) == ("can/0.jpg", "data/can/0.jpg")
    assert (first["width"], first["height"], first["working_width"], first["working_height"]) == (64, 48, 64, 48)
    assert first["total_after"] < first["total_before"]
    assert first["steps"] == 3
    assert receipt == Ledger(open_storage(str(tmp_path / "out"))).receipt(unit.unit_id)
    assert quarantine_of(tmp_path / "out")["can/text.png"]["stage"] == "decode"


def test_work_that_is_booked_is_not_done_again(images, tmp_path, work, monkeypatch):
    step, unit = step_for(images, tmp_path / "out", work)
    receipt = step(unit, "digest")
    monkeypatch.setattr(stylize_unit, "load_engine", lambda *_: pytest.fail("the engine was loaded"))
    assert step(unit, "digest") == receipt


def test_a_late_attempt_leaves_the_files_of_the_first(images, tmp_path, work, monkeypatch):
    """Another driver books the unit while this one works on it: its file stays, its receipt counts."""
    slow, unit = step_for(images, tmp_path / "out", work)
    fast = replace(slow, colour="luma")
    contents = StylizeUnit._contents
    first = []

    def interrupted(self, unit, made):
        for content in contents(self, unit, made):
            if self is slow and not first:
                first.append(fast(unit, "digest"))
            yield content

    monkeypatch.setattr(StylizeUnit, "_contents", interrupted)
    assert slow(unit, "digest") == first[0]
    for file in first[0].files:
        assert (tmp_path / "out" / file.key).stat().st_size == file.bytes


def test_a_receipt_of_other_work_is_not_taken(images, tmp_path, work):
    step, unit = step_for(images, tmp_path / "out", work)
    step(unit, "one")
    assert step(unit, "other").digest == "one"  # the first receipt stays: the driver refuses it when it finishes


def test_batches_make_what_single_images_make(images, tmp_path, work):
    """Batches of equal size are computed together; what comes out stays within two levels."""
    together = replace(work, optimize=replace(work.optimize, batch=2))
    for name, chosen in (("single", work), ("batch", together)):
        step, unit = step_for(images, tmp_path / name, chosen, format="png")
        step(unit, "digest")
    for path in (tmp_path / "single/data").glob("*/*.png"):
        other = tmp_path / "batch/data" / path.relative_to(tmp_path / "single/data")
        difference = np.asarray(Image.open(path), int) - np.asarray(Image.open(other), int)
        assert abs(difference).max() <= 2


def test_colour_keeping_comes_after_the_engine(images, tmp_path, work):
    for colour in ("style", "luma"):
        step, unit = step_for(images, tmp_path / colour, work, colour=colour, format="png")
        step(unit, "digest")
    painted, kept = (np.asarray(Image.open(tmp_path / name / "data/can/0.png")) for name in ("style", "luma"))
    content = np.asarray(Image.open(images / "can/0.jpg"))
    assert np.array_equal(kept, merge_luma(painted, content))


def test_strength_zero_leaves_the_pixels(images, tmp_path, work):
    step, unit = step_for(images, tmp_path / "out", replace(work, loss=LossSpec(strength=0.0)), format="png")
    receipt = step(unit, "digest")
    result = Image.open(tmp_path / "out/data/can/0.png")
    assert np.array_equal(np.asarray(result), np.asarray(Image.open(images / "can/0.jpg")))
    assert {receipt.records[0]["total_before"], receipt.records[0]["total_after"]} == {0.0}


class TestRefusedImages:
    """One bad image is one row in quarantine, never the end of a unit."""

    def test_smaller_than_the_network_needs(self, images, tmp_path, work):
        Image.fromarray(draw_image(9, 6, 64)).save(images / "can" / "thin.png")
        step, unit = step_for(images, tmp_path / "out", work)
        assert step(unit, "digest").failures == {"decode: unidentified": 1, "stylize: too_small": 1}
        row = quarantine_of(tmp_path / "out")["can/thin.png"]
        assert row["message"].startswith("64 x 6: vgg19 to relu3_1 needs 8 px a side")
        assert len(row["bytes_sha256"]) == 64

    def test_losses_that_are_not_finite(self, images, tmp_path, work):
        huge = write_weights(tmp_path / "huge.pth", scale=1e12)
        features = replace(work.features, weights_uri=str(huge), weights_sha256=weights_sha256(str(huge)))
        step, unit = step_for(images, tmp_path / "out", replace(work, features=features))
        receipt = step(unit, "digest")
        assert receipt.num_failed == 4
        assert receipt.files == ()
        assert not (tmp_path / "out" / "data").exists()

    def test_more_pixels_than_allowed(self, images, tmp_path, work):
        step, unit = step_for(images, tmp_path / "out", work, max_pixels=2000)
        assert step(unit, "digest").failures["decode: too_many_pixels"] == 2

    def test_a_side_that_the_format_cannot_hold(self, images, tmp_path, work):
        Image.new("RGB", (16_400, 10)).save(images / "can" / "wide.png")
        small = replace(work, optimize=replace(work.optimize, size_px=2048, steps=1))
        step, unit = step_for(images, tmp_path / "out", small, format="webp")
        assert step(unit, "digest").failures == {"decode: unidentified": 1, "encode: too_large": 1}


class TestMasks:
    @pytest.fixture
    def masks(self, images, tmp_path):
        """White on the left half, for two of the three images; one of them as PNG beside a JPEG's name."""
        folder = tmp_path / "masks"
        for name, width, height in (("can/0.png", 64, 48), ("can/2.jpg", 64, 48)):
            mask = np.zeros((height, width), np.uint8)
            mask[:, : width // 2] = 255
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / name)
        return folder

    def test_a_style_stays_where_its_mask_is_white(self, images, masks, tmp_path, work):
        only_style = replace(work, optimize=replace(work.optimize, steps=6))
        source = MaskSource(uri=str(masks), version="1")
        step, unit = step_for(images, tmp_path / "out", only_style, masks=(source,), format="png")
        step(unit, "digest")
        change = np.abs(
            np.asarray(Image.open(tmp_path / "out/data/can/0.png"), int)
            - np.asarray(Image.open(images / "can/0.jpg"), int)
        ).mean(axis=(0, 2))
        assert change[:24].mean() > 3 * change[40:].mean()

    def test_an_image_without_its_mask_is_refused(self, images, masks, tmp_path, work):
        source = MaskSource(uri=str(masks), version="1")
        step, unit = step_for(images, tmp_path / "out", work, masks=(source,))
        assert step(unit, "digest").failures["stylize: mask_missing"] == 1
        message = quarantine_of(tmp_path / "out")["carton/1.jpg"]["message"]
        assert f"no mask {masks}/carton/1.jpg or {masks}/carton/1.png" in message

    def test_a_mask_of_another_size_is_refused(self, images, tmp_path, work):
        source = MaskSource(uri="m.png", version="1", image=np.zeros((48, 64, 3), np.uint8))
        step, unit = step_for(images, tmp_path / "out", work, masks=(source,))
        assert step(unit, "digest").failures == {"decode: unidentified": 1, "stylize: mask_size": 1}
        message = quarantine_of(tmp_path / "out")["carton/1.jpg"]["message"]
        assert message.startswith("mask m.png is 64 x 48, the image 40 x 40")

    def test_a_broken_mask_is_refused(self, images, masks, tmp_path, work):
        (masks / "can" / "2.jpg").write_bytes(b"")
        step, unit = step_for(images, tmp_path / "out", work, masks=(MaskSource(uri=str(masks), version="1"),))
        assert step(unit, "digest").failures["stylize: mask_broken"] == 1


def content_of(height, width, name=""):
    return SimpleNamespace(size=(height, width), name=name)


def batches(contents, *, batch):
    return [[c.name for c in group] for group in batches_of_one_size(contents, lambda c: c.size, batch=batch)]


def test_batches_hold_one_size_each():
    contents = [content_of(8, 8, "a"), content_of(9, 9, "b"), content_of(8, 8, "c"), content_of(8, 8, "d")]
    assert batches(contents, batch=2) == [["a", "c"], ["b"], ["d"]]
    assert batches(contents, batch=1) == [["a"], ["b"], ["c"], ["d"]]
    assert batches([], batch=2) == []


def test_few_decoded_images_wait_for_others_of_their_size(monkeypatch):
    monkeypatch.setattr(stylize_unit, "WAITING_PIXELS", 200)
    contents = [content_of(8, 8, "a"), content_of(9, 9, "b"), content_of(9, 9, "c"), content_of(8, 8, "d")]
    assert batches(contents, batch=4) == [["b", "c"], ["a", "d"]]  # 64 + 81 + 81 is more than 200


def test_every_kind_of_metadata_goes_through(tmp_path, work):
    """EXIF (upright), alpha and the format stay; what is lost is among the warnings."""
    folder = tmp_path / "images"
    folder.mkdir()
    drawn = Image.fromarray(draw_image(3, 48, 64))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a can"
    drawn.save(folder / "turned.jpg", exif=exif)
    transparent = drawn.copy()
    transparent.putalpha(Image.linear_gradient("L").resize(drawn.size))
    transparent.save(folder / "alpha.png")
    drawn.convert("CMYK").save(folder / "cmyk.jpg")
    step, unit = step_for(folder, tmp_path / "out", work)
    receipt = step(unit, "digest")
    assert Counter(file.rows for file in receipt.files) == {1: 3}
    turned, alpha = (Image.open(tmp_path / "out/data" / name) for name in ("turned.jpg", "alpha.png"))
    assert turned.size == (48, 64)
    assert turned.getexif()[0x010E] == "a can"
    assert turned.getexif().get(0x0112, 1) == 1
    assert np.array_equal(alpha.getchannel("A"), transparent.getchannel("A"))
    warnings = {record["image_id"]: record["warnings"] for record in receipt.records}
    assert any("CMYK" in text for text in warnings["cmyk.jpg"])
    assert Image.open(io.BytesIO((tmp_path / "out/data/cmyk.jpg").read_bytes())).mode == "RGB"
