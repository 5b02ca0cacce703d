"""Files of activations: what is written is what is read, mapped or in memory, here or from S3."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from vtray.classify import activations as module
from vtray.classify.activations import DTYPES, Activations, CachedRow, encode_file
from vtray.errors import InputError, StorageError
from vtray.manifest import Ledger, Plan, Receipt
from vtray.steps.results import put
from vtray.storage import open_storage

SHAPE = (3, 2, 2)
PLAN = Plan(job="prefix_cache", work={}, config={}, versions={}, units={"00000": "a", "00001": "b"})


def row_of(number, view=0, *, split="train", label=0):
    return CachedRow(image_id=f"{number:02}.jpg", view=view, label=label, split=split, source_sha256="0" * 64)


def values_of(rows, dtype="fp16"):
    """Values that tell image and view: number + view / 8, then as many sixteenths as the item's place."""
    places = torch.arange(12).reshape(SHAPE) / 16
    return torch.stack([int(row.image_id[:2]) + row.view / 8 + places for row in rows]).to(DTYPES[dtype])


def write_cache(uri, *units, dtype="fp16"):
    """A finished cache with one file for each list of rows."""
    ledger = Ledger(open_storage(str(uri)))
    ledger.begin(PLAN, lambda: b"")
    for unit, rows in zip(PLAN.units, units, strict=True):
        content = encode_file(rows, values_of(rows, dtype))
        file = put(ledger.storage, f"data/{unit}.arrow", content, rows=len(rows))
        ledger.book(
            Receipt(
                unit=unit,
                digest=PLAN.unit_digest(unit),
                files=(file,),
                quarantine=None,
                num_images=len(rows),
                num_failed=0,
            )
        )
    ledger.finish(PLAN, {}, complete=True)
    ledger.mark_complete()
    return str(uri)


@pytest.fixture
def cache(tmp_path):
    """Five training images with two views and two others, in two files."""
    first = [row_of(n, view, label=n) for n in (0, 3) for view in (0, 1)] + [row_of(5, split="val", label=None)]
    second = [row_of(n, view, label=n) for n in (1, 2, 4) for view in (0, 1)] + [row_of(6, split="val", label=1)]
    return write_cache(tmp_path / "cache", first, second)


def test_rows_come_by_image_and_view_from_whatever_file(cache):
    train = Activations.open(cache, "train")
    assert train.image_ids == tuple(f"{n:02}.jpg" for n in range(5))
    assert (len(train), train.num_views, train.shape, train.dtype) == (5, 2, SHAPE, torch.float16)
    assert train.num_bytes == 5 * 2 * 12 * 2
    assert train.labels.tolist() == [0, 1, 2, 3, 4]
    rows = train.rows([4, 0, 3, 3], view=1)
    assert rows.shape == (4, *SHAPE)
    assert torch.equal(rows, values_of([row_of(n, 1) for n in (4, 0, 3, 3)]))
    assert torch.equal(train.rows([1, 2], view=[1, 0]), values_of([row_of(1, 1), row_of(2, 0)]))
    assert train.rows([]).shape == (0, *SHAPE)


def test_splits_are_apart_and_an_image_may_have_no_label(cache):
    val = Activations.open(cache, "val")
    assert (val.image_ids, val.num_views, val.labels.tolist()) == (("05.jpg", "06.jpg"), 1, [-1, 1])
    assert torch.equal(val.rows([1, 0]), values_of([row_of(6), row_of(5)]))
    with pytest.raises(IndexError):
        val.rows([0], view=1)
    with pytest.raises(IndexError):
        val.rows([2])


def test_images_are_found_by_id(cache):
    train = Activations.open(cache, "train")
    assert train.indexes_of(["03.jpg", "00.jpg"]).tolist() == [3, 0]
    with pytest.raises(InputError, match=r"1 images are not in the prefix cache, such as '05\.jpg'"):
        train.indexes_of(["03.jpg", "05.jpg"])


def test_in_memory_they_are_the_same(cache, monkeypatch):
    mapped = Activations.open(cache, "train")
    held = mapped.in_memory()
    every = np.repeat(np.arange(5), 2), np.tile([0, 1], 5)
    assert torch.equal(held.rows(*every), mapped.rows(*every))
    assert (held.image_ids, held.labels.tolist()) == (mapped.image_ids, mapped.labels.tolist())
    assert len(held._values) == 1
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", mapped.num_bytes)
    assert len(Activations.load(cache, "train")._values) == 2
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", mapped.num_bytes + 1)
    assert len(Activations.load(cache, "train")._values) == 1


def test_rows_are_the_callers_own(cache):
    train = Activations.open(cache, "train")
    train.rows([0]).zero_()
    assert torch.equal(train.rows([0]), values_of([row_of(0)]))
    train.in_memory().rows([0]).zero_()
    assert torch.equal(train.in_memory().rows([0]), values_of([row_of(0)]))


def test_the_files_are_mapped_not_read(cache):
    train = Activations.open(cache, "train")
    assert not any(values.flags.owndata or values.flags.writeable for values in train._values)


def test_bf16_keeps_values_that_fp16_cannot(tmp_path):
    rows = [row_of(0), row_of(1)]
    huge = torch.full((2, *SHAPE), 3e38).to(torch.bfloat16)
    uri = write_cache(tmp_path / "cache", rows[:1], rows[1:], dtype="bf16")
    assert torch.equal(Activations.open(uri, "train").rows([0, 1]), values_of(rows, "bf16"))
    with pa.ipc.open_file(encode_file(rows, huge)) as file:
        bits = np.frombuffer(file.get_batch(0).column("activation")[1].as_py(), np.int16)
    assert torch.equal(torch.from_numpy(bits.copy()).view(torch.bfloat16), huge[1].flatten())


def test_equal_rows_give_equal_bytes_without_compression():
    rows = [row_of(n) for n in range(200)]
    content = encode_file(rows, values_of(rows))
    assert content == encode_file(list(rows), values_of(rows).clone())
    assert values_of(rows).contiguous().numpy().tobytes() in content


class TestWrongCaches:
    def test_an_unfinished_one(self, cache, tmp_path):
        (tmp_path / "cache/_SUCCESS").unlink()
        with pytest.raises(InputError, match="no finished prefix cache"):
            Activations.open(cache, "train")
        with pytest.raises(InputError, match="no finished prefix cache"):
            Activations.open(str(tmp_path / "nowhere"), "train")

    def test_no_image_of_that_split(self, cache):
        with pytest.raises(InputError, match="no cached image of split test; it has train, val"):
            Activations.open(cache, "test")

    def test_a_file_that_was_cut_short_or_is_gone(self, cache, tmp_path):
        path = tmp_path / "cache/data/00001.arrow"
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(StorageError, match=r"00001\.arrow: missing or cut short; delete the folder"):
            Activations.open(cache, "train")
        path.unlink()
        with pytest.raises(StorageError, match="missing or cut short"):
            Activations.open(cache, "train")

    def test_a_file_of_something_else(self, cache, tmp_path):
        path = tmp_path / "cache/data/00001.arrow"
        path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(StorageError, match="no file of activations"):
            Activations.open(cache, "train")

    def test_a_view_that_is_missing(self, tmp_path):
        uri = write_cache(tmp_path / "cache", [row_of(0), row_of(0, 1)], [row_of(1)])
        with pytest.raises(StorageError, match="a view of an image is missing"):
            Activations.open(uri, "train")


@pytest.mark.s3
class TestS3:
    """Files are copied to this machine once."""

    @pytest.fixture
    def remote(self, s3_bucket):
        return write_cache(f"{s3_bucket}/key", [row_of(0), row_of(2)], [row_of(1), row_of(3, split="val")])

    def test_rows_are_those_of_the_bucket(self, remote, tmp_path):
        train = Activations.open(remote, "train", local=str(tmp_path / "local"))
        assert torch.equal(train.rows([2, 1, 0]), values_of([row_of(n) for n in (2, 1, 0)]))

    def test_a_file_that_is_there_is_not_copied_again(self, remote, tmp_path):
        local = tmp_path / "local"
        Activations.open(remote, "train", local=str(local))
        times = {path: path.stat().st_mtime_ns for path in local.glob("data/*")}
        assert len(times) == 2
        cut = local / "data/00001.arrow"
        cut.write_bytes(b"")
        val = Activations.open(remote, "val", local=str(local))
        assert torch.equal(val.rows([0]), values_of([row_of(3)]))
        assert (local / "data/00000.arrow").stat().st_mtime_ns == times[local / "data/00000.arrow"]

    def test_damage_in_the_bucket_is_told(self, remote, tmp_path):
        storage = open_storage(remote)
        storage.put("data/00000.arrow", b"damaged")
        with pytest.raises(StorageError, match=r"data/00000\.arrow: damaged"):
            Activations.open(remote, "train", local=str(tmp_path / "local"))
