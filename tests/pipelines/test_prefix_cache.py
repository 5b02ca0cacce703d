"""The prefix cache of a source of images: built once, shared, mended where images change, compared before use."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import draw_image
from PIL import Image

from pipelines import cluster, prefix_cache, prefix_cache_check, units
from pipelines.config import JobConfig
from pipelines.prefix_cache import CacheSpec, build, cache_bytes
from pipelines.units import UnitFailure
from vtray.augment.recipe import Recipe
from vtray.classify.activations import Activations
from vtray.classify.backbone import build_classifier
from vtray.classify.preprocessing import Preprocessing, decode_for
from vtray.errors import ConfigError, InputError, StorageError, TooManyFailures, UnfinishedUnits, VtrayError
from vtray.sources import open_source
from vtray.steps import cache_unit
from vtray.steps.cache_unit import PREFIX
from vtray.storage import open_storage
from vtray.verification import verify

PREPROCESSING = Preprocessing(
    resize_px=48, crop_px=40, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear"
)
RECIPE = Recipe.model_validate({"operators": [{"op": "random_resized_crop", "size_px": 44}, {"op": "noise"}]})


@pytest.fixture(scope="module")
def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_classifier("squeezenet1_1", num_classes=3)


@pytest.fixture(scope="module")
def drawn_images(tmp_path_factory):
    """Twelve training images, four of val and two of test, in two classes."""
    root = tmp_path_factory.mktemp("catalog")
    for split, numbers in (("train", range(12)), ("val", range(12, 16)), ("test", range(16, 18))):
        for number in numbers:
            folder = root / split / ("can", "carton")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_image(number)).save(folder / f"{number:02}.png")
    return root


@pytest.fixture
def images(drawn_images, tmp_path):
    return shutil.copytree(drawn_images, tmp_path / "images")


@pytest.fixture
def here(in_process, monkeypatch):
    """The step called in this process, on the two CPUs of the shared fixture."""

    def run_units(pending, step, digests, *, workers):
        for unit in pending:
            try:
                yield step(unit, digests[unit.unit_id])
            except VtrayError as error:
                yield UnitFailure(unit=unit.unit_id, message=str(error))

    monkeypatch.setattr(units, "run_units", run_units)


def config_for(images, **values):
    fixed = {"input": {"uri": str(images)}, "output": {"uri": "unused"}, "units": {"max_images": 4}}
    return JobConfig.model_validate(fixed | values)


def spec_for(tmp_path, **values):
    fixed = {"root": str(tmp_path / "caches"), "num_frozen": 4, "preprocessing": PREPROCESSING}
    return CacheSpec(**(fixed | values))


def build_for(images, spec, classifier, **values):
    return build(spec, open_source(str(images)), classifier, config=config_for(images, **values))


def direct(classifier, image_ids, images, boundary=4):
    crops = [PREPROCESSING(np.asarray(Image.open(images / name))) for name in image_ids]
    with torch.no_grad():
        return classifier.eval().prefix(
            PREPROCESSING.pixels(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)), boundary
        )


def files_of(root):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def scaled(classifier, factor):
    other = build_classifier(classifier.backbone, num_classes=3)
    tensors = classifier.network.state_dict()
    other.network.load_state_dict({k: v * factor if v.ndim > 1 else v for k, v in tensors.items()})
    return other


def test_train_and_val_are_cached_and_compared(images, tmp_path, classifier, here, caplog):
    caplog.set_level(logging.INFO, "vtray.cache")
    cache = build_for(images, spec_for(tmp_path), classifier)
    assert (cache.num_images, cache.num_failed, cache.num_made, cache.num_checked) == (16, 0, 16, 16)
    assert (cache.dtype, cache.start) == ("fp16", 4)
    assert 0 < cache.max_difference < 2**-10
    assert "16 of 16 images computed" in caplog.text
    train = cache.open("train")
    assert train.image_ids == tuple(sorted(str(p.relative_to(images)) for p in images.glob("train/*/*")))
    expected = direct(classifier, train.image_ids, images)
    assert torch.allclose(train.rows(range(12)).float(), expected, atol=2**-10 * float(expected.max()))
    assert len(cache.open("val")) == 4
    with pytest.raises(InputError, match="no cached image of split test"):
        cache.open("test")
    assert verify(open_storage(cache.uri), deep=True).faults == ()


def test_another_run_computes_and_writes_nothing(images, tmp_path, classifier, here, monkeypatch):
    first = build_for(images, spec_for(tmp_path), classifier)
    before = files_of(tmp_path / "caches")
    monkeypatch.setattr(units, "run_units", lambda *_, **__: pytest.fail("units were sent"))
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))
    again = build_for(images, spec_for(tmp_path), classifier)
    assert (again.uri, again.num_made, again.num_images) == (first.uri, 0, 16)
    assert files_of(tmp_path / "caches") == before


def test_an_estimate_is_what_it_takes(images, tmp_path, classifier, here):
    spec = spec_for(tmp_path, recipe=RECIPE, views=2)
    estimate = cache_bytes(spec, open_source(str(images)), classifier)
    cache = build_for(images, spec, classifier)
    rows = cache.open("train").num_bytes + cache.open("val").num_bytes
    assert estimate == rows == (12 * 3 + 4) * 2 * np.prod(cache.shape)
    assert rows < cache.num_bytes < rows * 1.1


def test_views_are_in_the_cache_of_training_images(images, tmp_path, classifier, here):
    cache = build_for(images, spec_for(tmp_path, recipe=RECIPE, views=2), classifier)
    assert (cache.open("train").num_views, cache.open("val").num_views) == (3, 1)
    assert cache.num_checked == 16
    other = build_for(images, spec_for(tmp_path, recipe=RECIPE, views=2), classifier, seed=1)
    train, reseeded = cache.open("train"), other.open("train")
    assert torch.equal(train.rows(range(12)), reseeded.rows(range(12)))
    assert not torch.equal(train.rows(range(12), 1), reseeded.rows(range(12), 1))


class TestChanges:
    def test_a_changed_image_is_computed_again_alone_with_its_unit(self, images, tmp_path, classifier, here):
        first = build_for(images, spec_for(tmp_path), classifier)
        before = files_of(tmp_path / "caches")
        Image.fromarray(draw_image(99)).save(images / "val/can/12.png")
        again = build_for(images, spec_for(tmp_path), classifier)
        assert (again.uri, again.num_made) == (first.uri, 4)
        kept = [p for p, state in files_of(tmp_path / "caches").items() if before.get(p) == state]
        assert len([path for path in kept if path.suffix == ".arrow"]) == 3
        val = again.open("val")
        expected = direct(classifier, val.image_ids, images)
        assert torch.allclose(val.rows(range(4)).float(), expected, atol=2**-10 * float(expected.max()))

    def test_other_images_of_the_input_do_not_matter(self, images, tmp_path, classifier, here):
        build_for(images, spec_for(tmp_path), classifier)
        Image.fromarray(draw_image(99)).save(images / "test/can/16.png")
        assert build_for(images, spec_for(tmp_path), classifier).num_made == 0

    def test_changed_weights_are_another_cache(self, images, tmp_path, classifier, here):
        changed = scaled(classifier, 1.0)
        with torch.no_grad():
            changed.network.features[3].squeeze.bias[0] += 1e-6
        uris = {build_for(images, spec_for(tmp_path), each).uri for each in (classifier, changed)}
        assert len(uris) == 2

    def test_the_head_and_later_stages_may_be_others(self, images, tmp_path, classifier, here):
        build_for(images, spec_for(tmp_path), classifier)
        trained = scaled(classifier, 1.0)
        with torch.no_grad():
            trained.network.features[12].squeeze.weight.zero_()
            trained.head.weight.zero_()
        assert build_for(images, spec_for(tmp_path), trained).num_made == 0

    def test_what_other_libraries_half_made_is_made_again(self, images, tmp_path, classifier, here):
        cache = build_for(images, spec_for(tmp_path), classifier)
        storage = open_storage(cache.uri)
        storage.delete("_SUCCESS")
        storage.delete("_vtray/receipts/00000.json")
        plan = json.loads(storage.read("_vtray/plan.json"))
        plan["versions"]["torch"] = "1.0"
        storage.put("_vtray/plan.json", json.dumps(plan).encode())
        assert build_for(images, spec_for(tmp_path), classifier).num_made == 16


class TestInterruptions:
    def test_what_was_done_before_a_kill_is_kept(self, images, tmp_path, classifier, here, monkeypatch):
        run_units = units.run_units

        def killed(pending, step, digests, *, workers):
            yield from run_units(pending[:2], step, digests, workers=workers)
            raise KeyboardInterrupt

        monkeypatch.setattr(units, "run_units", killed)
        with pytest.raises(KeyboardInterrupt):
            build_for(images, spec_for(tmp_path / "a"), classifier)
        monkeypatch.setattr(units, "run_units", run_units)
        resumed = build_for(images, spec_for(tmp_path / "a"), classifier)
        whole = build_for(images, spec_for(tmp_path / "b"), classifier)
        assert (resumed.num_made, whole.num_made) == (8, 16)

        def contents(uri):
            storage = open_storage(uri)
            return {entry.key: storage.read(entry.key) for entry in storage.list("data")}

        assert contents(resumed.uri) == contents(whole.uri)

    def test_another_driver_may_finish_first(self, images, tmp_path, classifier, here, monkeypatch):
        """What the other driver finished is not touched: it may be training on it."""
        run_units = units.run_units
        raced = []

        def slow(pending, step, digests, *, workers):
            monkeypatch.setattr(units, "run_units", run_units)
            raced.append(build_for(images, spec_for(tmp_path), classifier))
            raced.append(files_of(tmp_path / "caches"))
            yield from run_units(pending, step, digests, workers=workers)

        monkeypatch.setattr(units, "run_units", slow)
        cache = build_for(images, spec_for(tmp_path), classifier)
        assert cache.uri == raced[0].uri
        assert files_of(tmp_path / "caches") == raced[1]

    def test_units_without_receipt_are_told(self, images, tmp_path, classifier, here, monkeypatch):
        failing = [UnitFailure(unit="00000", message="the disk is full")]
        monkeypatch.setattr(units, "run_units", lambda *_, **__: iter(failing))
        with pytest.raises(UnfinishedUnits, match="1 of 4 units are not done, such as 00000: the disk is full"):
            build_for(images, spec_for(tmp_path), classifier)


class TestComparison:
    def tamper(self, cache, change):
        """Change the values of every file in place, size and books as they were."""
        for entry in open_storage(cache.uri).list("data"):
            path = open_storage(cache.uri)._root / entry.key
            content = bytearray(path.read_bytes())
            mapped = Activations.open(cache.uri, "train")._values
            bits = next(values.tobytes() for values in mapped if values.tobytes() in content)
            start = content.index(bits)
            content[start : start + len(bits)] = change(np.frombuffer(bits, np.float16)).tobytes()
            path.write_bytes(content)

    def test_wrong_rows_are_refused_by_name(self, images, tmp_path, classifier, here):
        cache = build_for(images, spec_for(tmp_path), classifier)
        self.tamper(cache, lambda values: np.roll(values, 1))
        message = (
            rf"{cache.uri}: the cached row of \S+\.png, view 0, differs from the direct forward pass by "
            r"[0-9.]+ of its largest activation \(0\.00098 is allowed\); delete this folder and run again"
        )
        with pytest.raises(StorageError, match=message):
            build_for(images, spec_for(tmp_path), classifier)

    def test_nan_is_no_small_difference(self, images, tmp_path, classifier, here):
        cache = build_for(images, spec_for(tmp_path), classifier)
        self.tamper(cache, lambda values: np.where(np.arange(len(values)) % 1000, values, np.float16("nan")))
        with pytest.raises(StorageError, match="differs from the direct forward pass by nan"):
            build_for(images, spec_for(tmp_path), classifier)

    def test_a_wrong_view_is_refused(self, images, tmp_path, classifier, here, monkeypatch):
        """The step draws its views from another seed than it should."""
        crops = cache_unit.CacheUnit._crops

        def reseeded(self, unit, made):
            return crops(replace(self, work=replace(self.work, seed=5)), unit, made)

        monkeypatch.setattr(cache_unit.CacheUnit, "_crops", reseeded)
        with pytest.raises(StorageError, match=r"view [12], differs"):
            build_for(images, spec_for(tmp_path, recipe=RECIPE, views=2), classifier)

    def test_64_images_are_compared_and_always_the_same(self, images, tmp_path, classifier, here, monkeypatch):
        monkeypatch.setattr(prefix_cache_check, "NUM_COMPARED", 5)
        seen = []
        difference = prefix_cache_check._difference
        monkeypatch.setattr(
            prefix_cache_check, "_difference", lambda *a: seen.append(a[1].ref.image_id) or difference(*a)
        )
        cache = build_for(images, spec_for(tmp_path), classifier)
        build_for(images, spec_for(tmp_path), classifier)
        assert cache.num_checked == 5
        assert seen[:5] == seen[5:]


class TestDtype:
    def test_activations_near_the_end_of_fp16_are_kept_as_bf16(self, images, tmp_path, classifier, here):
        cache = build_for(images, spec_for(tmp_path), scaled(classifier, 14.0))
        assert cache.dtype == "bf16"
        assert cache.open("train").rows([0]).isfinite().all()

    def test_and_so_are_tiny_ones(self, images, tmp_path, here):
        vanishing = build_classifier("mobilenet_v2", num_classes=2)  # untrained batch norms let 1e-9 through
        cache = build_for(images, spec_for(tmp_path, num_frozen=19), vanishing)
        assert (cache.dtype, cache.shape) == ("bf16", (1280,))

    def test_what_the_sample_did_not_show_is_found_by_the_workers(
        self, images, tmp_path, classifier, here, monkeypatch, caplog
    ):
        caplog.set_level(logging.INFO, "vtray.cache")
        monkeypatch.setattr(prefix_cache_check.CacheCheck, "fits_fp16", lambda self: True)
        large = scaled(classifier, 30.0)
        cache = build_for(images, spec_for(tmp_path), large)
        assert cache.dtype == "bf16"
        assert "is too large; use bf16 or auto: the cache is made in bf16 instead" in caplog.text
        run_units = units.run_units
        monkeypatch.setattr(units, "run_units", lambda *_, **__: pytest.fail("fp16 was tried again"))
        assert build_for(images, spec_for(tmp_path), large).uri == cache.uri
        monkeypatch.setattr(units, "run_units", run_units)

    def test_fp16_that_was_asked_for_is_refused_then(self, images, tmp_path, classifier, here):
        with pytest.raises(ConfigError, match=r"cache\.dtype fp16: \S+\.png has an activation that is too large"):
            build_for(images, spec_for(tmp_path, dtype="fp16"), scaled(classifier, 30.0))


class TestBadInput:
    def test_a_broken_image_has_no_row(self, images, tmp_path, classifier, here):
        (images / "train/can/00.png").write_bytes(b"no image")
        cache = build_for(images, spec_for(tmp_path), classifier, max_failed=0.1)
        assert (cache.num_images, cache.num_failed) == (16, 1)
        assert "train/can/00.png" not in cache.open("train").image_ids

    def test_too_many_of_them(self, images, tmp_path, classifier, here):
        (images / "train/can/00.png").write_bytes(b"no image")
        with pytest.raises(
            TooManyFailures, match=r"1 of 16 images failed, max_failed=0\.0 allows 0; such as train"
        ):
            build_for(images, spec_for(tmp_path), classifier, max_failed=0.0)

    def test_all_of_them(self, images, tmp_path, classifier, here):
        with pytest.raises(TooManyFailures, match="16 of 16 images failed"):
            build_for(images, spec_for(tmp_path), scaled(classifier, 1e20), max_failed=1.0)

    def test_none_to_cache(self, images, tmp_path, classifier, here):
        with pytest.raises(InputError, match="no image to cache; looked for those of the splits dev"):
            build_for(images, spec_for(tmp_path, splits=("dev",)), classifier)

    def test_more_frozen_than_there_is(self, images, tmp_path, classifier, here):
        with pytest.raises(ConfigError, match="cache: 99 frozen stages of squeezenet1_1 cannot be cached"):
            build_for(images, spec_for(tmp_path, num_frozen=99), classifier)

    def test_a_cache_on_one_machine_of_many(self, images, tmp_path, classifier, here, monkeypatch):
        two = cluster.Cluster(nodes=(cluster.Node(num_cpus=1), cluster.Node(num_cpus=1)))
        monkeypatch.setattr(cluster, "connect", lambda address: two)
        with pytest.raises(ConfigError, match="a local path on a cluster of 2 nodes"):
            build_for(images, spec_for(tmp_path), classifier)


def test_with_nothing_frozen_the_rows_are_the_crops(images, tmp_path, classifier, here):
    cache = build_for(images, spec_for(tmp_path, num_frozen=0), classifier)
    rows = cache.open("val")
    source = open_source(str(images))
    ref = next(ref for ref in source.refs if ref.image_id == rows.image_ids[0])
    assert (cache.start, cache.dtype, cache.max_difference) == (0, "uint8", 0.0)
    crop = decode_for(PREPROCESSING, Path(ref.uri).read_bytes())
    assert np.array_equal(rows.rows([0])[0].numpy(), crop)


def test_large_rows_make_small_units(images, tmp_path, classifier, here, monkeypatch):
    monkeypatch.setattr(prefix_cache, "FILE_BYTES", 20_000)
    cache = build_for(images, spec_for(tmp_path), classifier)
    row = 2 * int(np.prod(cache.shape))
    files = open_storage(cache.uri).list("data")
    assert len(files) == 8
    assert all(2 * row <= file.size < 20_000 for file in files)


@pytest.mark.s3
def test_on_s3(images, tmp_path, classifier, here, s3_bucket):
    spec = spec_for(tmp_path, root=f"{s3_bucket}/caches", local=str(tmp_path / "local"))
    cache = build_for(images, spec, classifier)
    val = cache.open("val")
    expected = direct(classifier, val.image_ids, images)
    assert torch.allclose(val.rows(range(4)).float(), expected, atol=2**-10 * float(expected.max()))
    assert open_storage(cache.uri).exists(PREFIX)
    assert len(list((tmp_path / "local/data").iterdir())) == 4


@pytest.mark.ray
def test_workers_make_what_one_process_makes(images, tmp_path, classifier, ray_cluster, request):
    spread = build_for(images, spec_for(tmp_path / "a"), classifier)
    request.getfixturevalue("here")
    alone = build_for(images, spec_for(tmp_path / "b"), classifier)
    assert spread.uri.rpartition("/")[2] == alone.uri.rpartition("/")[2]
    rows = [cache.open("train").rows(range(12)) for cache in (spread, alone)]
    assert torch.equal(*rows)
