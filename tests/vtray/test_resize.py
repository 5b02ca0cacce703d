import numpy as np
import pytest
from PIL import Image as PillowImage

from vtray.images import resize as module
from vtray.images.resize import resize, resize_part
from vtray.seeding import rng_for

BILINEAR = PillowImage.Resampling.BILINEAR


def noise(*names, height, width):
    return rng_for("resize", *names).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(image, box, size):
    return np.asarray(PillowImage.fromarray(image).crop(box).resize(size, BILINEAR))


@pytest.fixture(params=["compiled", "pillow"], autouse=True)
def code(request, monkeypatch):
    """Every test runs with the compiled module and with what stands in for it."""
    if request.param == "pillow":
        monkeypatch.setattr(module, "vtray_resample", None)
    elif module.vtray_resample is None:
        pytest.skip("vtray was installed without a C compiler")


@pytest.mark.parametrize("number", range(300))
def test_any_part_at_any_size_is_pillows(number):
    rng = rng_for("part", number)
    height, width = rng.integers(1, 200, 2)
    image = noise(number, height=height, width=width)
    if number % 3 == 0:  # nothing but extremes: a weighted sum must neither wrap nor need a cut
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    left, top = int(rng.integers(width)), int(rng.integers(height))
    box = (left, top, int(rng.integers(left, width)) + 1, int(rng.integers(top, height)) + 1)
    size = tuple(int(side) for side in rng.integers(1, 300, 2))
    resized = resize_part(image, box, height=size[1], width=size[0])
    np.testing.assert_array_equal(resized, by_pillow(image, box, size))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 1), (5, 7)),
        ((3, 2000), (1, 224)),
        ((2000, 3), (224, 224)),  # columns first
        ((400, 300), (100, 149)),  # 300 rows less and 151 columns less: rows first
        ((400, 300), (99, 150)),  # 301 against 150: columns first
        ((64, 64), (64, 20)),  # one axis only
        ((64, 64), (20, 64)),
    ],
    ids=str,
)
def test_whole_images_are_pillows(before, after):
    image = noise(*before, height=before[0], width=before[1])
    resized = resize(image, height=after[0], width=after[1])
    np.testing.assert_array_equal(resized, by_pillow(image, (0, 0, *before[::-1]), after[::-1]))


def test_by_hand():
    image = np.array([[[0] * 3, [100] * 3], [[100] * 3, [201] * 3]], np.uint8)
    assert resize(image, height=1, width=1).tolist() == [[[101] * 3]]  # 50 and 150.5, which is 151; their mean
    row = np.array([[[0, 0, 9], [40, 0, 9]]], np.uint8)  # centres of four lie at 0.25, 0.75 ... of the two
    assert resize(row, height=1, width=4)[0].tolist() == [[0, 0, 9], [10, 0, 9], [30, 0, 9], [40, 0, 9]]


def test_a_part_at_its_own_size_is_cut_out():
    image = noise("same", height=9, width=8)
    np.testing.assert_array_equal(resize_part(image, (1, 2, 6, 5), height=3, width=5), image[2:5, 1:6])


def test_views_with_gaps_and_read_only_images_are_taken():
    image = noise("view", height=60, width=50)
    image.flags.writeable = False
    for view in (image, image[::2], image[:, ::-1]):
        expected = by_pillow(np.ascontiguousarray(view), (0, 0, view.shape[1], view.shape[0]), (17, 19))
        np.testing.assert_array_equal(resize(view, height=19, width=17), expected)


def test_what_is_not_inside_is_refused_by_the_compiled_module():
    if module.vtray_resample is None:
        pytest.skip("the compiled module only")
    image, out = noise("box", height=4, width=5), np.zeros((2, 2, 3), np.uint8)
    for box in ((0, 0, 6, 4), (0, 0, 5, 5), (-1, 0, 5, 4), (3, 0, 3, 4), (0, 4, 5, 4)):
        with pytest.raises(ValueError, match=r"the box \(.*\) is empty or outside of the image"):
            module.vtray_resample.resize(image, 5, box, out, (2, 2), False)
    with pytest.raises(ValueError, match="does not hold 3 x 2 pixels"):
        module.vtray_resample.resize(image, 5, (0, 0, 5, 4), out, (3, 2), False)
