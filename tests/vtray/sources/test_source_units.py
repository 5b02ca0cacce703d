import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from vtray.sources import ImageRef, Unit, decode_units, encode_units
from vtray.sources.labels import class_name_of, label_refs, sort_classes
from vtray.sources.unit import cut_units


def make_refs(sizes):
    return [
        ImageRef(image_id=f"{i:03d}.jpg", uri=f"/in/{i:03d}.jpg", num_bytes=size, version="v1")
        for i, size in enumerate(sizes)
    ]


def cut(refs, *, max_bytes=100, max_images=1000):
    return cut_units(refs, format="folder", max_bytes=max_bytes, max_images=max_images)


@pytest.mark.parametrize(
    ("sizes", "bounds", "expected"),
    [
        ([40, 40, 20, 1], {}, [[40, 40, 20], [1]]),
        ([40, 500, 40], {}, [[40], [500], [40]]),
        ([100, 100], {}, [[100], [100]]),
        ([1] * 5, {"max_images": 2}, [[1, 1], [1, 1], [1]]),
        ([0] * 3, {"max_bytes": 1}, [[0, 0, 0]]),
        ([], {}, []),
    ],
)
def test_units_close_before_they_pass_a_bound(sizes, bounds, expected):
    units = cut(make_refs(sizes), **bounds)
    assert [[ref.num_bytes for ref in unit.refs] for unit in units] == expected
    assert [unit.unit_id for unit in units] == [f"{i:05d}" for i in range(len(expected))]
    assert [(unit.num_images, unit.num_bytes) for unit in units] == [(len(x), sum(x)) for x in expected]


def test_units_do_not_depend_on_the_order_of_the_listing():
    refs = make_refs(range(1, 60))
    shuffled = random.Random(0).sample(refs, len(refs))
    assert shuffled != refs
    assert cut(shuffled) == cut(refs)
    assert encode_units(cut(shuffled)) == encode_units(cut(refs))


def test_bounds_must_be_positive():
    with pytest.raises(ValueError, match="max_bytes 0 and max_images 5 must be at least 1"):
        cut([], max_bytes=0, max_images=5)


@pytest.mark.parametrize(
    "change",
    [{"image_id": "x"}, {"num_bytes": 9}, {"version": "v2"}, {"class_name": "c"}, {"label": 4}, {"split": "val"}],
)
def test_digest_tells_what_a_unit_holds(change):
    unit = cut(make_refs([1, 2]))[0]
    changed = replace(unit, refs=(unit.refs[0], replace(unit.refs[1], **change)))
    assert len(unit.digest) == 64
    assert changed.digest != unit.digest


def test_digest_does_not_tell_where_or_which_number():
    unit = cut(make_refs([1, 2]))[0]
    moved = replace(unit, unit_id="00007", refs=tuple(replace(ref, uri=f"s3://b{ref.uri}") for ref in unit.refs))
    assert moved.digest == unit.digest


def full_units():
    inside = ImageRef(
        image_id="a.parquet:3",
        uri="s3://b/ä.parquet",
        num_bytes=3 << 30,
        version='"x"',
        class_name="ü",
        label=2,
        split="val",
        row_group=1,
        row=3,
    )
    member = ImageRef(image_id="s/x", uri="/s.tar", num_bytes=1, version="", offset=5 << 30, fault="bad_label")
    return [*cut(make_refs([50, 60])), Unit(unit_id="00002", format="parquet", refs=(inside, member))]


def test_units_travel_as_flat_text():
    for unit in full_units():
        row = unit.to_dict()
        assert all(isinstance(value, str) for value in row.values())
        assert Unit.from_dict(json.loads(json.dumps(row))) == unit


def test_units_are_stored_as_parquet():
    content = encode_units(full_units())
    assert content == encode_units(full_units())
    assert decode_units(content) == full_units()
    assert decode_units(encode_units([])) == []


def test_labels_are_indices_into_sorted_classes():
    names = ["dog", None, "cat", "dog"]
    refs = [replace(ref, class_name=name) for ref, name in zip(make_refs([1] * 4), names, strict=True)]
    classes, labelled = label_refs(refs)
    assert classes == ("cat", "dog")
    assert [ref.label for ref in labelled] == [1, None, 0, 1]


def test_numbers_are_sorted_as_numbers_only_if_all_are():
    assert sort_classes(["10", "9", "100"]) == ("9", "10", "100")
    assert sort_classes(["10", "9", "x"]) == ("10", "9", "x")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        *[(1, "b"), ("1", "b"), (" 0\n", "a"), (5, "5"), (1.0, "b"), ("cat", "cat"), (-1, "-1")],
        *[("", None), (None, None), (float("nan"), None), (0.5, None), (True, None), ([1], None)],
    ],
)
def test_class_name_of_a_stored_label(label, expected):
    assert class_name_of(label, ("a", "b")) == expected


def test_import_loads_nothing_heavy():
    heavy = ("pyarrow", "s3fs", "fsspec", "numpy", "PIL", "ray", "torch", "cv2")
    code = f"import sys, vtray.sources; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    )
