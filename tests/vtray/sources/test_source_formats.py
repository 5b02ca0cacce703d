import hashlib
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from source_builders import (
    draw,
    encode_noise,
    label_columns,
    tar_bytes,
    write_csv,
    write_files,
    write_folder,
    write_parquet,
    write_shards,
)

from vtray.errors import ConfigError, InputError, StorageDenied, StorageError
from vtray.shards import encode_shard
from vtray.shards.rows import Row
from vtray.sources import SourceImage, Unit, open_source, read, read_unit
from vtray.storage import LocalStorage, open_storage

IMAGES = draw(12)
EXPECTED = {(hashlib.sha256(d.encoded).hexdigest(), d.class_name, d.split) for d in IMAGES}


def build(kind, root):
    """The same images in one of the formats; the address of the input."""
    if kind == "folder":
        return write_folder(root, IMAGES)
    if kind == "webdataset":
        return write_shards(root, IMAGES)
    if kind == "parquet":
        return write_parquet(
            root / "a.parquet", {"image": [d.encoded for d in IMAGES]} | label_columns(IMAGES)
        ).parent
    write_folder(root / "files", IMAGES)
    rows = [(f"files/{d.split}/{d.class_name}/{d.name}", d.class_name, d.split) for d in IMAGES]
    return write_csv(root / "list.csv", ("uri", "label", "split"), rows)


def contents(source, **bounds) -> list[SourceImage]:
    bounds = {"max_bytes": 10**9, "max_images": 10} | bounds
    units = [Unit.from_dict(unit.to_dict()) for unit in source.units(**bounds)]
    return [image for unit in units for image in read_unit(unit)]


def identities(images):
    return {(hashlib.sha256(i.encoded).hexdigest(), i.ref.class_name, i.ref.split) for i in images}


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet", "list"])
@pytest.mark.parametrize("bounds", [{"max_images": 1}, {"max_images": 7}, {"max_bytes": 500}])
def test_every_format_and_unit_size_gives_the_same_images(tmp_path, kind, bounds):
    source = open_source(str(build(kind, tmp_path)))
    assert source.format == kind
    images = contents(source, **bounds)
    assert len(images) == len(IMAGES)
    assert identities(images) == EXPECTED


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet", "list"])
def test_a_shuffled_listing_gives_the_same_source(tmp_path, kind, monkeypatch):
    uri = str(build(kind, tmp_path))
    source = open_source(uri)
    sorted_list = LocalStorage.list

    def shuffled(self, prefix=""):
        entries = sorted_list(self, prefix)
        return random.Random(3).sample(entries, len(entries))

    monkeypatch.setattr(LocalStorage, "list", shuffled)
    again = open_source(uri)
    assert again == source
    assert again.units(max_bytes=900, max_images=5) == source.units(max_bytes=900, max_images=5)


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet", "list"])
def test_version_follows_every_input_object(tmp_path, kind):
    uri = str(build(kind, tmp_path))
    before = open_source(uri).version
    assert open_source(uri).version == before
    write_files(tmp_path, {"unrelated.log": b"x"})
    assert open_source(uri).version == before
    os.utime(open_source(uri).refs[0].uri, ns=(0, 0))
    assert open_source(uri).version != before


def test_version_changes_when_files_come_and_go(tmp_path):
    write_files(tmp_path, {"a.jpg": b"1", "b.jpg": b"2"})
    versions = [open_source(str(tmp_path)).version]
    write_files(tmp_path, {"c.jpg": b"3"})
    versions.append(open_source(str(tmp_path)).version)
    (tmp_path / "a.jpg").unlink()
    versions.append(open_source(str(tmp_path)).version)
    assert len(set(versions)) == 3


def test_mixed_input_is_refused_until_the_format_is_said(tmp_path):
    write_files(tmp_path, {"a.jpg": b"1", "b.tar": tar_bytes([("x.jpg", b"2")])})
    with pytest.raises(InputError, match=r"several formats \(1 for folder, 1 for webdataset\); set input.format"):
        open_source(str(tmp_path))
    assert [ref.image_id for ref in open_source(str(tmp_path), format="folder").refs] == ["a.jpg"]
    source = open_source(str(tmp_path), format="webdataset")
    assert [ref.image_id for ref in source.refs] == ["b.tar/x"]
    assert (source.skipped, source.skipped_example) == (1, "a.jpg")


def test_missing_and_empty_input(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"nothing: no such file or folder; check input.uri"):
        open_source(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"empty: the folder is empty"):
        open_source(str(tmp_path / "empty"))


def test_unknown_words_are_refused_with_the_allowed_ones(tmp_path):
    with pytest.raises(
        ConfigError, match=r"input.format: 'tarball' is not known; allowed: auto, folder, webdataset"
    ):
        open_source(str(tmp_path), format="tarball")
    with pytest.raises(ConfigError, match=r"input.layout: 'deep' is not known; allowed: auto, split"):
        open_source(str(tmp_path), layout="deep")
    with pytest.raises(ConfigError, match="gs://"):
        open_source("gs://bucket/x")


def output_rows():
    """Two variants of two pictures as our own shards hold them."""
    return [
        Row(
            image_id=f"train/{drawn.class_name}/{drawn.name}",
            variant=variant,
            image=encode_noise(10 * number + variant, kind="JPEG"),
            format="jpeg",
            width=8,
            height=6,
            label=number,
            class_name=drawn.class_name,
            split="train",
            mask=drawn.encoded,
            source_sha256="0" * 64,
            seed=1,
            operators="[]",
            recipe_digest="0" * 64,
        )
        for number, drawn in enumerate(IMAGES[:2])
        for variant in (0, 1)
    ]


@pytest.mark.parametrize(
    ("kind", "found_as"), [("parquet", "parquet"), ("webdataset", "webdataset"), ("folder", "list")]
)
def test_a_finished_output_of_ours_is_an_input(tmp_path, kind, found_as):
    objects = encode_shard(output_rows(), name="00000-ab", format=kind, classes=("bottle", "can"))
    write_files(tmp_path / "data", objects)
    write_files(tmp_path, {"_vtray/plan.json": b"{}", "_vtray/units.parquet": b"", "preview/sheet.jpg": b"1"})
    write_files(tmp_path, {"quarantine/00000.parquet": b"odd"})
    with pytest.raises(InputError, match="not finished"):
        open_source(str(tmp_path))
    write_files(tmp_path / "data", {"orphan.parquet": b"left by a killed attempt"})
    manifest = json.dumps({"files": [{"key": f"data/{name}"} for name in objects]}).encode()
    write_files(tmp_path, {"_vtray/manifest.json": manifest, "_SUCCESS": b"hash"})
    source = open_source(str(tmp_path))
    assert (source.format, source.skipped) == (found_as, 0)
    found = {(i.encoded, i.ref.class_name, i.ref.split) for i in contents(source)}
    assert found == {(row.image, row.class_name, "train") for row in output_rows()}
    if kind != "webdataset":
        ids = [row.image_id + ("#v1" if row.variant else "") for row in output_rows()]
        assert [ref.image_id for ref in source.refs] == sorted(ids)


def test_images_that_go_away_or_are_forbidden_fail_alone(tmp_path, monkeypatch):
    write_files(tmp_path, {f"{i}.jpg": b"1" for i in range(4)})
    source = open_source(str(tmp_path))
    (tmp_path / "1.jpg").unlink()
    real = LocalStorage.read

    def denied(self, key, **options):
        if key.endswith("2.jpg"):
            raise StorageDenied("no")
        return real(self, key, **options)

    monkeypatch.setattr(LocalStorage, "read", denied)
    assert [i.error and i.error.reason for i in contents(source)] == [None, "missing", "denied", None]


@pytest.mark.parametrize("kind", ["folder", "webdataset", "list"])
def test_passing_faults_leave_the_step(tmp_path, kind, monkeypatch):
    source = open_source(str(build(kind, tmp_path)))

    def fail(self, key, **options):
        raise StorageError("failed 8 times")

    monkeypatch.setattr(LocalStorage, "read", fail)
    with pytest.raises(StorageError, match="failed 8 times"):
        contents(source)


def test_reading_a_unit_lists_nothing(tmp_path, monkeypatch):
    source = open_source(str(build("folder", tmp_path)))
    monkeypatch.setattr(LocalStorage, "list", lambda self, prefix="": pytest.fail("listed"))
    assert identities(contents(source)) == EXPECTED


@pytest.fixture
def upload(s3_bucket):
    """Copies a local folder into a bucket."""

    def copy(root):
        storage, local = open_storage(f"{s3_bucket}/in put"), open_storage(str(root))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda entry: storage.put(entry.key, local.read(entry.key)), local.list()))
        return f"{s3_bucket}/in put"

    return copy


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet", "list"])
def test_s3_gives_the_same_images_and_ids_as_local(tmp_path, kind, upload):
    build(kind, tmp_path)
    name = "/list.csv" if kind == "list" else ""
    local, remote = open_source(f"{tmp_path}{name}"), open_source(upload(tmp_path) + name)
    assert remote.format == kind
    assert [ref.image_id for ref in remote.refs] == [ref.image_id for ref in local.refs]
    assert [ref.num_bytes for ref in remote.refs] == [ref.num_bytes for ref in local.refs]
    images = contents(remote)
    assert [i.ref.image_id for i in images] == [
        r.image_id for u in remote.units(max_bytes=10**9, max_images=10) for r in u.refs
    ]
    assert identities(images) == EXPECTED


@pytest.mark.s3
def test_s3_single_shard_missing_object_and_missing_input(tmp_path, upload):
    uri = upload(write_shards(tmp_path, IMAGES))
    source = open_source(f"{uri}/shard-001.tar")
    assert len(source.refs) == 6
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(f"{uri}/shard-009.tar")
    with pytest.raises(InputError, match="no such file or folder"):
        open_source("s3://there-is-no-such-bucket")
    open_storage(uri).delete("shard-001.tar")
    assert {i.error.reason for i in contents(source)} == {"missing"}


@pytest.mark.s3
def test_s3_tar_unit_is_read_in_one_request(tmp_path, upload, monkeypatch):
    source = open_source(f"{upload(write_shards(tmp_path, IMAGES))}/shard-000.tar")
    storage, _ = read.storage_for(source.refs[0].uri)
    ranges = []
    real = storage.read
    monkeypatch.setattr(storage, "read", lambda key, **where: ranges.append(where) or real(key, **where))
    assert len(contents(source, max_images=100)) == 6
    assert len(ranges) == 1
