import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop

from vtray.augment.boxes import draw_box, largest_centre_box
from vtray.seeding import rng_for


def test_boxes_keep_area_and_ratio_within_rounding_and_lie_inside():
    rng = rng_for("boxes")
    for _ in range(500):
        left, top, right, bottom = draw_box(rng, (400, 600), area=(0.1, 0.5), ratio=(0.5, 2.0))
        assert 0 <= left < right <= 600
        assert 0 <= top < bottom <= 400
        width, height = right - left, bottom - top
        assert 0.098 < width * height / (400 * 600) < 0.502  # half a pixel on each side of at least 110
        assert 0.49 < width / height < 2.02


def test_areas_are_uniform_and_ratios_log_uniform():
    rng = rng_for("distribution")
    boxes = np.array([draw_box(rng, (2000, 2000), area=(0.01, 0.2), ratio=(0.5, 2.0)) for _ in range(4000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    # mean of uniform(a, b) is (a + b) / 2 with standard error (b - a) / sqrt(12 n)
    assert np.mean(widths * heights / 2000**2) == pytest.approx(0.105, abs=4 * 0.19 / np.sqrt(12 * 4000))
    log_range = np.log(2.0) - np.log(0.5)
    assert np.mean(np.log(widths / heights)) == pytest.approx(0, abs=4 * log_range / np.sqrt(12 * 4000))


def test_no_box_when_none_fits():
    assert draw_box(rng_for("none"), (3, 2000), area=(1.0, 1.0), ratio=(0.75, 4 / 3)) is None


@pytest.mark.parametrize("size", [(3, 2000), (2000, 3), (1, 5), (7, 7), (100, 133), (100, 134)], ids=str)
def test_the_centre_box_is_torchvisions_fallback(size):
    # area 4: no try can fit, so torchvision falls back to its centre box
    image = Image.new("RGB", size[::-1])
    top, left, height, width = TorchvisionCrop.get_params(image, scale=[4.0, 4.0], ratio=[3 / 4, 4 / 3])
    assert largest_centre_box(size, ratio=(3 / 4, 4 / 3)) == [left, top, left + width, top + height]


def test_a_box_of_a_wide_strip_by_hand():
    # 3 high: at most 3 * 4 / 3 = 4 wide, in the middle of 10
    assert largest_centre_box((3, 10), ratio=(3 / 4, 4 / 3)) == [3, 0, 7, 3]
    assert largest_centre_box((1, 1), ratio=(50.0, 60.0)) == [0, 0, 1, 1]
