"""What holds for every operator of the catalogue, whatever it does."""

import importlib
import inspect
import json
import pickle
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from vtray.augment.catalogue import OPERATORS, AnyOperator
from vtray.augment.control import OneOf, SomeOf, Sometimes
from vtray.augment.operator import ImageOperator, Operator, Sample
from vtray.augment.reference import FAMILIES
from vtray.seeding import rng_for

CHILDREN = [{"op": "blur"}, {"op": "flip", "p": 1}]
REQUIRED: dict[type[Operator], dict[str, Any]] = {
    Sometimes: {"operators": CHILDREN},
    OneOf: {"operators": CHILDREN},
    SomeOf: {"operators": CHILDREN, "num": 2},
}
CONTROLS = tuple(REQUIRED)
SIZES = [(1, 1), (1, 5), (5, 1), (3, 2000), (40, 61)]

DRAWING = [kind for kind in OPERATORS if kind not in CONTROLS]  # control operators have no record of their own
IMAGE = [kind for kind in DRAWING if issubclass(kind, ImageOperator)]
GEOMETRIC = [kind for kind in DRAWING if kind not in IMAGE]


def name_of(kind: type[Operator]) -> str:
    return kind.model_fields["op"].default


every_operator = pytest.mark.parametrize("kind", OPERATORS, ids=name_of)
drawing_operators = pytest.mark.parametrize("kind", DRAWING, ids=name_of)
image_operators = pytest.mark.parametrize("kind", IMAGE, ids=name_of)
geometric_operators = pytest.mark.parametrize("kind", GEOMETRIC, ids=name_of)


def make(kind: type[Operator], **fields: Any) -> Operator:
    return kind.model_validate({"p": 1} | REQUIRED.get(kind, {}) | fields)


def random_image(height: int, width: int) -> np.ndarray:
    image = rng_for("image", height, width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def full_sample(height: int, width: int) -> Sample:
    return Sample(
        image=random_image(height, width),
        boxes=np.array([[0, 0, width, height], [0, 0, 1, 1]], np.float32),
        box_labels=np.array([3, 4], np.int32),
        mask=np.ones((height, width), np.uint8),
        keypoints=np.array([[width / 2, height / 2]], np.float32),
    )


def test_the_catalogue_holds_every_operator_of_its_modules():
    names = [name for names in FAMILIES.values() for name in names]
    modules = [importlib.import_module(f"vtray.augment.{name}") for name in names]
    written = {
        kind
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Operator) and "op" in kind.__annotations__ and kind is not Operator
    }
    assert set(OPERATORS) == written
    assert len(OPERATORS) == 27
    assert len({name_of(kind) for kind in OPERATORS}) == 27
    assert (len(IMAGE), len(GEOMETRIC), len(CONTROLS)) == (16, 8, 3)


@every_operator
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_gives_a_good_image_and_never_writes_into_the_input(kind, size):
    sample = full_sample(*size)
    before = sample.image.copy()
    result = make(kind)(sample, rng_for("any size"))
    assert result.image.dtype == np.uint8
    assert result.image.ndim == 3
    assert result.image.shape[2] == 3
    assert min(result.image.shape) >= 1
    assert result.image.flags.c_contiguous
    assert result.mask.shape == result.image.shape[:2]
    assert len(result.boxes) == len(result.box_labels)
    assert result.boxes.dtype == np.float32
    assert result.keypoints.dtype == np.float32
    np.testing.assert_array_equal(sample.image, before)


@every_operator
def test_the_same_generator_gives_the_same_bytes_and_record(kind):
    first, again = (make(kind)(full_sample(40, 61), rng_for("same", 7)) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.applied == again.applied


@every_operator
def test_memory_layout_does_not_matter(kind):
    image = random_image(40, 61)
    wide = np.zeros((80, 122, 3), np.uint8)
    wide[::2, ::2] = image
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    expected = make(kind)(Sample(image=image), rng_for("layout")).image
    for other in (wide[::2, ::2], mirrored, np.asfortranarray(image)):
        assert not other.flags.c_contiguous
        np.testing.assert_array_equal(make(kind)(Sample(image=other), rng_for("layout")).image, expected)


@drawing_operators
def test_the_record_as_json_redoes_the_pixels(kind):
    operator, sample = make(kind), full_sample(40, 61)
    result = operator(sample, rng_for("record"))
    (record,) = json.loads(json.dumps(result.applied))
    assert record.pop("op") == operator.op
    np.testing.assert_array_equal(operator.apply(sample, record).image, result.image)


@every_operator
def test_p_zero_returns_the_sample_itself_without_a_record(kind):
    sample = full_sample(4, 5)
    assert make(kind, p=0)(sample, rng_for("p")) is sample


@every_operator
def test_yaml_and_pickle_round_trips(kind):
    operator = make(kind)
    text = yaml.safe_dump(operator.model_dump(mode="json"))
    assert TypeAdapter(AnyOperator).validate_python(yaml.safe_load(text)) == operator
    assert pickle.loads(pickle.dumps(operator)) == operator


@every_operator
def test_a_bad_p_and_an_unknown_field_are_refused(kind):
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        make(kind, p=1.5)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        make(kind, probability=0.5)


@every_operator
def test_every_field_is_described_and_operators_are_frozen(kind):
    assert all(field.description for name, field in kind.model_fields.items() if name != "op")
    assert inspect.getdoc(kind) != inspect.getdoc(Operator)
    with pytest.raises(ValidationError, match="frozen"):
        make(kind).p = 0.5


@image_operators
def test_image_operators_leave_everything_but_the_image(kind):
    sample = full_sample(40, 61)
    result = make(kind)(sample, rng_for("rest"))
    assert result.image.shape == sample.image.shape
    assert result.boxes is sample.boxes
    assert result.mask is sample.mask
    assert result.keypoints is sample.keypoints


@geometric_operators
@pytest.mark.parametrize("seed", range(8))
def test_a_marker_is_found_where_its_box_mask_and_keypoint_are(kind, seed):
    sample = marked_sample()
    size = {"size_px": 96} if "size_px" in kind.model_fields else {}
    result = make(kind, **size)(sample, rng_for("marker", seed))
    bright = result.image[..., 0] > 127
    assert np.mean(bright != (result.mask > 0)) < 0.02
    if len(result.boxes) == 0:
        assert len(result.box_labels) == 0
        assert not bright.any()
        return
    assert result.box_labels.tolist() == [9]
    rows, columns = np.nonzero(bright)
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    np.testing.assert_allclose(result.boxes[0], found, atol=2)
    is_cut = bright[[0, -1]].any() or bright[:, [0, -1]].any()
    if not is_cut:
        centre = columns.mean() + 0.5, rows.mean() + 0.5
        np.testing.assert_allclose(result.keypoints[0], centre, atol=1)


def marked_sample() -> Sample:
    """A white block from (44, 12) to (64, 27) on black, 60 x 90."""
    mask = np.zeros((60, 90), np.uint8)
    mask[12:27, 44:64] = 255
    return Sample(
        image=np.repeat(mask[..., None], 3, axis=2),
        boxes=np.array([[44, 12, 64, 27]], np.float32),
        box_labels=np.array([9], np.int32),
        mask=mask,
        keypoints=np.array([[54, 19.5]], np.float32),
    )
