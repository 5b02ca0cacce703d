import json
import tarfile

import pytest
from source_builders import draw, encode_noise, sample_members, tar_bytes, write_files, write_shards

from vtray.errors import InputError
from vtray.sources import open_source, read_unit
from vtray.sources.tar import MAX_GAP_BYTES, MAX_SPAN_BYTES, read_members
from vtray.sources.unit import ImageRef


def open_tar(tmp_path, members, **options):
    return open_source(str(write_files(tmp_path, {"s.tar": tar_bytes(members, **options)})))


def read_all(source, *, max_bytes=10**9, max_images=10**6):
    units = source.units(max_bytes=max_bytes, max_images=max_images)
    return {image.ref.image_id: image for unit in units for image in read_unit(unit)}


def test_members_of_one_key_are_one_image(tmp_path):
    images = draw(6)
    source = open_source(str(write_shards(tmp_path, images)))
    assert (source.format, source.classes, source.skipped) == ("webdataset", ("bottle", "can", "carton"), 0)
    assert [ref.image_id for ref in source.refs[:2]] == ["shard-000.tar/000", "shard-000.tar/002"]
    found = read_all(source)
    for number, drawn in enumerate(images):
        image = found[f"shard-{number % 2:03d}.tar/{number:03d}"]
        assert image.encoded == drawn.encoded
        assert (image.ref.class_name, image.ref.split) == (drawn.class_name, drawn.split)


def test_a_single_shard_is_an_input(tmp_path):
    write_shards(tmp_path, draw(4))
    source = open_source(str(tmp_path / "shard-001.tar"))
    assert [ref.image_id for ref in source.refs] == ["shard-001.tar/001", "shard-001.tar/003"]
    assert source.classes == ("bottle", "can")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"cls": b"7"}, "7"),
        ({"cls": b"tabby cat\n"}, "tabby cat"),
        ({"json": b'{"label": 3}'}, "3"),
        ({"json": b'{"label": 3, "class_name": "cup"}', "cls": b"3"}, "cup"),
        ({"json": b'{"caption": "x", "label": [1, 2]}'}, None),
        ({"json": b"[1, 2]"}, None),
        ({"cls": b""}, None),
        ({}, None),
    ],
)
def test_labels(tmp_path, labels, expected):
    members = [("a.jpg", b"x"), *((f"a.{name}", body) for name, body in labels.items())]
    ref = open_tar(tmp_path, members).refs[0]
    assert (ref.class_name, ref.label) == (expected, None if expected is None else 0)


def test_integer_classes_keep_their_order(tmp_path):
    members = [m for i in range(12) for m in ((f"{i:02d}.jpg", b"x"), (f"{i:02d}.cls", str(i).encode()))]
    source = open_tar(tmp_path, members)
    assert [ref.label for ref in source.refs] == list(range(12))


@pytest.mark.parametrize("label", [("a.json", b'{"label":'), ("a.json", b"\xff\xfe{"), ("a.cls", b"\xff")])
def test_broken_label_fails_the_image_and_no_other(tmp_path, label):
    found = read_all(open_tar(tmp_path, [("a.jpg", b"x"), label, ("b.jpg", b"y")]))
    assert (found["s.tar/a"].error.stage, found["s.tar/a"].error.reason) == ("read", "bad_label")
    assert found["s.tar/b"].encoded == b"y"


def test_members_need_not_be_neighbours_and_labels_may_come_first(tmp_path):
    source = open_tar(tmp_path, [("a.cls", b"x"), ("b.jpg", b"1"), ("b.cls", b"y"), ("a.jpg", b"2")])
    assert {ref.image_id: ref.class_name for ref in source.refs} == {"s.tar/a": "x", "s.tar/b": "y"}


def test_second_image_of_a_key_and_other_files_are_counted(tmp_path):
    members = [("a.jpg", b"1"), ("a.right.png", b"2"), ("a.npy", b"3"), ("a.txt", b"4"), ("._a.jpg", b"5")]
    source = open_tar(tmp_path, members)
    assert [ref.image_id for ref in source.refs] == ["s.tar/a"]
    assert read_all(source)["s.tar/a"].encoded == b"1"
    assert (source.skipped, source.skipped_example) == (3, "s.tar/._a.jpg")


def test_names_with_folders_dots_and_great_length(tmp_path):
    long = "d/" * 60 + "x" * 150
    for number, kind in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        folder = tmp_path / str(number)
        source = open_tar(
            folder, [("./cat.v1/a.seg.JPG", b"1"), (f"{long}.png", b"22"), ("ü.jpg", b"3")], format=kind
        )
        found = {name: image.encoded for name, image in read_all(source).items()}
        assert found == {"s.tar/cat.v1/a": b"1", f"s.tar/{long}": b"22", "s.tar/ü": b"3"}


def test_folders_and_links_inside_are_no_images(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, kind in (("x.jpg", tarfile.DIRTYPE), ("y.jpg", tarfile.SYMTYPE), ("z.jpg", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hosts" if kind == tarfile.SYMTYPE else ""
            archive.addfile(member)
    source = open_source(str(tmp_path))
    assert [ref.image_id for ref in source.refs] == ["s.tar/z"]
    assert (source.skipped, source.skipped_example) == (1, "s.tar/y.jpg")
    assert read_all(source)["s.tar/z"].error.reason == "empty"


def test_one_huge_shard_is_cut_into_units(tmp_path):
    images = draw(20)
    source = open_tar(tmp_path, [m for d in reversed(images) for m in sample_members(d)])
    units = source.units(max_bytes=10**9, max_images=6)
    assert [unit.num_images for unit in units] == [6, 6, 6, 2]
    assert [ref.image_id for ref in units[0].refs] == [f"s.tar/{i:03d}" for i in range(14, 20)]  # stored first
    read = [image for unit in units for image in read_unit(unit)]
    assert [image.ref.image_id for image in read] == [ref.image_id for unit in units for ref in unit.refs]
    assert {image.encoded for image in read} == {drawn.encoded for drawn in images}


class CountingStorage:
    """Bytes where every one tells its position modulo 251; remembers the requested ranges."""

    def __init__(self):
        self.ranges = []

    def read(self, key, *, start, end):
        self.ranges.append((start, end))
        return bytes(i % 251 for i in range(start, end))


def member_at(offset, num_bytes):
    return ImageRef(image_id=f"{offset}", uri="/s.tar", num_bytes=num_bytes, version="", offset=offset)


def test_neighbouring_members_are_read_by_one_request():
    storage = CountingStorage()
    refs = [member_at(512, 100), member_at(1536, 200), member_at(2000 + MAX_GAP_BYTES, 10)]
    read = list(read_members(storage, "s.tar", refs))
    assert storage.ranges == [(512, 1736), (2000 + MAX_GAP_BYTES, 2010 + MAX_GAP_BYTES)]
    assert all(encoded == bytes((ref.offset + i) % 251 for i in range(ref.num_bytes)) for ref, encoded in read)


def test_requests_are_bounded():
    storage = CountingStorage()
    storage.read = lambda key, start, end: storage.ranges.append((start, end)) or b""
    refs = [member_at(512 + i * (4 << 20), (4 << 20) - 512) for i in range(9)] + [
        member_at(1 << 30, 2 * MAX_SPAN_BYTES)
    ]
    list(read_members(storage, "s.tar", refs))
    assert [end - start <= MAX_SPAN_BYTES for start, end in storage.ranges] == [True, True, True, False]


@pytest.mark.parametrize("cut", [0.3, 0.55, 0.8])
def test_truncated_shard_gives_what_is_readable_and_one_failure(tmp_path, cut):
    images = draw(20)
    content = tar_bytes([m for d in images for m in sample_members(d)])
    write_files(tmp_path, {"s.tar": content[: int(cut * len(content))]})
    found = read_all(open_source(str(tmp_path)))
    failed = [image for image in found.values() if image.error]
    assert [(image.error.stage, image.error.reason) for image in failed] == [("read", "truncated_shard")]
    assert "s.tar" in str(failed[0].error)
    good = {image.ref.image_id: image.encoded for image in found.values() if not image.error}
    assert 2 < len(good) < 20
    assert good == {f"s.tar/{i:03d}": images[i].encoded for i in range(len(good))}


def test_shard_cut_between_two_members_is_noticed(tmp_path):
    content = tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2")])
    write_files(tmp_path, {"s.tar": content[: 2 * tarfile.BLOCKSIZE]})
    found = read_all(open_source(str(tmp_path)))
    assert [name for name, image in found.items() if image.error] == ["s.tar/@1024"]
    assert found["s.tar/a"].encoded == b"1"


def test_rubbish_in_the_middle_of_a_shard_is_noticed(tmp_path):
    content = bytearray(tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")]))
    content[1024:1536] = b"\x7f" * 512
    write_files(tmp_path, {"s.tar": bytes(content)})
    found = read_all(open_source(str(tmp_path)))
    assert {name: image.error and image.error.reason for name, image in found.items()} == {
        "s.tar/a": None,
        "s.tar/@1024": "truncated_shard",
    }


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + b"x" * 5000, b"not a tar" * 500, b"short"])
def test_file_that_is_no_tar_is_named_with_the_position(tmp_path, content):
    write_files(tmp_path, {"good.tar": tar_bytes([("a.jpg", b"1")]), "odd.tar": content})
    with pytest.raises(InputError, match=r"odd\.tar: broken tar header at byte 0"):
        open_source(str(tmp_path))


def test_tar_without_images_is_an_empty_input(tmp_path):
    with pytest.raises(InputError, match=r"no image found; looked for images in \.tar"):
        open_tar(tmp_path, [("a.npy", b"1")])


def test_shard_that_shrank_since_the_listing_fails_its_images(tmp_path):
    images = draw(3)
    source = open_tar(tmp_path, [m for d in images for m in sample_members(d)])
    path = tmp_path / "s.tar"
    path.write_bytes(path.read_bytes()[: source.refs[2].offset + 10])
    found = [image.error and image.error.reason for image in read_all(source).values()]
    assert found == [None, None, "truncated"]
    path.unlink()
    assert [image.error.reason for image in read_all(source).values()] == ["missing"] * 3


def test_shards_as_other_tools_write_them_with_all_fields(tmp_path):
    fields = {"image_id": "train/can/1.jpg", "variant": 2, "class_name": "can", "label": 1, "split": "train"}
    jpeg = encode_noise(1, kind="JPEG")
    source = open_tar(tmp_path, [("k_2.cls", b"1"), ("k_2.jpg", jpeg), ("k_2.json", json.dumps(fields).encode())])
    image = read_all(source)["s.tar/k_2"]
    assert (image.encoded, image.ref.class_name, image.ref.split) == (jpeg, "can", "train")
