import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from pydantic import ValidationError
from torchvision.transforms.v2 import InterpolationMode, functional

from vtray.augment.geometry import Affine, FlipLeftRight, FlipTopBottom, Rotate
from vtray.augment.operator import Operator, Sample
from vtray.seeding import rng_for

INSIDE = slice(40, -40)  # away from what turns in at the border


def smooth_image(height: int = 120, width: int = 160) -> np.ndarray:
    """Random colours that change slowly, as in photographs."""
    small = rng_for("smooth").integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.array(PillowImage.fromarray(small).resize((width, height), PillowImage.Resampling.BICUBIC))


def run(operator: Operator, image: np.ndarray, **params: object) -> np.ndarray:
    return operator.apply(Sample(image=image), dict(params)).image


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second).max())


def four_pixels() -> Sample:
    """Levels 1 2 / 3 4; a box, a mask and a keypoint on the pixel of level 2, top right."""
    levels = np.array([[1, 2], [3, 4]], np.uint8)
    return Sample(
        image=np.repeat(levels[..., None], 3, axis=2),
        boxes=np.array([[1, 0, 2, 1]], np.float32),
        box_labels=np.array([7], np.int32),
        mask=np.array([[0, 9], [0, 0]], np.uint8),
        keypoints=np.array([[1.5, 0.5]], np.float32),
    )


def test_flip_left_right_by_hand():
    flipped = FlipLeftRight(p=1)(four_pixels(), rng_for("flip"))
    assert flipped.image[..., 0].tolist() == [[2, 1], [4, 3]]
    assert flipped.boxes.tolist() == [[0, 0, 1, 1]]
    assert flipped.box_labels.tolist() == [7]
    assert flipped.mask.tolist() == [[9, 0], [0, 0]]
    assert flipped.keypoints.tolist() == [[0.5, 0.5]]
    assert flipped.applied == ({"op": "flip"},)


def test_flip_top_bottom_by_hand():
    flipped = FlipTopBottom(p=1)(four_pixels(), rng_for("flip"))
    assert flipped.image[..., 0].tolist() == [[3, 4], [1, 2]]
    assert flipped.boxes.tolist() == [[1, 1, 2, 2]]
    assert flipped.mask.tolist() == [[0, 0], [0, 9]]
    assert flipped.keypoints.tolist() == [[1.5, 1.5]]


@pytest.mark.parametrize("kind", [FlipLeftRight, FlipTopBottom])
def test_flips_are_half_the_time_by_default_and_undo_themselves(kind):
    rng, sample = rng_for("half"), four_pixels()
    applied = sum(len(kind()(sample, rng).applied) for _ in range(400))
    assert 160 <= applied <= 240  # 4 standard deviations of 10
    twice = kind(p=1)(kind(p=1)(sample, rng), rng)
    np.testing.assert_array_equal(twice.image, sample.image)
    assert twice.boxes.tolist() == sample.boxes.tolist()


def test_flips_are_pillows():
    image = smooth_image()
    pillow = PillowImage.fromarray(image)
    left_right = pillow.transpose(PillowImage.Transpose.FLIP_LEFT_RIGHT)
    top_bottom = pillow.transpose(PillowImage.Transpose.FLIP_TOP_BOTTOM)
    np.testing.assert_array_equal(run(FlipLeftRight(), image), left_right)
    np.testing.assert_array_equal(run(FlipTopBottom(), image), top_bottom)


def test_a_quarter_turn_by_hand():
    turned = Rotate().apply(four_pixels(), {"angle": 90})  # counter-clockwise: the top right pixel goes top left
    assert turned.image[..., 0].tolist() == [[2, 4], [1, 3]]
    np.testing.assert_allclose(turned.boxes, [[0, 0, 1, 1]], atol=1e-6)
    assert turned.mask.tolist() == [[9, 0], [0, 0]]
    np.testing.assert_allclose(turned.keypoints, [[0.5, 0.5]], atol=1e-6)


def test_no_turn_and_no_warp_keep_every_pixel():
    image = smooth_image()
    np.testing.assert_array_equal(run(Rotate(), image, angle=0), image)
    nothing = {"angle": 0, "translate_px": [0, 0], "scale": 1, "shear": 0}
    np.testing.assert_array_equal(run(Affine(), image, **nothing), image)


@pytest.mark.parametrize("angle", [-25, 10, 30])
def test_rotate_is_pillows_within_one_level(angle):
    image = smooth_image()
    expected = np.asarray(PillowImage.fromarray(image).rotate(angle, PillowImage.Resampling.BILINEAR))
    turned = run(Rotate(), image, angle=angle)
    assert largest_difference(turned[INSIDE, INSIDE], expected[INSIDE, INSIDE]) <= 1


@pytest.mark.parametrize(("angle", "scale", "shear"), [(15, 1.2, 0), (0, 0.8, 10), (-15, 0.9, -10)])
def test_affine_is_torchvisions_within_two_levels(angle, scale, shear):
    image = smooth_image()
    warped = run(Affine(), image, angle=angle, translate_px=[5, -3], scale=scale, shear=shear)
    expected = functional.affine(
        torch.from_numpy(image).permute(2, 0, 1),
        angle=-angle,  # torchvision turns clockwise
        translate=[5, -3],
        scale=scale,
        shear=[shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    assert largest_difference(warped[INSIDE, INSIDE], expected.permute(1, 2, 0).numpy()[INSIDE, INSIDE]) <= 2


@pytest.mark.parametrize(
    ("border", "column"),
    [("constant", [200, 200, 1, 3]), ("edge", [1, 1, 1, 3]), ("reflect", [5, 3, 1, 3])],  # reflect repeats no 1
)
def test_borders_by_hand(border, column):
    image = np.array([1, 3, 5, 7], np.uint8).reshape(4, 1, 1).repeat(3, axis=2)
    operator = Affine(border=border, fill=(200, 200, 200))
    shifted = run(operator, image, angle=0, translate_px=[0, 2], scale=1, shear=0)
    assert shifted[:, 0, 0].tolist() == column


def test_boxes_are_clipped_and_empty_ones_dropped_with_their_label():
    sample = Sample(
        image=np.zeros((10, 10, 3), np.uint8),
        boxes=np.array([[0, 0, 4, 4], [2, 2, 8, 8]], np.float32),
        box_labels=np.array([1, 2], np.int32),
        keypoints=np.array([[1, 1]], np.float32),
    )
    moved = Affine().apply(sample, {"angle": 0, "translate_px": [-5, 0], "scale": 1, "shear": 0})
    assert moved.boxes.tolist() == [[0, 2, 3, 8]]
    assert moved.box_labels.tolist() == [2]
    assert moved.keypoints.tolist() == [[-4, 1]]  # keypoints keep their number, even outside


def test_a_turned_box_becomes_the_hull_of_its_corners():
    sample = Sample(
        image=np.zeros((20, 20, 3), np.uint8),
        boxes=np.array([[8, 8, 12, 12]], np.float32),
        box_labels=np.array([0], np.int32),
    )
    half_diagonal = 2 * np.sqrt(2)  # a square of side 4 on its corner
    turned = Rotate().apply(sample, {"angle": 45}).boxes[0]
    np.testing.assert_allclose(turned, [10 - half_diagonal] * 2 + [10 + half_diagonal] * 2, atol=1e-5)


def test_draws_stay_in_their_ranges():
    rng = rng_for("ranges")
    for _ in range(200):
        assert -30 <= Rotate().draw(rng, 100, 200)["angle"] <= 30
        drawn = Affine().draw(rng, 100, 200)
        assert abs(drawn["translate_px"][0]) <= 20
        assert abs(drawn["translate_px"][1]) <= 10
        assert 0.8 <= drawn["scale"] <= 1.2
        assert abs(drawn["shear"]) <= 10


def test_bad_arguments_say_what_is_allowed():
    with pytest.raises(ValidationError, match="outside -360 to 360"):
        Rotate(degrees=(0, 400))
    with pytest.raises(ValidationError, match="swap them"):
        Rotate(degrees=(30, -30))
    with pytest.raises(ValidationError, match="outside -89 to 89"):
        Affine(shear=(0, 90))
    with pytest.raises(ValidationError, match="'constant', 'reflect' or 'edge'"):
        Affine(border="wrap")
