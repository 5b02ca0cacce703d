"""The prefix cache's step, called as a worker calls it, on a small torchvision network with random weights."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from drawn import draw_image
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from vtray.augment.recipe import Recipe
from vtray.augment.variants import AugmentWork, VariantMaker
from vtray.classify import prefix
from vtray.classify.activations import _MappedFile
from vtray.classify.backbone import build_classifier
from vtray.classify.networks import take_image_size
from vtray.classify.prefix import CacheWork, activation_shape, cache_key, cached_boundary, encode_prefix, row_bytes
from vtray.classify.preprocessing import Preprocessing
from vtray.errors import ConfigError, WeightsError
from vtray.manifest import sha256
from vtray.sources import open_source
from vtray.steps import cache_unit
from vtray.steps.cache_unit import OVERFLOW, PREFIX, CacheUnit
from vtray.storage import open_storage

PREPROCESSING = Preprocessing(
    resize_px=48, crop_px=40, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear"
)
RECIPE = Recipe.model_validate(
    {"operators": [{"op": "random_resized_crop", "size_px": 44}, {"op": "noise"}], "image": {"format": "png"}}
)
BOUNDARY = 4  # features.0 to features.6


@pytest.fixture(scope="module")
def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_classifier("squeezenet1_1", num_classes=3).eval()


@pytest.fixture
def images(tmp_path):
    """Five training images and two of another split."""
    for number in range(7):
        folder = tmp_path / "images" / ("train", "val")[number > 4] / ("can", "carton")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(number)).save(folder / f"{number}.png")
    return tmp_path / "images"


def work_for(classifier, **values):
    boundary = values.get("boundary", BOUNDARY)
    digest = sha256(encode_prefix(classifier, boundary))
    fixed = {"boundary": boundary, "prefix_sha256": digest, "preprocessing": PREPROCESSING}
    return CacheWork(backbone=classifier.backbone, **(fixed | values))


def step_for(images, output, classifier, **values):
    """A step whose weights are in place, and the one unit of all images."""
    work = work_for(classifier, **values)
    open_storage(str(output)).put(PREFIX, encode_prefix(classifier, work.boundary))
    (unit,) = open_source(str(images)).units(max_bytes=10**8, max_images=100)
    return CacheUnit(work=work, output_uri=str(output)), unit


def rows_of(output, receipt):
    """(image_id, view) -> activation, from the one file of a receipt."""
    (file,) = receipt.files
    mapped = _MappedFile.open(output / file.key)
    values = torch.from_numpy(mapped.values.copy()).view(mapped.dtype).reshape(-1, *mapped.shape)
    return {(row.image_id, row.view): value for row, value in zip(mapped.rows, values, strict=True)}


def textbook(classifier, image, boundary=BOUNDARY):
    """The first stages of the network on torchvision's own preprocessing of a Pillow image, with torch alone."""
    stop = {4: 7}[boundary]  # features.0, 3 (relu and pool before it), 4, 6
    pixels = ImageClassification(crop_size=40, resize_size=48)(image.convert("RGB"))
    with torch.no_grad():
        return classifier.network.features[:stop](pixels[None])[0]


def scaled(classifier, factor):
    """The same network with all kernels times a factor."""
    other = build_classifier(classifier.backbone, num_classes=3).eval()
    tensors = classifier.network.state_dict()
    other.network.load_state_dict({k: v * factor if v.ndim > 1 else v for k, v in tensors.items()})
    return other


def relative(row, expected):
    return float((row.float() - expected).abs().max() / expected.abs().max())


def test_rows_are_what_torchvision_computes(images, tmp_path, classifier):
    step, unit = step_for(images, tmp_path / "out", classifier)
    rows = rows_of(tmp_path / "out", step(unit, "digest"))
    assert sorted(rows) == [(ref.image_id, 0) for ref in unit.refs]
    for (image_id, _), row in rows.items():
        expected = textbook(classifier, Image.open(images / image_id))
        assert row.shape == expected.shape
        assert relative(row, expected) < 2**-10, image_id


def test_the_receipt_and_the_books_of_the_rows(images, tmp_path, classifier):
    step, unit = step_for(images, tmp_path / "out", classifier)
    receipt = step(unit, "digest")
    (file,) = receipt.files
    assert (receipt.num_images, receipt.num_failed, file.rows) == (7, 0, 7)
    assert set(receipt.seconds) == {"load", "read", "decode", "prefix", "write"}
    assert file.key == f"data/{unit.unit_id}-{file.sha256[:12]}.arrow"
    rows = {row.image_id: row for row in _MappedFile.open(tmp_path / "out" / file.key).rows}
    assert rows["train/can/0.png"].label == 0
    assert (rows["val/carton/5.png"].label, rows["val/carton/5.png"].split) == (1, "val")
    assert rows["val/can/6.png"].source_sha256 == sha256((images / "val/can/6.png").read_bytes())


def test_views_are_the_variants_that_augment_makes(images, tmp_path, classifier):
    step, unit = step_for(images, tmp_path / "out", classifier, recipe=RECIPE, views=2, seed=7)
    rows = rows_of(tmp_path / "out", step(unit, "digest"))
    views = {ref.image_id: [view for name, view in rows if name == ref.image_id] for ref in unit.refs}
    assert views == {ref.image_id: [0, 1, 2] if ref.split == "train" else [0] for ref in unit.refs}
    ref = unit.refs[0]
    maker = VariantMaker(work=AugmentWork(recipe=RECIPE.model_copy(update={"variants": 2}), seed=7))
    for variant in maker.rows(ref, (images / ref.image_id).read_bytes()):
        expected = textbook(classifier, Image.open(io.BytesIO(variant.image)))
        assert relative(rows[ref.image_id, variant.variant], expected) < 2**-10
    assert relative(rows[ref.image_id, 1], rows[ref.image_id, 2].float()) > 0.1


def test_the_bytes_do_not_depend_on_who_did_it_or_what_was_drawn_before(images, tmp_path, classifier):
    receipts = []
    for name in ("one", "two"):
        cache_unit.load_prefix.cache_clear()
        torch.manual_seed(len(receipts))
        step, unit = step_for(images, tmp_path / name, classifier, recipe=RECIPE, views=1)
        receipts.append(step(unit, "digest"))
    assert receipts[0].files == receipts[1].files


def test_work_that_is_booked_is_not_done_again(images, tmp_path, classifier, monkeypatch):
    step, unit = step_for(images, tmp_path / "out", classifier)
    receipt = step(unit, "digest")
    monkeypatch.setattr(cache_unit, "load_prefix", lambda *_: pytest.fail("the prefix was loaded"))
    assert step(unit, "digest") == receipt


def test_bf16_rows_and_bf16_computing(images, tmp_path, classifier):
    expected = textbook(classifier, Image.open(images / "val/can/6.png"))
    differences = {}
    for precision in ("fp32", "bf16"):
        output = tmp_path / precision
        step, unit = step_for(images, output, classifier, dtype="bf16", precision=precision)
        row = rows_of(output, step(unit, "digest"))["val/can/6.png", 0]
        assert row.dtype == torch.bfloat16
        differences[precision] = relative(row, expected)
    assert 2**-12 < differences["fp32"] < 2**-8 + 1e-6
    assert differences["fp32"] < differences["bf16"] < 2**-4


class TestRefusedImages:
    def test_one_that_is_no_image(self, images, tmp_path, classifier):
        (images / "train/can/text.png").write_text("not an image")
        step, unit = step_for(images, tmp_path / "out", classifier)
        receipt = step(unit, "digest")
        assert (receipt.num_images, receipt.num_failed, receipt.files[0].rows) == (8, 1, 7)
        (row,) = pq.read_table(tmp_path / "out" / receipt.quarantine.key).to_pylist()
        assert (row["image_id"], row["stage"]) == ("train/can/text.png", "decode")

    def test_an_activation_that_is_not_finite(self, images, tmp_path, classifier):
        step, unit = step_for(images, tmp_path / "out", scaled(classifier, 1e20), recipe=RECIPE, views=1)
        receipt = step(unit, "digest")
        assert receipt.failures == {"prefix: not_finite": 7}
        assert receipt.files == ()
        assert "NaN or infinity" in receipt.examples[0]

    def test_all_views_of_an_image_or_none(self, images, tmp_path, classifier, monkeypatch):
        compute = CacheWork.activations

        def broken_once(self, classifier, crops):
            computed = compute(self, classifier, crops)
            computed[1, 0, 0, 0] = float("nan")  # view 1 of the first image
            return computed

        monkeypatch.setattr(cache_unit, "BATCH", 20)
        monkeypatch.setattr(CacheWork, "activations", broken_once)
        step, unit = step_for(images, tmp_path / "out", classifier, recipe=RECIPE, views=2)
        receipt = step(unit, "digest")
        ids = {image_id for image_id, _ in rows_of(tmp_path / "out", receipt)}
        assert ids == {ref.image_id for ref in unit.refs[1:]}
        assert receipt.num_failed == 1


class TestTooLargeForFp16:
    def test_the_output_says_so(self, images, tmp_path, classifier):
        large = scaled(classifier, 30.0)
        step, unit = step_for(images, tmp_path / "out", large)
        with pytest.raises(ConfigError, match=r"train/can/0\.png: an activation is too large for fp16; use bf16"):
            step(unit, "digest")
        assert open_storage(str(tmp_path / "out")).exists(OVERFLOW)
        assert not (tmp_path / "out/data").exists()

    def test_bf16_holds_it(self, images, tmp_path, classifier):
        step, unit = step_for(images, tmp_path / "out", scaled(classifier, 30.0), dtype="bf16")
        assert step(unit, "digest").num_failed == 0


class TestWeights:
    def test_damaged_ones_are_refused(self, images, tmp_path, classifier):
        step, unit = step_for(images, tmp_path / "out", classifier)
        path = tmp_path / "out" / PREFIX
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="its sha256 is"):
            step(unit, "digest")

    def test_those_of_another_network_are_refused(self, images, tmp_path, classifier):
        step, unit = step_for(images, tmp_path / "out", classifier)
        other = CacheUnit(work=replace(step.work, backbone="mobilenet_v2"), output_uri=step.output_uri)
        with pytest.raises(WeightsError, match="does not fit mobilenet_v2"):
            other(unit, "digest")

    def test_a_vit_for_images_of_another_size(self, images, tmp_path):
        vit = build_classifier("vit_b_16", num_classes=2)
        take_image_size(vit.network, {"encoder.pos_embedding": torch.empty(1, 1 + 2 * 2, 768)})
        torch.nn.init.normal_(vit.network.encoder.pos_embedding)
        small = replace(PREPROCESSING, crop_px=32)
        step, unit = step_for(images, tmp_path / "out", vit, boundary=1, preprocessing=small)
        (row, *_) = rows_of(tmp_path / "out", step(unit, "digest")).values()
        assert row.shape == (5, 768)
        assert torch.equal(row[0], (vit.network.class_token + vit.network.encoder.pos_embedding)[0, 0].half())

    def test_only_the_prefix_is_stored_and_one_bit_changes_its_hash(self, classifier):
        changed = scaled(classifier, 1.0)
        assert encode_prefix(changed, BOUNDARY) == encode_prefix(classifier, BOUNDARY)
        with torch.no_grad():
            changed.network.features[7].squeeze.weight[0, 0] += 1  # behind the boundary
        assert encode_prefix(changed, BOUNDARY) == encode_prefix(classifier, BOUNDARY)
        with torch.no_grad():
            changed.network.features[6].squeeze.bias[0] += 1e-3
        assert encode_prefix(changed, BOUNDARY) != encode_prefix(classifier, BOUNDARY)

    def test_buffers_belong_to_it(self):
        network = build_classifier("mobilenet_v2", num_classes=2)
        before = encode_prefix(network, 2)
        network.network.features[1].conv[0][1].running_mean += 0.01
        assert encode_prefix(network, 2) != before


IMAGES = {"input_uri": "/images", "splits": ("train", "val")}


class TestKey:
    def test_whatever_changes_the_rows_changes_it(self, classifier):
        work = work_for(classifier, recipe=RECIPE, views=1)
        other_recipe = RECIPE.model_copy(update={"operators": RECIPE.operators[:1]})
        changes = [
            {"prefix_sha256": "0" * 64},
            {"boundary": 3},
            {"backbone": "squeezenet1_0"},
            {"preprocessing": replace(PREPROCESSING, crop_px=39)},
            {"views": 2},
            {"views": 0},
            {"seed": 1},
            {"recipe": Recipe.model_validate(other_recipe.model_dump())},
            {"dtype": "bf16"},
            {"precision": "bf16"},
            {"max_pixels": 100},
        ]
        keys = {cache_key(replace(work, **change), **IMAGES) for change in [{}, *changes]}
        keys |= {cache_key(work, input_uri="/other", splits=("train", "val"))}
        keys |= {cache_key(work, input_uri="/images", splits=("train",))}
        assert len(keys) == len(changes) + 3

    def test_what_does_not_matter_is_not_in_it(self, classifier):
        work = work_for(classifier)
        assert cache_key(replace(work, recipe=RECIPE, seed=5), **IMAGES) == cache_key(work, **IMAGES)
        key = cache_key(work, input_uri="/images", splits=("val", "train"))
        assert key == cache_key(work, **IMAGES)

    def test_a_new_format_is_another_cache(self, classifier, monkeypatch):
        work = work_for(classifier)
        key = cache_key(work, **IMAGES)
        monkeypatch.setattr(prefix, "FORMAT", prefix.FORMAT + 1)
        assert cache_key(work, **IMAGES) != key


class TestBoundary:
    def test_all_stages_are_cut_behind_the_pooling(self):
        resnet, squeezenet = (build_classifier(name, num_classes=2) for name in ("resnet18", "squeezenet1_1"))
        assert [cached_boundary(resnet, n) for n in (1, 4, 5)] == [1, 4, 6]
        assert activation_shape(resnet, 6, PREPROCESSING) == (512,)
        assert row_bytes(resnet, 6, PREPROCESSING) == 1024
        assert activation_shape(resnet, 4, PREPROCESSING) == (256, 3, 3)
        assert cached_boundary(squeezenet, 9) == 9
        assert activation_shape(squeezenet, 9, PREPROCESSING) == (512, 2, 2)

    @pytest.mark.parametrize("number", [-1, 6])
    def test_no_such_stages(self, number):
        with pytest.raises(ConfigError, match=rf"cache: {number} frozen stages .*freeze 0 to 5 \(stem, layer1"):
            cached_boundary(build_classifier("resnet18", num_classes=2), number)

    def test_pooled_rows_are_what_the_head_takes(self, images, tmp_path):
        network = build_classifier("resnet18", num_classes=4).eval()
        boundary = cached_boundary(network, len(network.stage_names))
        step, unit = step_for(images, tmp_path / "out", network, boundary=boundary)
        rows = rows_of(tmp_path / "out", step(unit, "digest"))
        image_id = unit.refs[0].image_id
        pixels = ImageClassification(crop_size=40, resize_size=48)(Image.open(images / image_id))[None]
        with torch.no_grad():
            expected = network.network(pixels)
            logits = network(rows[image_id, 0][None].float(), start=boundary)
        assert np.allclose(logits, expected, atol=2e-3 * float(expected.abs().max()))


def test_views_need_a_recipe(classifier):
    with pytest.raises(ConfigError, match="2 views need an augmentation recipe"):
        work_for(classifier, views=2)


def test_the_mode_of_the_classifier_is_left_as_it_was(classifier):
    network = build_classifier("mobilenet_v2", num_classes=2).train()
    before = {name: tensor.clone() for name, tensor in network.network.state_dict().items()}
    work_for(network, boundary=2).activations(network, [draw_image(1, 40, 40)])
    assert network.training
    assert network.network.features[0].training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.network.state_dict().items())
