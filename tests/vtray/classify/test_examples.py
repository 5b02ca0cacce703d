"""Splits of labelled images, and the faults that end a training before it starts."""

import pytest

from vtray.classify.examples import Examples, counts_by_class, source_id, split_of
from vtray.errors import InputError
from vtray.sources import ImageRef, Source


def ref(image_id, label, split=None):
    return ImageRef(
        image_id=image_id,
        uri=f"/images/{image_id}",
        num_bytes=10,
        version="1",
        class_name="ab"[label] if label is not None else None,
        label=label,
        split=split,
    )


def source_of(*refs, classes=("a", "b")):
    return Source(uri="/images", format="folder", classes=classes, version="0", refs=refs)


def split(source, **options):
    return Examples.of(source, **{"val_fraction": 0.2, "seed": 0} | options)


def test_splits_are_taken_by_their_usual_names():
    refs = [
        ref(f"{name}/{label}", label, name) for name in ("train", "valid", "test", "showroom") for label in (0, 1)
    ]
    examples = split(source_of(*refs))
    assert [len(each) for each in (examples.train, examples.val, examples.test)] == [2, 2, 2]
    assert not examples.carved


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "train"), ("Validation", "val"), ("test", "test"), ("showroom", None)]
)
def test_names_of_splits(name, expected):
    assert split_of(name) == expected


def test_without_a_val_split_each_class_gives_its_fraction():
    refs = [ref(f"{label}/{number}", label) for label in (0, 1) for number in range(20)]
    examples = split(source_of(*refs))
    assert examples.carved
    assert counts_by_class(examples.val, 2) == [4, 4]
    assert counts_by_class(examples.train, 2) == [16, 16]
    assert not {each.image_id for each in examples.train} & {each.image_id for each in examples.val}


def test_the_carved_images_stay_when_others_come():
    refs = [ref(f"{label}/{number}", label) for label in (0, 1) for number in range(20)]
    before = {each.image_id for each in split(source_of(*refs)).val}
    more = [*refs, *(ref(f"0/new{number}", 0) for number in range(3))]
    after = {each.image_id for each in split(source_of(*more)).val}
    assert len(before - after) <= 3


def test_variants_of_one_image_stay_together_and_only_the_image_itself_validates():
    refs = [
        ref(f"{label}/{number}.jpg{variant}", label)
        for label in (0, 1)
        for number in range(10)
        for variant in ("", "#v1", "#v2")
    ]
    examples = split(source_of(*refs))
    assert not {source_id(each) for each in examples.train} & {source_id(each) for each in examples.val}
    assert not any("#v" in each.image_id for each in examples.val)
    assert len(examples.train) == 3 * 16
    assert len(examples.val) == 4


def test_images_without_a_label_are_refused():
    with pytest.raises(InputError, match="1 of 2 images have no label, such as x"):
        split(source_of(ref("a", 0), ref("x", None)))


def test_one_class_is_refused():
    with pytest.raises(InputError, match=r"one class only \(a\); a classifier needs two"):
        split(source_of(ref("x", 0), classes=("a",)))


def test_classes_that_are_missing_somewhere_are_all_named():
    refs = [ref("1", 0, "train"), ref("2", 1, "val")]
    with pytest.raises(InputError, match="train: no images of b; val: no images of a; every class needs"):
        split(source_of(*refs))


def test_broken_images_are_left_out_and_an_emptied_class_is_refused():
    refs = [ref(f"{label}/{number}", label) for label in (0, 1) for number in range(3)]
    examples = split(source_of(*refs))
    lost = examples.train[0].image_id
    assert lost not in {each.image_id for each in examples.without(frozenset([lost])).train}
    with pytest.raises(InputError, match="train: no images of a"):
        examples.without(frozenset(each.image_id for each in examples.train if each.label == 0))
