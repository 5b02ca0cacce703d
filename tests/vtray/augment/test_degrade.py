import io

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from pydantic import ValidationError
from torchvision.transforms.v2 import functional

from vtray.augment.degrade import Blur, Erasing, JpegCompression, Noise, gaussian_levels, random_levels
from vtray.augment.operator import Sample
from vtray.seeding import rng_for


def random_image(height: int = 40, width: int = 50) -> np.ndarray:
    image = rng_for("image").integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


# blur ------------------------------------------------------------------------------------------------------------


def test_blur_of_one_bright_pixel_by_hand():
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 4] = 255
    blurred = Blur().change(image, {"sigma": 1.0})
    # the centre keeps (1 / sqrt(2 pi))^2 = 0.159 of the light, its neighbour exp(-1/2) of that
    assert blurred[4, 4].tolist() == pytest.approx([255 * 0.159] * 3, abs=1)
    assert blurred[4, 5].tolist() == pytest.approx([255 * 0.159 * 0.607] * 3, abs=1)


def test_blur_of_zero_and_of_a_flat_image_change_nothing():
    image = random_image()
    np.testing.assert_array_equal(Blur().change(image, {"sigma": 0.0}), image)
    flat = np.full((5, 6, 3), 77, np.uint8)
    np.testing.assert_array_equal(Blur().change(flat, {"sigma": 5.0}), flat)


@pytest.mark.parametrize(("sigma", "kernel"), [(0.5, 5), (1.0, 7), (2.0, 13)])
def test_blur_is_torchvisions_within_one_level(sigma, kernel):
    image = random_image()
    expected = functional.gaussian_blur(torch.from_numpy(image.copy()).permute(2, 0, 1), kernel, sigma)
    difference = Blur().change(image, {"sigma": sigma}).astype(int) - expected.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1


# noise -----------------------------------------------------------------------------------------------------------


def test_noise_has_the_standard_deviation_asked_for():
    grey = np.full((200, 300, 3), 128, np.uint8)
    noise = Noise().change(grey, {"std": 10.0, "noise_seed": 5}).astype(float) - 128
    num = noise.size
    assert noise.mean() == pytest.approx(0, abs=4 * 10 / np.sqrt(num))
    # rounding to levels adds 1/12 to the variance; the error of a standard deviation is std / sqrt(2 n)
    assert noise.std() == pytest.approx(np.sqrt(100 + 1 / 12), abs=4 * 10 / np.sqrt(2 * num))
    shares = [np.mean(np.abs(noise) <= limit) for limit in (10.5, 20.5)]
    assert shares == pytest.approx([0.7063, 0.9596], abs=0.005)  # P(|z| <= 1.05), P(|z| <= 2.05)


def test_noise_is_independent_between_pixels_and_channels():
    levels = gaussian_levels((100, 100, 3), 3, std=20).astype(float)
    pairs = (levels[..., 0], levels[..., 1]), (levels[:, 1:], levels[:, :-1]), (levels[1:], levels[:-1])
    for first, second in pairs:
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(first.size)


def test_noise_of_zero_keeps_the_image_and_levels_are_cut_not_wrapped():
    image = random_image()
    np.testing.assert_array_equal(Noise().change(image, {"std": 0.0, "noise_seed": 1}), image)
    white = np.full((50, 50, 3), 255, np.uint8)
    assert Noise().change(white, {"std": 20.0, "noise_seed": 1}).min() > 150  # wrapped levels would be near 0


def test_noise_is_drawn_once_and_stands_in_the_record():
    noisy = Noise()(Sample(image=random_image()), rng_for("noise"))
    record = noisy.applied[0]
    assert 0 <= record["std"] <= 15
    assert 0 <= record["noise_seed"] < 2**64
    other = Noise().change(random_image(), record | {"noise_seed": record["noise_seed"] + 1})
    assert (other != noisy.image).mean() > 0.5


def test_random_levels_are_uniform():
    counts = np.bincount(random_levels((400, 640), 11).ravel(), minlength=256)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 255 + 4 * np.sqrt(2 * 255)  # mean and standard deviation of chi square with 255 degrees


# JPEG ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [1, 30, 75, 90, 95, 96, 100])
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (40, 50)], ids=str)
def test_jpeg_has_the_pixels_of_pillows_round_trip(quality, size):
    image = random_image(*size)
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    compressed = JpegCompression().change(image, {"quality": quality})
    np.testing.assert_array_equal(compressed, PillowImage.open(file).convert("RGB"))


def test_jpeg_keeps_flat_grey_and_loses_more_at_lower_quality():
    grey = np.full((16, 16, 3), 128, np.uint8)  # 128 is the zero of JPEG: no coefficient is left to round
    np.testing.assert_array_equal(JpegCompression().change(grey, {"quality": 30}), grey)
    image = random_image().astype(int)
    losses = [
        np.abs(JpegCompression().change(random_image(), {"quality": q}) - image).mean() for q in (90, 50, 10)
    ]
    assert losses == sorted(losses)


def test_jpeg_draws_whole_qualities_up_to_both_ends():
    rng = rng_for("quality")
    drawn = {JpegCompression(quality=(50, 53)).draw(rng, 1, 1)["quality"] for _ in range(200)}
    assert drawn == {50, 51, 52, 53}


# erasing ---------------------------------------------------------------------------------------------------------


def test_erasing_paints_exactly_its_box():
    image = random_image()
    erased = Erasing(fill=(1, 2, 3)).change(image, {"box": [5, 6, 15, 26]})
    expected = image.copy()
    expected[6:26, 5:15] = (1, 2, 3)
    np.testing.assert_array_equal(erased, expected)


def test_erasing_draws_part_of_the_area_half_the_time():
    rng, operator = rng_for("erasing"), Erasing()
    image = np.full((100, 120, 3), 255, np.uint8)
    shares = [np.mean(operator(Sample(image=image), rng).image == 0) for _ in range(400)]
    touched = [share for share in shares if share > 0]
    assert 160 <= len(touched) <= 240  # 4 standard deviations of 10
    assert 0.018 < min(touched) < max(touched) < 0.335


def test_erasing_with_noise_fills_the_box_from_the_recorded_seed():
    image = np.zeros((60, 60, 3), np.uint8)
    erased = Erasing(fill="noise", p=1)(Sample(image=image), rng_for("fill"))
    left, top, right, bottom = erased.applied[0]["box"]
    part = erased.image[top:bottom, left:right]
    assert 100 < part.mean() < 155
    outside = erased.image.copy()
    outside[top:bottom, left:right] = 0
    assert not outside.any()


def test_erasing_leaves_an_image_of_one_pixel():
    image = random_image(1, 1)
    erased = Erasing(p=1)(Sample(image=image), rng_for("one"))
    assert erased.applied[0]["box"] == [0, 0, 0, 0]
    np.testing.assert_array_equal(erased.image, image)


def test_bad_arguments_say_what_is_allowed():
    with pytest.raises(ValidationError, match="outside 0 to 100"):
        Blur(sigma=(0, float("inf")))
    with pytest.raises(ValidationError, match="outside 0 to 255"):
        Noise(std=(-1, 5))
    with pytest.raises(ValidationError, match="less than or equal to 100"):
        JpegCompression(quality=(30, 101))
    with pytest.raises(ValidationError, match="swap them"):
        JpegCompression(quality=(90, 30))
    with pytest.raises(ValidationError, match="'noise'"):
        Erasing(fill="snow")
