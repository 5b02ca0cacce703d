import hashlib
import io
import json
import random
import tarfile
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow.parquet as pq
import pytest

from vtray.errors import InputError
from vtray.images import decode, encode
from vtray.shards import encode_quarantine, encode_shard, folder_path, read_folder_index, read_rows
from vtray.shards.rows import SCHEMA, QuarantineRow, Row, stem

CLASSES = ("Äpfel", "milk", "a/b")
SHARD_FORMATS = ("parquet", "webdataset")
IMAGE = encode(np.full((6, 8, 3), 90, np.uint8))
ODD_IDS = (
    "cat.jpg",
    "a/b.jpg",
    "a_b.jpg",
    "a-b.jpg",
    "x.png",
    "x.jpg",
    "x",
    "../x",
    "/etc/passwd",
    "..",
    ".",
    "",
    "dir.with.dots/img.v1.final.tar.gz",
    "shard-000.tar/00012",
    "grün/日本 語 (1).JPG",
    "weiß?*<>|:\\.png",
    "a__v1",
    "a",
    "new\nline.png",
    "n" * 400 + ".png",
    "__classes__",
)


def row(image_id: str = "milk/1.jpg", variant: int = 0, **fields) -> Row:
    common = {
        "image": IMAGE,
        "format": "jpeg",
        "width": 8,
        "height": 6,
        "label": 1,
        "class_name": "milk",
        "split": "train",
        "source_sha256": hashlib.sha256(image_id.encode()).hexdigest(),
        "seed": 2**63 + 12345,
        "operators": '[{"op": "flip", "p": 0.5}]',
        "recipe_digest": "abc123",
    }
    return Row(image_id=image_id, variant=variant, **{**common, **fields})


def sample_rows() -> list[Row]:
    """Labelled, unlabelled, with soft labels, boxes and mask, in three image formats; sorted."""
    box = {"x_min": 0.1, "y_min": 0.0, "x_max": 7.5, "y_max": 5.25, "label": 1}
    rows = [
        row(),
        row(variant=1, seed=2**64 - 1, soft_label=(0.1, 0.9, 0.0), boxes=(box, {**box, "label": None})),
        row(variant=2, mask=b"\x89PNG mask", boxes=(), format="png", image=b"\x89PNG..."),
        row("plain/2.webp", label=None, class_name=None, split=None, format="webp", image=b"RIFF....WEBP"),
        row("plain/3.jpg", label=0, class_name="Äpfel", split=None),
    ]
    return sorted(rows, key=lambda each: (each.image_id, each.variant))


def as_stored(each: Row) -> Row:
    """Parquet keeps soft labels and boxes as float32."""
    if each.soft_label is not None:
        each = replace(each, soft_label=tuple(float(np.float32(weight)) for weight in each.soft_label))
    if each.boxes is not None:
        boxes = [
            {side: value if side == "label" else float(np.float32(value)) for side, value in box.items()}
            for box in each.boxes
        ]
        each = replace(each, boxes=tuple(boxes))
    return each


def only_object(rows: list[Row], shard_format: str) -> bytes:
    (shard,) = encode_shard(rows, name="u0-ab", format=shard_format, classes=CLASSES).values()
    return shard


def members(shard: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


class TestAllFormats:
    @pytest.mark.parametrize("shard_format", SHARD_FORMATS)
    def test_round_trip(self, shard_format):
        rows = sample_rows()
        back = read_rows(only_object(rows, shard_format), format=shard_format)
        assert back == [as_stored(each) for each in rows]

    @pytest.mark.parametrize("shard_format", [*SHARD_FORMATS, "folder"])
    def test_same_bytes_in_any_order_and_again(self, shard_format):
        rows = sample_rows() + [row(image_id) for image_id in ODD_IDS]
        first = encode_shard(rows, name="u", format=shard_format, classes=CLASSES)
        for seed in range(3):
            shuffled = random.Random(seed).sample(rows, len(rows))
            assert encode_shard(shuffled, name="u", format=shard_format, classes=CLASSES) == first

    @pytest.mark.parametrize("shard_format", SHARD_FORMATS)
    def test_order_of_box_fields_does_not_matter(self, shard_format):
        box = {"x_min": 1.0, "y_min": 2.0, "x_max": 3.0, "y_max": 4.0, "label": 0}
        backwards = dict(reversed(box.items()))
        assert only_object([row(boxes=(box,))], shard_format) == only_object(
            [row(boxes=(backwards,))], shard_format
        )

    @pytest.mark.parametrize("shard_format", SHARD_FORMATS)
    def test_odd_ids_come_back_unchanged(self, shard_format):
        rows = [row(image_id, variant) for image_id in ODD_IDS for variant in (0, 1, 10)]
        back = read_rows(only_object(rows, shard_format), format=shard_format)
        assert sorted((each.image_id, each.variant) for each in back) == sorted(
            (image_id, variant) for image_id in ODD_IDS for variant in (0, 1, 10)
        )

    @pytest.mark.parametrize("shard_format", SHARD_FORMATS)
    def test_no_rows(self, shard_format):
        assert read_rows(only_object([], shard_format), format=shard_format) == []

    @pytest.mark.parametrize("shard_format", [*SHARD_FORMATS, "folder"])
    def test_the_same_variant_twice_is_refused(self, shard_format):
        with pytest.raises(ValueError, match=r"variant 1 of 'a\.jpg'.*its own image_id"):
            encode_shard(
                [row("a.jpg", 1), row("a.jpg", 0), row("a.jpg", 1)], name="u", format=shard_format, classes=()
            )

    @pytest.mark.parametrize("shard_format", SHARD_FORMATS)
    @pytest.mark.parametrize("shard", [b"", b"junk" * 500, b"PAR1" + b"\0" * 600 + b"PAR1"])
    def test_something_else_is_an_input_error(self, shard_format, shard):
        with pytest.raises(InputError, match="shard"):
            read_rows(shard, format=shard_format)

    @pytest.mark.parametrize("shard_format", SHARD_FORMATS)
    def test_a_cut_shard_is_an_input_error(self, shard_format):
        shard = only_object(sample_rows(), shard_format)
        with pytest.raises(InputError):
            read_rows(shard[: len(shard) // 3], format=shard_format)


class TestParquet:
    def test_plain_pyarrow_reads_the_schema_of_the_design(self):
        table = pq.read_table(io.BytesIO(only_object(sample_rows(), "parquet")))
        assert table.schema.equals(SCHEMA)
        names = "image_id variant image format width height label class_name split soft_label boxes mask"
        assert " ".join(table.column_names) == f"{names} source_sha256 seed operators recipe_digest"
        assert str(table.schema.field("seed").type) == "uint64"
        assert table.column("seed").to_pylist()[1] == 2**64 - 1
        assert decode(table.column("image")[0].as_py()).image.shape == (6, 8, 3)
        assert json.loads(table.schema.metadata[b"vtray.classes"]) == list(CLASSES)

    def test_images_are_stored_as_they_are(self):
        shard = only_object([row(str(n), image=IMAGE + bytes([n])) for n in range(50)], "parquet")
        metadata = pq.ParquetFile(io.BytesIO(shard)).metadata.row_group(0)
        columns = {metadata.column(n).path_in_schema: metadata.column(n) for n in range(metadata.num_columns)}
        image = columns["image"]
        assert image.compression == "UNCOMPRESSED"
        assert "RLE_DICTIONARY" not in image.encodings
        assert not image.is_stats_set
        assert columns["operators"].compression == "ZSTD"
        assert columns["image_id"].is_stats_set
        assert all(IMAGE + bytes([n]) in shard for n in range(50))

    def test_row_groups_are_bounded_by_image_bytes(self, monkeypatch):
        monkeypatch.setattr("vtray.shards.shard.ROW_GROUP_BYTES", 1000)
        sizes = [300, 300, 300, 300, 2500, 10, 990, 1000, 1]
        rows = [row(f"{n:02}", image=bytes(size)) for n, size in enumerate(sizes)]
        shard = only_object(rows, "parquet")
        file = pq.ParquetFile(io.BytesIO(shard))
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        assert groups == [3, 1, 1, 2, 1, 1]  # 900 | 300 | 2500 alone | 10 + 990 | 1000 | 1
        assert read_rows(shard, format="parquet") == rows

    def test_name_is_the_callers(self):
        assert list(encode_shard([row()], name="0007-ab12", format="parquet", classes=())) == ["0007-ab12.parquet"]
        assert list(encode_shard([row()], name="0007-ab12", format="webdataset", classes=())) == ["0007-ab12.tar"]


class TestWebdataset:
    def test_members_by_hand(self):
        found = members(only_object([row(), row("2.png", label=None, format="png", mask=b"m")], "webdataset"))
        first, second = stem(row()), stem(row("2.png"))
        assert set(found) == {
            "__classes__",
            *(f"{first}.{suffix}" for suffix in ("jpg", "cls", "json")),
            *(f"{second}.{suffix}" for suffix in ("png", "mask.png", "json")),
        }
        assert json.loads(found["__classes__"]) == list(CLASSES)
        assert found[f"{first}.jpg"] == IMAGE
        assert found[f"{first}.cls"] == b"1"
        fields = json.loads(found[f"{first}.json"])
        assert set(fields) == set(SCHEMA.names) - {"image", "mask"}
        assert fields["image_id"] == "milk/1.jpg"
        assert fields["seed"] == 2**63 + 12345

    def test_metadata_of_members_is_fixed(self):
        shard = only_object(sample_rows(), "webdataset")
        with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
            found = tar.getmembers()
        assert len(found) == 1 + 5 * 2 + 4 + 1  # classes; image and json each; four labels; one mask
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.isreg()) for m in found} == {
            (0, 0, 0, "", "", 0o644, True)
        }

    def test_keys_are_safe_and_unique(self):
        rows = [row(image_id, variant) for image_id in ODD_IDS for variant in (0, 1, 10)]
        names = [name for name in members(only_object(rows, "webdataset")) if name != "__classes__"]
        assert len(names) == len(set(names)) == 3 * len(rows)
        keys = {name.partition(".")[0] for name in names}  # as webdataset cuts
        assert len(keys) == len(rows)
        for name in names:
            assert name.isascii()
            assert "/" not in name
            assert not name.startswith((".", "__"))
            assert len(name) <= 100, "fits the plain USTAR header"

    def test_members_of_a_row_lie_together(self):
        names = list(members(only_object(sample_rows(), "webdataset")))[1:]
        keys = [name.partition(".")[0] for name in names]
        assert [key for n, key in enumerate(keys) if n == 0 or key != keys[n - 1]] == list(dict.fromkeys(keys))

    def test_both_formats_give_the_same_rows(self):
        rows = sample_rows()
        parquet, tar = (read_rows(only_object(rows, each), format=each) for each in SHARD_FORMATS)
        assert parquet == tar


class TestFolder:
    def test_files_lie_in_split_and_class(self):
        objects = encode_shard(sample_rows(), name="u0-ab", format="folder", classes=CLASSES)
        labelled, plain = f"train/milk/{stem(row())}.jpg", f"{stem(row('plain/2.webp'))}.webp"
        assert objects[labelled] == IMAGE
        assert objects[plain] == b"RIFF....WEBP"
        assert stem(row()).startswith("1-")
        assert stem(row()).endswith("__v0")
        assert len(objects) == 5 + 1

    def test_index_leads_to_every_file_and_gives_the_row_back(self):
        rows = sample_rows()
        objects = encode_shard(rows, name="u0-ab", format="folder", classes=CLASSES)
        index = objects.pop("u0-ab.parquet")
        found = read_folder_index(index)
        assert set(found) == set(objects)
        assert [replace(each, image=objects[path]) for path, each in found.items()] == [as_stored(e) for e in rows]
        table = pq.read_table(io.BytesIO(index))
        assert table.column_names[0] == "path"
        assert "image" not in table.column_names
        assert json.loads(table.schema.metadata[b"vtray.classes"]) == list(CLASSES)

    def test_odd_ids_never_meet_and_never_leave_the_folder(self):
        rows = [row(image_id, variant) for image_id in ODD_IDS for variant in (0, 1)]
        paths = [folder_path(each) for each in rows]
        assert len({path.casefold() for path in paths}) == len(rows), "also where case does not count"
        for path in paths:
            assert PurePosixPath(path).parts[:2] == ("train", "milk")
            assert len(PurePosixPath(path).parts) == 3
            assert len(PurePosixPath(path).name) <= 100

    @pytest.mark.parametrize(
        ("name", "folder"),
        [
            ("Oat Milk (1 l)", "Oat Milk (1 l)"),
            ("Äpfel", "Äpfel"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
            ("..", "%2E%2E"),
            (".hidden", "%2Ehidden"),
            ("end.", "end%2E"),
            ("tab\t", "tab%09"),
        ],
    )
    def test_class_folders_are_one_component_each(self, name, folder):
        assert folder_path(row(class_name=name)).split("/")[1:-1] == [folder]

    def test_no_rows_leave_only_the_index(self):
        (index,) = encode_shard([], name="u", format="folder", classes=CLASSES).values()
        assert read_folder_index(index) == {}


class TestQuarantine:
    ROWS = (
        QuarantineRow(
            image_id="b", uri="s3://x/b", stage="decode", error_type="truncated", message="cut", bytes_sha256="00"
        ),
        QuarantineRow(
            image_id="a",
            uri="s3://x/a",
            stage="read",
            error_type="StorageError",
            message="gone",
            bytes_sha256=None,
        ),
    )

    def test_columns_rows_and_order(self):
        table = pq.read_table(io.BytesIO(encode_quarantine(self.ROWS)))
        assert table.column_names == ["image_id", "uri", "stage", "error_type", "message", "bytes_sha256"]
        assert [tuple(fields.values()) for fields in table.to_pylist()] == [
            ("a", "s3://x/a", "read", "StorageError", "gone", None),
            ("b", "s3://x/b", "decode", "truncated", "cut", "00"),
        ]

    def test_same_bytes_in_any_order(self):
        assert encode_quarantine(self.ROWS) == encode_quarantine(self.ROWS[::-1])

    def test_empty(self):
        assert pq.read_table(io.BytesIO(encode_quarantine([]))).num_rows == 0


def test_stems_are_golden():
    """They name files that users already have: blake2b of the id, 8 bytes, behind what is readable of it."""
    digest = hashlib.blake2b(b"Milk/oat 031.jpg", digest_size=8).hexdigest()
    assert stem(row("Milk/oat 031.jpg", 3)) == f"oat-031-{digest}__v3"
    assert stem(row("日本.png")).startswith("image-")
