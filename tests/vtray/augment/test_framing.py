import numpy as np
import pytest
from PIL import Image as PillowImage
from pydantic import ValidationError
from torchvision.transforms.v2 import CenterCrop, functional
from torchvision.transforms.v2 import Resize as TorchvisionResize

from vtray.augment.framing import CentreCrop, Pad, RandomResizedCrop, Resize
from vtray.augment.operator import Operator, Sample
from vtray.seeding import rng_for

BILINEAR = PillowImage.Resampling.BILINEAR
SIZES = [(50, 90), (31, 17), (1, 5), (300, 20), (3, 500)]


def random_image(height: int, width: int) -> np.ndarray:
    return rng_for("image", height, width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def run(operator: Operator, image: np.ndarray) -> tuple[np.ndarray, dict]:
    result = operator(Sample(image=image), rng_for("framing", str(image.shape)))
    return result.image, result.applied[0]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("size_px", [24, (10, 40)], ids=str)
def test_random_resized_crop_is_redone_from_its_record_by_pillow_and_torchvision(size, size_px):
    image = random_image(*size)
    cropped, record = run(RandomResizedCrop(size_px=size_px), image)
    left, top, right, bottom = record["box"]
    height, width = record["height"], record["width"]
    assert (height, width) == ((24, 24) if size_px == 24 else size_px)
    pillow = PillowImage.fromarray(image)
    np.testing.assert_array_equal(
        cropped, pillow.crop((left, top, right, bottom)).resize((width, height), BILINEAR)
    )
    theirs = functional.resized_crop(pillow, top, left, bottom - top, right - left, [height, width])
    np.testing.assert_array_equal(cropped, theirs)


def test_random_resized_crop_of_the_whole_at_the_same_size_keeps_every_pixel():
    image = random_image(30, 40)
    cropped, record = run(RandomResizedCrop(size_px=(30, 40), area=(1, 1), ratio=(4 / 3, 4 / 3)), image)
    assert record["box"] == [0, 0, 40, 30]
    np.testing.assert_array_equal(cropped, image)


def test_random_resized_crop_moves_annotations_by_hand():
    sample = Sample(
        image=random_image(10, 20),
        boxes=np.array([[4, 2, 8, 6], [0, 0, 2, 2]], np.float32),
        box_labels=np.array([5, 6], np.int32),
        mask=np.eye(10, 20, dtype=np.uint8),
        keypoints=np.array([[6, 4]], np.float32),
    )
    result = RandomResizedCrop().apply(sample, {"box": [4, 3, 8, 7], "width": 8, "height": 16})
    assert result.boxes.tolist() == [[0, 0, 8, 12]]  # 4 wide doubled, its lower 3 rows times 4
    assert result.box_labels.tolist() == [5]
    assert result.keypoints.tolist() == [[4, 4]]
    diagonal = np.eye(4, k=-1, dtype=np.uint8)  # columns from 4 and rows from 3: one below the diagonal
    np.testing.assert_array_equal(result.mask, diagonal.repeat(4, axis=0).repeat(2, axis=1))


def test_the_lecture_ranges_are_the_defaults():
    crop = RandomResizedCrop()
    assert crop.area == (0.08, 1)
    assert crop.ratio == (3 / 4, 4 / 3)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resize_of_the_shorter_side_is_torchvisions(size):
    image = random_image(*size)
    resized, record = run(Resize(size_px=20), image)
    assert (record["height"], record["width"]) == resized.shape[:2]
    theirs = TorchvisionResize(20)(PillowImage.fromarray(image))
    np.testing.assert_array_equal(resized, theirs)


@pytest.mark.parametrize("size", [(50, 90), (90, 50), (20, 41)], ids=str)
def test_the_longest_side_is_torchvisions_max_size(size):
    image = random_image(*size)
    resized, _ = run(Resize(size_px=20, longest_px=30), image)
    theirs = TorchvisionResize(20, max_size=30)(PillowImage.fromarray(image))
    np.testing.assert_array_equal(resized, theirs)


def test_resize_by_hand_and_at_its_own_size():
    image = np.array([[[0] * 3, [100] * 3], [[100] * 3, [200] * 3]], np.uint8)
    assert run(Resize(size_px=1), image)[0].tolist() == [[[100] * 3]]  # the mean of four
    np.testing.assert_array_equal(run(Resize(size_px=(2, 2)), image)[0], image)


def test_a_thin_strip_does_not_become_gigabytes():
    # 4096 / 20000 of one row would be none: at least one row stays
    assert run(Resize(size_px=256), random_image(1, 20000))[0].shape == (1, 4096, 3)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("size_px", [20, (33, 18), 301], ids=str)
def test_centre_crop_is_torchvisions_and_pillows_for_bigger_and_smaller_images(size, size_px):
    image = random_image(*size)
    cropped, record = run(CentreCrop(size_px=size_px), image)
    pillow = PillowImage.fromarray(image)
    np.testing.assert_array_equal(cropped, CenterCrop(size_px)(pillow))
    np.testing.assert_array_equal(cropped, pillow.crop(record["box"]))


def test_centre_crop_by_hand_with_fill():
    image = np.arange(1, 4, dtype=np.uint8).reshape(1, 3, 1).repeat(3, axis=2)
    cropped, record = run(CentreCrop(size_px=(3, 1), fill=(9, 9, 9)), image)
    assert cropped[..., 0].tolist() == [[9], [2], [9]]
    assert record["box"] == [1, -1, 2, 2]


def test_pad_by_hand():
    image = np.array([[[1] * 3, [2] * 3]], np.uint8)
    padded, record = run(Pad(border_px=(1, 0, 0, 0), size_px=(2, 4), fill=(7, 7, 7)), image)
    assert padded[..., 0].tolist() == [[7, 1, 2, 7], [7, 7, 7, 7]]  # odd pixels go right and to the bottom
    assert record["borders"] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("border", "numpy_mode"), [("constant", "constant"), ("reflect", "reflect"), ("edge", "edge")]
)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (30, 40)], ids=str)
def test_pad_is_numpys(border, numpy_mode, size):
    image = random_image(*size)
    padded, _ = run(Pad(border_px=5, size_px=None, border=border), image)
    np.testing.assert_array_equal(padded, np.pad(image, ((5, 5), (5, 5), (0, 0)), mode=numpy_mode))


def test_pad_moves_annotations_and_pads_a_mask_like_the_image():
    mask = np.array([[1, 2, 3]], np.uint8)
    sample = Sample(
        image=random_image(1, 3),
        boxes=np.array([[0, 0, 1, 1]], np.float32),
        box_labels=np.array([0], np.int32),
        mask=mask,
        keypoints=np.array([[0.5, 0.5]], np.float32),
    )
    padded = Pad(border_px=(2, 1, 0, 0), size_px=None, border="reflect")(sample, rng_for("pad"))
    assert padded.boxes.tolist() == [[2, 1, 3, 2]]
    assert padded.keypoints.tolist() == [[2.5, 1.5]]
    np.testing.assert_array_equal(padded.mask, np.pad(mask, ((1, 0), (2, 0)), mode="reflect"))


def test_pad_leaves_an_image_that_is_big_enough():
    image = random_image(30, 40)
    np.testing.assert_array_equal(run(Pad(size_px=30), image)[0], image)


def test_bad_arguments_say_what_is_allowed():
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        RandomResizedCrop(size_px=0)
    with pytest.raises(ValidationError, match=r"0 to 1 is outside 0.0001 to 1"):
        RandomResizedCrop(area=(0, 1))
    with pytest.raises(ValidationError, match="raise longest_px"):
        Resize(size_px=5000)
    with pytest.raises(ValidationError, match="less than or equal to 255"):
        CentreCrop(fill=(0, 0, 256))
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Pad(border_px=-1)
