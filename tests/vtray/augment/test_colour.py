import colorsys

import numpy as np
import pytest
from PIL import Image as PillowImage
from pydantic import ValidationError
from torchvision.transforms.v2 import functional

from vtray.augment.colour import (
    Brightness,
    ColourJitter,
    Contrast,
    Greyscale,
    Hue,
    Saturation,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    greyscale,
)
from vtray.augment.operator import Sample
from vtray.seeding import rng_for

FACTORS = [0, 0.3, 0.5, 0.999, 1.2, 1.5, 3, 20]
TURNS = [-0.5, -0.31, -0.05, 0.001, 0.1, 0.25, 0.5]


def random_image(height: int = 60, width: int = 70) -> np.ndarray:
    image = rng_for("image").integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def pixel(*levels: int) -> np.ndarray:
    return np.array([[levels]], np.uint8)


def by_torchvision(name: str, image: np.ndarray, value: float) -> np.ndarray:
    return np.asarray(getattr(functional, f"adjust_{name}")(PillowImage.fromarray(image), value))


def difference(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(image.astype(int) - other)


# one example each, by hand ---------------------------------------------------------------------------------------


def test_brightness_multiplies_and_cuts():
    assert adjust_brightness(pixel(0, 100, 200), 1.5).tolist() == [[[0, 150, 255]]]
    assert adjust_brightness(random_image(), 0).max() == 0


def test_contrast_moves_levels_away_from_the_mean_grey():
    image = np.array([[[50] * 3, [150] * 3]], np.uint8)  # mean grey 100
    assert adjust_contrast(image, 1.5)[0, :, 0].tolist() == [25, 175]
    assert adjust_contrast(image, 0)[0, :, 0].tolist() == [100, 100]
    assert adjust_contrast(image, 3)[0, :, 0].tolist() == [0, 250]  # 100 - 150 is cut


def test_saturation_moves_colours_away_from_their_grey():
    # grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 0 = 118.5
    assert adjust_saturation(pixel(200, 100, 0), 0.5).tolist() == [[[159, 109, 59]]]
    assert adjust_saturation(pixel(200, 100, 0), 1.5).tolist() == [[[241, 91, 0]]]  # -59.25 is cut


def test_hue_turns_red_over_green_to_blue():
    assert adjust_hue(pixel(200, 50, 50), 1 / 3).tolist() == [[[50, 200, 50]]]
    assert adjust_hue(pixel(200, 50, 50), -1 / 3).tolist() == [[[50, 50, 200]]]
    assert adjust_hue(pixel(255, 0, 0), 0.5).tolist() == [[[0, 255, 255]]]


def test_greyscale_is_the_weighted_mean():
    assert greyscale(pixel(255, 0, 0)).tolist() == [[[76, 76, 76]]]  # 0.299 * 255
    assert greyscale(pixel(0, 255, 0)).tolist() == [[[150, 150, 150]]]
    assert greyscale(pixel(0, 0, 255)).tolist() == [[[29, 29, 29]]]


# properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adjust", "neutral"),
    [(adjust_brightness, 1), (adjust_contrast, 1), (adjust_saturation, 1), (adjust_hue, 0)],
)
def test_the_neutral_value_returns_the_image(adjust, neutral):
    image = random_image()
    assert adjust(image, neutral) is image


@pytest.mark.parametrize("turns", TURNS)
def test_hue_leaves_greys_and_the_extremes_of_each_pixel(turns):
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(adjust_hue(greys, turns), greys)
    image = random_image()
    turned = adjust_hue(image, turns)
    assert difference(turned.max(axis=2), image.max(axis=2)).max() <= 1
    assert difference(turned.min(axis=2), image.min(axis=2)).max() <= 1


@pytest.mark.parametrize("factor", FACTORS)
def test_saturation_leaves_greys_within_one_level(factor):
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert difference(adjust_saturation(greys, factor), greys).max() <= 1


def test_hue_is_the_same_in_one_band_and_in_many(monkeypatch):
    image = random_image()
    whole = adjust_hue(image, 0.2)
    monkeypatch.setattr("vtray.augment.bands.BAND_PIXELS", 500)
    np.testing.assert_array_equal(adjust_hue(image, 0.2), whole)


# agreement with others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_linear_adjustments_are_torchvisions_within_one_level(name, factor):
    image = random_image()
    adjust = {"brightness": adjust_brightness, "contrast": adjust_contrast, "saturation": adjust_saturation}[name]
    # torchvision cuts the fraction off where we round, and Pillow rounds the grey before it is multiplied
    tolerance = 1 + (abs(1 - factor) / 2 if name == "saturation" else 0)
    assert difference(adjust(image, factor), by_torchvision(name, image, factor)).max() <= tolerance


@pytest.mark.parametrize("turns", TURNS)
def test_hue_is_exact_within_one_level(turns):
    image = random_image(20, 20)
    exact = [
        colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        for hue, saturation, value in (colorsys.rgb_to_hsv(*levels) for levels in image.reshape(-1, 3) / 255)
    ]
    assert np.abs(adjust_hue(image, turns).reshape(-1, 3) - np.array(exact) * 255).max() <= 1


@pytest.mark.parametrize("turns", TURNS)
def test_hue_is_torchvisions_within_the_rounding_of_8_bit_hue(turns):
    image = random_image()
    distance = difference(adjust_hue(image, turns), by_torchvision("hue", image, turns))
    # Pillow cuts hue and shift to 1/255 of a turn, 6 levels of a full colour each, and saturation to 1/255
    assert distance.max() <= 18
    assert distance.mean() <= 2


def test_greyscale_is_pillows_within_one_level():
    image = random_image()
    expected = np.asarray(PillowImage.fromarray(image).convert("L"))
    assert difference(greyscale(image), expected[..., None]).max() <= 1


@pytest.mark.parametrize("seed", range(10))
def test_jitter_is_torchvisions_one_after_another(seed):
    image = random_image()
    params = ColourJitter(hue=(0, 0)).draw(rng_for("jitter", seed), 60, 70)
    expected = image
    for name in params["order"]:
        if name == "hue":
            continue  # a shift of 0 changes colours in torchvision, which goes through 8-bit HSV for it
        expected = by_torchvision(name, expected, params[name])
    # up to 1 level per step, grown by up to 1.5 in each of the two steps after it: 1 + 1.5 + 2.25
    assert difference(ColourJitter().change(image, params), expected).max() <= 5


# operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Brightness, Contrast, Saturation])
def test_factors_are_the_lectures_and_drawn_from_the_range(kind):
    draws = [kind().draw(rng_for("draw", number), 10, 10)["factor"] for number in range(300)]
    assert 0.5 <= min(draws) < 0.53
    assert 1.47 < max(draws) <= 1.5
    assert kind(factor=(1.25, 1.25)).draw(rng_for("draw"), 10, 10) == {"factor": 1.25}


@pytest.mark.parametrize(
    ("operator", "params", "adjusted"),
    [
        (Brightness(), {"factor": 1.3}, adjust_brightness(random_image(), 1.3)),
        (Contrast(), {"factor": 0.6}, adjust_contrast(random_image(), 0.6)),
        (Saturation(), {"factor": 1.4}, adjust_saturation(random_image(), 1.4)),
        (Hue(), {"shift": 0.4}, adjust_hue(random_image(), 0.4)),
        (Greyscale(), {}, greyscale(random_image())),
    ],
    ids=lambda value: getattr(value, "op", ""),
)
def test_operators_apply_their_adjustment(operator, params, adjusted):
    np.testing.assert_array_equal(operator.change(random_image(), params), adjusted)


def test_jitter_draws_every_order_and_keeps_to_it():
    records = [ColourJitter().draw(rng_for("jitter", number), 10, 10) for number in range(400)]
    assert len({tuple(record["order"]) for record in records}) == 24
    image = random_image()
    record = {"order": ["hue", "contrast", "saturation", "brightness"]}
    record |= {"brightness": 1.5, "contrast": 0.5, "saturation": 0.7, "hue": 0.3}
    step_by_step = adjust_brightness(adjust_saturation(adjust_contrast(adjust_hue(image, 0.3), 0.5), 0.7), 1.5)
    np.testing.assert_array_equal(ColourJitter().change(image, record), step_by_step)
    backwards = record | {"order": record["order"][::-1]}
    assert difference(ColourJitter().change(image, backwards), step_by_step).max() > 10


def test_hue_defaults_to_half_a_turn_either_way():
    draws = [Hue().draw(rng_for("hue", number), 10, 10)["shift"] for number in range(300)]
    assert -0.5 <= min(draws) < -0.48
    assert 0.48 < max(draws) <= 0.5


def test_greyscale_applies_to_a_tenth():
    sample = Sample(image=random_image(2, 2))
    applied = [bool(Greyscale()(sample, rng_for("grey", number)).applied) for number in range(500)]
    assert 0.05 < np.mean(applied) < 0.16  # 0.1 with a standard error of 0.013


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Brightness, {"factor": (-0.5, 1)}, "-0.5 to 1 is outside 0 to 20; keep both ends inside"),
        (Contrast, {"factor": (1.5, 0.5)}, "the lower end 1.5 is above the upper end 0.5; swap them"),
        (Saturation, {"factor": (0, float("nan"))}, "outside 0 to 20"),
        (Hue, {"shift": (-0.6, 0)}, "-0.6 to 0 is outside -0.5 to 0.5"),
        (ColourJitter, {"hue": (0, 18)}, "outside -0.5 to 0.5"),
        (Greyscale, {"p": 2}, "less than or equal to 1"),
    ],
)
def test_bad_arguments_are_refused(kind, fields, message):
    with pytest.raises(ValidationError, match=message):
        kind(**fields)
