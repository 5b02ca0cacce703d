import pytest
from source_builders import (
    draw,
    encode_noise,
    label_columns,
    write_csv,
    write_files,
    write_folder,
    write_parquet,
    write_shards,
)

from vtray.sources import open_source
from vtray.sources.peek import HEADER_BYTES, MAX_ROW_GROUPS, peek_sizes, sample_refs
from vtray.storage import open_storage


def peeked(root, number=100):
    return peek_sizes(sample_refs(open_source(str(root)).refs, number))


def test_sizes_from_every_kind_of_input(tmp_path):
    images = draw(12)
    write_folder(tmp_path / "folder", images)
    write_shards(tmp_path / "tar", images)
    write_parquet(tmp_path / "rows" / "a.parquet", {"image": [d.encoded for d in images]} | label_columns(images))
    paths = [(f"../folder/{d.split}/{d.class_name}/{d.name}",) for d in images]
    write_csv(tmp_path / "list" / "a.csv", ("uri",), paths)
    for kind in ("folder", "tar", "rows", "list"):
        found = peeked(tmp_path / kind)
        assert len(found) == 12, kind
        assert set(found.values()) == {(6, 8)}, kind  # noise of 6 rows and 8 columns


def test_what_cannot_be_told_is_none(tmp_path):
    write_files(tmp_path, {"a.png": encode_noise(1), "b.png": b"no image", "c.jpg": b""})
    assert peeked(tmp_path) == {"a.png": (6, 8), "b.png": None, "c.jpg": None}


def test_a_file_that_went_away_is_none(tmp_path):
    write_files(tmp_path, {"a.png": encode_noise(1), "b.png": encode_noise(2)})
    refs = open_source(str(tmp_path)).refs
    (tmp_path / "b.png").unlink()
    assert peek_sizes(refs) == {"a.png": (6, 8), "b.png": None}


def test_a_header_beyond_the_first_bytes_is_read_with_the_whole_file(tmp_path):
    webp = encode_noise(1, kind="WEBP")
    padded = webp[:4] + (len(webp) + HEADER_BYTES).to_bytes(4, "little") + webp[8:]
    padded += b"JUNK" + (HEADER_BYTES).to_bytes(4, "little") + bytes(HEADER_BYTES)
    write_files(tmp_path, {"a.webp": padded})
    assert len(padded) > HEADER_BYTES
    assert peeked(tmp_path) == {"a.webp": (6, 8)}


def test_a_sample_is_spread_and_always_the_same(tmp_path):
    write_folder(tmp_path, draw(60))
    refs = open_source(str(tmp_path)).refs
    some = sample_refs(refs, 20)
    assert some == sample_refs(reversed(refs), 20)
    assert len(set(some)) == 20
    assert {ref.class_name for ref in some} == {"bottle", "can", "carton"}
    assert sample_refs([], 5) == []


def test_a_sample_of_parquet_reads_few_row_groups(tmp_path):
    images = draw(60)
    columns = {"image": [d.encoded for d in images]} | label_columns(images)
    write_parquet(tmp_path / "a.parquet", columns, row_group_size=6)
    some = sample_refs(open_source(str(tmp_path)).refs, 20)
    assert len(some) == 20
    assert len({ref.row_group for ref in some}) == MAX_ROW_GROUPS


@pytest.mark.s3
def test_sizes_of_objects(s3_bucket):
    storage = open_storage(s3_bucket)
    storage.put("a.png", encode_noise(1))
    storage.put("large.bmp", encode_noise(2, kind="BMP") + bytes(HEADER_BYTES))
    storage.put("empty.png", b"")
    assert peeked(s3_bucket) == {"a.png": (6, 8), "large.bmp": (6, 8), "empty.png": None}
