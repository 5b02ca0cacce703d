import numpy as np
import pytest
from pydantic import ValidationError

from vtray.augment.lighting import (
    LUMINANCE,
    NORMAL_TABLE,
    ColourTemperature,
    Exposure,
    blackbody_white,
    noise_deviations,
    temperature_gains,
)
from vtray.augment.linear_light import LIGHT, encode
from vtray.seeding import rng_for

KELVINS = np.linspace(1700, 25000, 200)


def random_image(height: int = 60, width: int = 70) -> np.ndarray:
    image = rng_for("image").integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def flat(level: int, side: int = 200) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


# colour temperature ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kelvin", "levels"),
    [(4600, (255, 221, 190)), (6600, (254, 249, 255)), (11100, (196, 214, 255))],
)
def test_white_is_that_of_a_published_table_within_three_levels(kelvin, levels):
    """Source: the colour table of imgaug's ChangeColorTemperature."""
    white = blackbody_white(kelvin)
    assert encode(white / white.max()) == pytest.approx(levels, abs=3)


def test_red_over_blue_falls_as_kelvin_rises():
    gains = np.array([temperature_gains(kelvin) for kelvin in KELVINS])
    assert np.all(np.diff(gains[:, 2] / gains[:, 0]) > -1e-12)
    assert np.all(np.diff(gains[gains[:, 2] > 0, 0]) < 0)


def test_white_keeps_its_luminance_and_the_neutral_temperature_its_colour():
    for kelvin in KELVINS:
        assert LUMINANCE @ temperature_gains(kelvin) == pytest.approx(1)
    assert temperature_gains(6600) == pytest.approx([1, 1, 1])


def test_neutral_light_gives_the_same_bytes():
    image = random_image()
    np.testing.assert_array_equal(ColourTemperature().change(image, {"kelvin": 6600.0}), image)


def test_candle_light_makes_grey_orange_and_shade_makes_it_blue():
    candle, shade = (
        ColourTemperature().change(flat(128), {"kelvin": kelvin})[0, 0] for kelvin in (1900.0, 12000.0)
    )
    assert candle[0] > 150 > candle[1] > 80 > candle[2]
    assert shade[0] < shade[1] < shade[2]


def test_the_middle_grey_in_light_of_3000_kelvin_by_hand():
    # gains 1.715, 0.862, 0.261 of light; sRGB 128 is 0.2159 of light: 0.3702, 0.1861, 0.0563
    changed = ColourTemperature().change(flat(128), {"kelvin": 3000.0})
    assert changed[0, 0].tolist() == pytest.approx(encode([0.3702, 0.1861, 0.0563]), abs=1)


# exposure --------------------------------------------------------------------------------------------------------


def exposed(image: np.ndarray, stops: float, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    return Exposure().change(image, {"stops": stops, "noise": noise, "noise_seed": seed})


def test_no_stops_and_no_noise_give_the_same_bytes():
    image = random_image()
    np.testing.assert_array_equal(exposed(image, 0), image)


def test_one_stop_down_halves_the_light_within_half_a_level():
    image = random_image()
    half = encode(LIGHT[image] / 2)
    assert np.abs(exposed(image, -1) - half).max() <= 0.5 + 1e-9
    assert exposed(flat(255), -1)[0, 0].tolist() == [188] * 3  # 0.7354 * 255


def test_one_stop_up_doubles_the_light_and_cuts_at_white():
    # sRGB 100 is 0.1274 of light; twice that is level 0.5417 * 255
    assert exposed(flat(100), 1)[0, 0].tolist() == [138] * 3
    assert exposed(flat(200), 1)[0, 0].tolist() == [255] * 3


def test_noise_of_the_middle_grey_one_stop_down_by_hand():
    # light 0.2159 / 2 of white, which is 2000 electrons: sqrt(0.1079 / 2000 + (2 / 2000)^2) = 0.00741 of light;
    # the curve gives 255 * 1.055 / 2.4 * 0.1079^(1 / 2.4 - 1) = 411 levels per light there: 3.05 levels
    assert noise_deviations(-1)[128] == pytest.approx(3.05, abs=0.01)
    noise = exposed(flat(128), -1, noise=1).astype(float) - exposed(flat(128), -1)
    assert noise.std() == pytest.approx(np.sqrt(3.05**2 + 1 / 12), rel=0.01)  # rounding adds 1/12
    assert noise.mean() == pytest.approx(0, abs=0.05)


def test_noise_grows_as_the_scene_gets_darker():
    deviations = [noise_deviations(stops)[128] for stops in (0, -1, -2, -3)]
    assert deviations == sorted(deviations)
    assert deviations[2] > 1.5 * deviations[0]


def test_noise_is_scaled_and_absent_where_the_sensor_is_full():
    single, double = (exposed(flat(128), -1, noise=noise).std() for noise in (1, 2))
    assert double == pytest.approx(2 * single, rel=0.02)
    np.testing.assert_array_equal(exposed(flat(255), 0, noise=5), flat(255))
    np.testing.assert_array_equal(exposed(flat(200), 1, noise=5), flat(255))


def test_noise_is_independent_between_pixels_channels_and_seeds():
    def noise(seed: int) -> np.ndarray:
        return exposed(flat(128, 400), 0, noise=4, seed=seed).astype(float) - 128

    first, other = noise(1), noise(2)
    pairs = [
        (first[1:], first[:-1]),
        (first[:, 1:], first[:, :-1]),
        (first[..., 0], first[..., 1]),
        (first, other),
    ]
    assert [abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.015 for a, b in pairs] == [True] * 4
    np.testing.assert_array_equal(noise(1), first)


def test_the_normal_table_is_symmetric_with_variance_one():
    np.testing.assert_allclose(NORMAL_TABLE, -NORMAL_TABLE[::-1], atol=1e-5)
    assert NORMAL_TABLE.std() == pytest.approx(1, abs=1e-6)
    assert np.all(np.diff(NORMAL_TABLE) > 0)
    assert 2.7 < NORMAL_TABLE[-1] < 3


# fields ----------------------------------------------------------------------------------------------------------


def test_draws_stay_in_their_ranges():
    for number in range(100):
        assert 3000 <= ColourTemperature().draw(rng_for(number), 10, 10)["kelvin"] <= 9000
        params = Exposure(noise=(0.5, 0.75)).draw(rng_for(number), 10, 10)
        assert -2 <= params["stops"] <= 1
        assert 0.5 <= params["noise"] <= 0.75
        assert isinstance(params["noise_seed"], int)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (
            ColourTemperature,
            {"kelvin": (1000, 6000)},
            "1000 to 6000 is outside 1700 to 25000; keep both ends inside",
        ),
        (ColourTemperature, {"kelvin": (9000, 3000)}, "swap them"),
        (Exposure, {"stops": (-8, 0)}, "outside -6 to 6"),
        (Exposure, {"noise": (-1, 0)}, "outside 0 to 10"),
    ],
)
def test_bad_arguments_are_refused(kind, fields, message):
    with pytest.raises(ValidationError, match=message):
        kind(**fields)
