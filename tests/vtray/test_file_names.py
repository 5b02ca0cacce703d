"""Each image's result has a name of its own, the image's own one where that can be."""

import itertools
import random

import pytest

from vtray.steps.file_names import MAX_NAME_BYTES, FileNames


def names_of(*image_ids, source="jpeg", input_format="folder", output_format="same"):
    """image_id -> name; `source` may be one format for all, or a mapping."""
    names = FileNames.of(image_ids, input_format=input_format, output_format=output_format)
    of = source if isinstance(source, dict) else dict.fromkeys(image_ids, source)
    return {image_id: names.name_of(image_id, source=of[image_id]) for image_id in image_ids}


@pytest.mark.parametrize("name", ["can/01.jpg", "can/A.JPEG", "a b/ü.png", "my%20photo.webp", ".hidden/c..d.jpg"])
def test_a_file_keeps_its_relative_name(name):
    assert names_of(name) == {name: name}


def test_what_cannot_be_written_becomes_png():
    assert names_of("a.gif", source="gif") == {"a.gif": "a.gif.png"}
    assert names_of("a.tif", source="tiff") == {"a.tif": "a.tif"}


def test_a_format_replaces_the_suffix():
    assert names_of("x/a.JPG", "b.tif", output_format="png") == {"x/a.JPG": "x/a.png", "b.tif": "b.png"}
    assert names_of("a.jpeg", output_format="jpeg") == {"a.jpeg": "a.jpeg"}


def test_two_images_that_would_share_a_name_keep_both_suffixes():
    assert names_of("a.jpg", "a.png", output_format="png") == {"a.jpg": "a.jpg.png", "a.png": "a.png"}
    assert names_of("a.jpg", "a.gif", output_format="png") == {"a.jpg": "a.jpg.png", "a.gif": "a.gif.png"}
    assert names_of("a.jpg", "a.png") == {"a.jpg": "a.jpg", "a.png": "a.png"}  # nothing has to change


def test_a_hash_where_both_suffixes_are_taken_too():
    found = names_of("a.jpg", "a.png", "a.jpg.png", output_format="png")
    assert (found["a.png"], found["a.jpg.png"]) == ("a.png", "a.jpg.png")
    assert found["a.jpg"].startswith("a-")
    assert found["a.jpg"].endswith(".png")
    sources = {"a.gif": "gif", "a.gif.png": "png"}
    assert names_of(*sources, source=sources)["a.gif"].startswith("a-")


@pytest.mark.parametrize(
    ("source", "name"),
    [("jpeg", "s.tar/k.jpg"), ("webp", "s.tar/k.webp"), ("tiff", "s.tar/k.tiff"), ("gif", "s.tar/k.png")],
)
def test_ids_without_suffix_get_that_of_their_format(source, name):
    assert names_of("s.tar/k", source=source, input_format="webdataset") == {"s.tar/k": name}


def test_ids_of_tables_become_paths_that_every_file_system_holds():
    found = names_of("a:1", "../b", "c//d.jpg", "%2E%2E/b", input_format="parquet")
    assert found == {
        "a:1": "a%3A1.jpg",
        "../b": "%2E%2E/b.jpg",
        "c//d.jpg": "c/%/d.jpg",
        "%2E%2E/b": "%252E%252E/b.jpg",
    }


@pytest.mark.parametrize("name", ["../../etc/x.jpg", "a//b.jpg", "a/./b.jpg", "a\nb.jpg", "c\\d.jpg"])
def test_paths_that_lead_elsewhere_are_made_safe(name):
    path = names_of(name)[name]
    assert path != name
    assert not {"", ".", ".."} & set(path.split("/"))
    assert path.isprintable()
    assert path.endswith(".jpg")


def test_long_names_are_cut_and_stay_apart():
    ids = [f"{'ü' * 150}{number}.jpg" for number in range(3)]
    found = names_of(*ids).values()
    assert len(set(found)) == 3
    assert all(len(name.encode()) <= MAX_NAME_BYTES and name.endswith(".jpg") for name in found)


@pytest.mark.parametrize("output_format", ["same", "png", "jpeg"])
@pytest.mark.parametrize("input_format", ["folder", "parquet"])
def test_no_two_images_share_a_name_whatever_their_files_hold(input_format, output_format):
    stems = ("a", "b", "a.jpg", "a.png", "a.png.jpg", "x/a")
    everything = [f"{stem}{ending}" for stem in stems for ending in ("", ".jpg", ".png", ".gif", ".JPG", ".jpeg")]
    moments = random.Random(3)
    for _ in range(40):
        ids = sorted(set(moments.sample(everything, 12)))
        sources = {image_id: moments.choice(["jpeg", "png", "gif", "tiff", "webp"]) for image_id in ids}
        found = names_of(*ids, source=sources, input_format=input_format, output_format=output_format)
        assert len(set(found.values())) == len(ids), found
        for one, other in itertools.permutations(found.values(), 2):
            assert not other.startswith(f"{one}/")


def test_names_do_not_depend_on_the_order_of_the_listing():
    ids = ["a.jpg", "a.gif", "a.png", "b.jpg"]
    assert names_of(*ids, output_format="png") == names_of(*reversed(ids), output_format="png")
