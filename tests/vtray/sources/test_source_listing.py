import os

import pytest
from source_builders import draw, write_csv, write_files

from vtray.errors import InputError
from vtray.sources import listing, open_source, read_unit


def read_all(source):
    return {i.ref.image_id: i for unit in source.units(max_bytes=10**9, max_images=10) for i in read_unit(unit)}


def test_relative_and_absolute_addresses(tmp_path):
    images = draw(3)
    write_files(tmp_path / "in", {f"pictures/{images[0].name}": images[0].encoded, "b.png": images[1].encoded})
    write_files(tmp_path / "elsewhere", {"c d.png": images[2].encoded})
    rows = [
        ("pictures/../pictures/000.png", "x", "train"),
        (f"{tmp_path}/in/b.png", "y", ""),
        ((tmp_path / "elsewhere" / "c d.png").as_uri(), "", "val"),
    ]
    source = open_source(str(write_csv(tmp_path / "in" / "list.csv", ("uri", "label", "split"), rows)))
    assert (source.format, source.classes) == ("list", ("x", "y"))
    other = f"{tmp_path}/elsewhere/c d.png".lstrip("/")
    assert {ref.image_id: (ref.class_name, ref.split) for ref in source.refs} == {
        "pictures/000.png": ("x", "train"),
        "b.png": ("y", None),
        other: (None, "val"),
    }
    found = read_all(source)
    assert [found[name].encoded for name in ("pictures/000.png", "b.png", other)] == [d.encoded for d in images]
    assert all(ref.num_bytes > 0 and ref.version for ref in source.refs)


@pytest.mark.parametrize("column", ["uri", "url", "path"])
def test_other_columns_in_any_order_and_a_byte_order_mark(tmp_path, column):
    text = f"\ufeffauthor,class_name,{column},label\r\nme,cup,a.jpg,3\r\n"
    write_files(tmp_path, {"list.csv": text.encode(), "a.jpg": b"1"})
    ref = open_source(str(tmp_path / "list.csv")).refs[0]
    assert (ref.image_id, ref.class_name) == ("a.jpg", "cup")


def test_image_id_column_allows_one_file_twice(tmp_path):
    write_files(tmp_path, {"a.jpg": b"1"})
    rows = [("a.jpg", "one"), ("a.jpg", "two")]
    source = open_source(str(write_csv(tmp_path / "l.csv", ("uri", "image_id"), rows)))
    assert [ref.image_id for ref in source.refs] == ["one", "two"]
    assert [image.encoded for image in read_all(source).values()] == [b"1", b"1"]


def test_missing_and_forbidden_files_fail_alone(tmp_path):
    write_files(tmp_path, {"a.jpg": b"1", "b.jpg": b"2", "empty.jpg": b"", "folder/x": b""})
    names = ["a.jpg", "b.jpg", "empty.jpg", "gone.jpg", "no/folder.jpg", "folder"]
    source = open_source(str(write_csv(tmp_path / "l.csv", ("uri",), [(name,) for name in names])))
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if "pytest" in str(folder):
            folder.chmod(0o755)
    (tmp_path / "b.jpg").chmod(0)
    euid = os.geteuid()
    if euid == 0:
        os.seteuid(65534)
    try:
        found = read_all(source)
    finally:
        os.seteuid(euid)
    reasons = {name: image.error.reason for name, image in found.items() if image.error}
    assert reasons == {
        "b.jpg": "denied",
        "empty.jpg": "empty",
        "gone.jpg": "missing",
        "no/folder.jpg": "missing",
        "folder": "missing",
    }
    assert all(image.error.stage == "read" for image in found.values() if image.error)
    assert found["a.jpg"].encoded == b"1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,cat\nb.jpg,dog\n", r"first line must name a column uri.*it has: a\.jpg, cat"),
        ("", r"first line must name a column uri.*it has: nothing"),
        ("uri,label\n,cat\n", r"line 2: the uri is empty"),
        ("uri\na.jpg\nhttp://x/y.jpg\n", r"line 3: http://x/y\.jpg: only local paths, file:// and s3://"),
        ("uri\na.jpg\nb.jpg\n./a.jpg\n", r"a\.jpg is listed twice: .*line 2 and .*line 4"),
        ('uri\n"' + "x" * 200_000 + "\n", r"not CSV"),
        ("uri,label\n", r"no image found; looked for rows"),
    ],
)
def test_wrong_lists_are_one_clear_line(tmp_path, text, message):
    write_files(tmp_path, {"list.csv": text.encode()})
    with pytest.raises(InputError, match=message) as caught:
        open_source(str(tmp_path / "list.csv"))
    assert len(str(caught.value).splitlines()) == 1


def test_list_in_another_encoding_is_refused(tmp_path):
    write_files(tmp_path, {"list.csv": "uri\nä.jpg\n".encode("latin-1")})
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 4\)"):
        open_source(str(tmp_path / "list.csv"))


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    files = [f"{folder}/{i}.jpg" for folder in ("a", "a/deep", "a-b", "c") for i in range(3)]
    write_files(tmp_path, dict.fromkeys([*files, "not/listed.jpg"], b"1"))
    listed = []
    real = listing.storage_for
    monkeypatch.setattr(listing, "storage_for", lambda uri: listed.append(uri) or real(uri))
    source = open_source(str(write_csv(tmp_path / "l.csv", ("uri",), [(name,) for name in files])))
    assert listed == [f"{tmp_path}/a-b", f"{tmp_path}/a", f"{tmp_path}/c"]
    assert all(ref.num_bytes == 1 for ref in source.refs)


def test_very_many_folders_are_listed_by_what_they_share():
    uris = [f"s3://b/x/{i}/1.jpg" for i in range(300)] + ["s3://b2/y/1.jpg"] + [f"/d/e{i}/1.jpg" for i in range(9)]
    assert listing._folders(uris) == ["/d", "s3://b/x", "s3://b2/y"]


def test_version_changes_with_a_listed_file(tmp_path):
    write_files(tmp_path, {"a.jpg": b"1"})
    path = str(write_csv(tmp_path / "l.csv", ("uri",), [("a.jpg",)]))
    before = open_source(path)
    write_files(tmp_path, {"a.jpg": b"12"})
    after = open_source(path)
    assert before.version != after.version
    units = [source.units(max_bytes=10, max_images=10)[0] for source in (before, after)]
    assert units[0].digest != units[1].digest
