import numpy as np
import pytest

from vtray.errors import ImageError
from vtray.seeding import rng_for
from vtray.style.masks import check_mask, partition, region_weights


def mask(*rows):
    return np.array(rows, np.uint8)


def random_mask(name, height=48, width=64):
    return rng_for(name).integers(0, 256, (height, width), dtype=np.uint8)


def overlaps(full, part):
    """(part, full): the share of each small pixel that each large one covers."""
    step = full / part
    start, pixel = np.arange(part)[:, None] * step, np.arange(full)[None]
    return (np.minimum(start + step, pixel + 1) - np.maximum(start, pixel)).clip(0) / step


class TestCheckMask:
    def test_the_brightness_of_an_rgb_image(self):
        image = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
        assert check_mask(image, name="sky.png", height=1, width=3).tolist() == [[255, 0, 76]]  # 0.299 * 255

    def test_a_grey_mask_as_it_is(self):
        grey = random_mask("grey")
        np.testing.assert_array_equal(check_mask(grey, name="sky.png", height=48, width=64), grey)

    @pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640)])
    def test_another_size(self, shape):
        message = "mask sky.png is 640 x 480, the image 512 x 512; draw the mask on the upright image"
        with pytest.raises(ImageError, match=message) as refused:
            check_mask(np.zeros(shape, np.uint8), name="sky.png", height=512, width=512)
        assert (refused.value.stage, refused.value.reason) == ("stylize", "mask_size")


class TestRegionWeights:
    def test_white_is_one_and_black_is_none(self):
        weights = region_weights(mask([255, 0], [51, 102]), size=(2, 2))
        assert weights.dtype == np.float32
        assert weights == pytest.approx(np.array([[1, 0], [0.2, 0.4]]))

    def test_shrunk_it_is_the_mean_of_what_it_covers(self):
        quarters = mask([255, 0, 255, 255], [0, 255, 255, 255])
        assert region_weights(quarters, size=(1, 2)).tolist() == [[0.5, 1]]

    @pytest.mark.parametrize("size", [(24, 32), (17, 23), (5, 64)])
    def test_the_covered_share_stays(self, size):
        whole = random_mask("share")
        weights = region_weights(whole, size=size)
        assert weights.shape == size
        assert weights.mean() == pytest.approx(whole.mean() / 255, abs=1e-3)

    @pytest.mark.parametrize("size", [(24, 32), (13, 21), (48, 5)])
    def test_equals_the_overlap_of_pixels(self, size):
        whole = random_mask("overlap")
        down, across = (overlaps(full, part) for full, part in zip(whole.shape, size, strict=True))
        exact = down @ (whole / 255) @ across.T
        np.testing.assert_allclose(region_weights(whole, size=size), exact, atol=1e-5)

    @pytest.mark.parametrize("size", [(96, 128), (100, 32)])
    def test_enlarged_it_has_no_steps_and_stays_in_range(self, size):
        halves = np.repeat(mask([0, 255]), 32, axis=1).repeat(48, axis=0)
        weights = region_weights(halves, size=size)
        assert (weights.min(), weights.max(), weights.shape) == (0, 1, size)


class TestPartition:
    def test_by_hand(self):
        one, other = mask([255, 0, 255, 102]), mask([0, 0, 255, 51])
        styles, content = partition([one, other])
        assert styles[0] == pytest.approx(np.array([[1, 0, 0.5, 0.4]]))
        assert styles[1] == pytest.approx(np.array([[0, 0, 0.5, 0.2]]))
        assert content == pytest.approx(np.array([[0, 1, 0, 0.4]]))

    def test_overlaps_share_in_proportion(self):
        styles, content = partition([mask([255]), mask([85])])  # 1 and 1/3
        assert styles.ravel() == pytest.approx([0.75, 0.25])
        assert content.item() == 0

    @pytest.mark.parametrize("num_masks", [1, 2, 5])
    def test_sums_to_one_everywhere(self, num_masks):
        styles, content = partition([random_mask(f"{number}") for number in range(num_masks)])
        assert styles.shape == (num_masks, 48, 64)
        assert (styles.dtype, content.dtype) == (np.float32, np.float32)
        assert styles.sum(axis=0) + content == pytest.approx(np.ones((48, 64)), abs=1e-6)
        assert min(styles.min(), content.min()) >= 0

    def test_one_mask_is_its_weights(self):
        whole = random_mask("one")
        styles, content = partition([whole])
        np.testing.assert_array_equal(styles[0], region_weights(whole, size=whole.shape))
        assert content == pytest.approx(1 - styles[0])

    def test_masks_of_two_sizes_or_none(self):
        with pytest.raises(ValueError, match=r"2 masks of the sizes \[\(48, 64\), \(48, 65\)\]"):
            partition([random_mask("a"), random_mask("b", 48, 65)])
        with pytest.raises(ValueError, match=r"0 masks .*give one or more of the same size"):
            partition([])
