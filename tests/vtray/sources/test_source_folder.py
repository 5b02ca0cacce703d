import os
from pathlib import Path

import pytest
from source_builders import draw, write_files, write_folder

from vtray.errors import InputError
from vtray.sources import open_source

FIXTURES = Path(os.environ.get("VTRAY_FIXTURES", Path(__file__).parents[4] / "shared" / "fixtures"))


def described(source):
    return {ref.image_id: (ref.split, ref.class_name, ref.label) for ref in source.refs}


def test_class_folders(tmp_path):
    write_files(tmp_path, {"dog/1.jpg": b"1", "cat/2.JPG": b"22", "cat/deep/er/3.png": b"333"})
    source = open_source(str(tmp_path))
    assert (source.format, source.classes) == ("folder", ("cat", "dog"))
    assert described(source) == {
        "cat/2.JPG": (None, "cat", 0),
        "cat/deep/er/3.png": (None, "cat", 0),
        "dog/1.jpg": (None, "dog", 1),
    }
    assert [(ref.uri, ref.num_bytes) for ref in source.refs][1] == (f"{tmp_path}/cat/deep/er/3.png", 3)


def test_flat_folder_is_unlabelled(tmp_path):
    write_files(tmp_path, {"b.jpg": b"1", "a.webp": b"1"})
    source = open_source(str(tmp_path))
    assert source.classes == ()
    assert described(source) == {"a.webp": (None, None, None), "b.jpg": (None, None, None)}


def test_split_folders(tmp_path):
    write_files(tmp_path, {"train/cat/1.jpg": b"1", "val/dog/2.jpg": b"1", "README": b"", "labels.csv": b""})
    assert described(open_source(str(tmp_path))) == {
        "train/cat/1.jpg": ("train", "cat", 0),
        "val/dog/2.jpg": ("val", "dog", 1),
    }


@pytest.mark.parametrize(
    "files",
    [
        {"train/1.jpg": b"", "car/2.jpg": b""},  # a class called train
        {"train/deep/1.jpg": b"", "car/2.jpg": b""},  # not all first-level entries hold folders
        {"red/small/1.jpg": b"", "blue/large/2.jpg": b""},  # nothing called train
    ],
)
def test_first_folder_is_the_class_unless_all_looks_like_splits(tmp_path, files):
    source = open_source(str(write_files(tmp_path, files)))
    assert {ref.class_name for ref in source.refs} == {key.split("/")[0] for key in files}
    assert {ref.split for ref in source.refs} == {None}


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("split", ("train", "cat")), ("class", (None, "train")), ("flat", (None, None)), ("auto", ("train", "cat"))],
)
def test_layout_can_be_forced(tmp_path, layout, expected):
    write_files(tmp_path, {"train/cat/1.jpg": b"1"})
    ref = open_source(str(tmp_path), layout=layout).refs[0]
    assert (ref.split, ref.class_name) == expected


def test_layout_split_takes_unlabelled_images_of_a_split(tmp_path):
    write_files(tmp_path, {"train/1.jpg": b"1", "2.jpg": b""})
    assert described(open_source(str(tmp_path), layout="split")) == {
        "2.jpg": (None, None, None),
        "train/1.jpg": ("train", None, None),
    }


def test_other_files_are_skipped_and_counted(tmp_path):
    rubbish = {
        ".DS_Store": b"",
        "cat/._1.jpg": b"",
        ".git/x.jpg": b"",
        "__MACOSX/cat/1.jpg": b"",
        "cat/Thumbs.db": b"",
        "notes.txt": b"",
        "cat/1.heic": b"",
    }
    source = open_source(str(write_files(tmp_path, rubbish | {"cat/1.jpg": b"1"})))
    assert [ref.image_id for ref in source.refs] == ["cat/1.jpg"]
    assert source.skipped == len(rubbish)
    assert source.skipped_example in rubbish


def test_file_names_of_any_kind(tmp_path):
    names = ["_DSC1.jpg", "a b.jpg", "ä%20#?.jpg", "100%.jpg", "x.tar.jpg", "日本.png", "a'b\".jpg"]
    source = open_source(str(write_files(tmp_path, dict.fromkeys(names, b"1"))))
    assert [ref.image_id for ref in source.refs] == sorted(names)


def test_a_single_image_is_an_input(tmp_path):
    source = open_source(str(write_files(tmp_path, {"one.jpg": b"1", "two.jpg": b"2"}) / "one.jpg"))
    assert [ref.image_id for ref in source.refs] == ["one.jpg"]


def test_relative_addresses_become_absolute(tmp_path, monkeypatch):
    write_folder(tmp_path / "in", draw(2))
    monkeypatch.chdir(tmp_path)
    one, other = open_source("in"), open_source((tmp_path / "in").as_uri())
    assert one == other
    assert all(ref.uri.startswith(f"{tmp_path}/in/") for ref in one.refs)


def test_linked_folder_is_an_input_and_a_loop_ends(tmp_path):
    write_files(tmp_path / "real", {"cat/1.jpg": b"1"})
    (tmp_path / "real" / "cat" / "up").symlink_to(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [ref.image_id for ref in open_source(str(tmp_path / "link")).refs] == ["cat/1.jpg"]


@pytest.mark.fixtures
def test_every_messy_file_is_listed():
    if not FIXTURES.is_dir():
        pytest.skip("needs the real images; set VTRAY_FIXTURES to their folder")
    source = open_source(str(FIXTURES / "messy"))
    assert len(source.refs) == 55
    assert source.skipped == 0


def test_folder_without_images_says_what_was_looked_for_and_seen(tmp_path):
    write_files(tmp_path, {"a.txt": b"", "b.txt": b"", "c.HEIC": b"", "noext": b""})
    with pytest.raises(
        InputError, match=r"no image found; looked for .*\.jpg.*saw instead: \.txt \(2\), .*\.heic"
    ):
        open_source(str(tmp_path))
