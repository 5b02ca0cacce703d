"""The light of the whole scene: its colour (ColourTemperature) and its amount, with sensor noise (Exposure)."""

from statistics import NormalDist
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vtray.augment.bands import row_bands
from vtray.augment.degrade import draw_seed
from vtray.augment.limits import within
from vtray.augment.linear_light import LIGHT, encode, light_table
from vtray.augment.operator import Image, ImageOperator, Params, Range, uniform

NEUTRAL_KELVIN = 6600.0
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB
XYZ_TO_SRGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)

PHOTONS_AT_WHITE = 4000.0  # electrons of a white pixel of a small sensor in good light
READ_NOISE = 2.0  # electrons
NOISE_STEPS = 256  # the normal distribution is drawn as one byte: 256 equally likely values

KelvinRange = Annotated[Range, within(1700, 25000)]
StopsRange = Annotated[Range, within(-6, 6)]
NoiseRange = Annotated[Range, within(0, 10)]


def blackbody_white(kelvin: float) -> NDArray[np.float64]:
    """Linear sRGB (3,) of a black body at 1700 to 25000 K with luminance 1; blue is 0 where sRGB has none.

    Source: cubic fit of the Planckian locus, Kim et al. 2002 (J. Korean Phys. Soc. 41, 865), valid from 1667 K.
    """
    t = 1000 / kelvin
    if kelvin <= 4000:
        x = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    else:
        x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    if kelvin <= 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    elif kelvin <= 4000:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    else:
        y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    white: NDArray[np.float64] = XYZ_TO_SRGB @ np.array([x / y, 1, (1 - x - y) / y])
    return white.clip(min=0)


def temperature_gains(kelvin: float) -> NDArray[np.float64]:
    """Gains of linear light (3,) that show a scene lit at `kelvin` to a camera balanced for 6600 K.

    White keeps its luminance; red over blue falls as kelvin rises and is 1 at 6600 K.
    """
    gains = blackbody_white(kelvin) / blackbody_white(NEUTRAL_KELVIN)
    return gains / (LUMINANCE @ gains)


class ColourTemperature(ImageOperator):
    """Light of another colour temperature that the camera did not correct: low kelvin is orange, high is blue."""

    op: Literal["colour_temperature"] = "colour_temperature"
    kelvin: KelvinRange = Field(
        (3000, 9000), description="colour temperature of the light in kelvin, 1700 to 25000; 6600 keeps the image"
    )

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"kelvin": uniform(rng, self.kelvin)}

    def change(self, image: Image, params: Params) -> Image:
        return _looked_up(image, light_table(temperature_gains(params["kelvin"])))


class Exposure(ImageOperator):
    """More or less light, in stops, with the noise of a small sensor, which grows as the scene gets darker.

    A darker scene makes the camera raise its gain, so each level stands for fewer photons: the variance is that of
    the photons (the light itself) plus that of reading the sensor. Above 0 stops the noise stays as in good light.
    """

    op: Literal["exposure"] = "exposure"
    stops: StopsRange = Field((-2, 1), description="change of light in stops (EV), -6 to 6; -1 halves the light")
    noise: NoiseRange = Field((0, 1), description="sensor noise, 0 (none) to 10; 1 is a small sensor")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {
            "stops": uniform(rng, self.stops),
            "noise": uniform(rng, self.noise),
            "noise_seed": draw_seed(rng),
        }

    def change(self, image: Image, params: Params) -> Image:
        exposed = _looked_up(image, light_table(2.0 ** params["stops"]))
        if params["noise"] == 0:
            return exposed
        deviations = params["noise"] * noise_deviations(params["stops"])
        return _with_noise(image, exposed, deviations=deviations.astype(np.float32), seed=params["noise_seed"])


def noise_deviations(stops: float) -> NDArray[np.float64]:
    """Standard deviation of the noise in levels, (256,), for each level before the exposure was changed.

    Levels that reach white have none: the sensor is full there.
    """
    light = LIGHT * 2.0**stops
    electrons = PHOTONS_AT_WHITE * 2.0 ** min(stops, 0.0)
    deviation = np.sqrt(light / electrons + (READ_NOISE / electrons) ** 2)
    slope = (encode(light + 1e-4) - encode(light)) / 1e-4  # levels per light: noise shows most in the dark
    return np.where(light >= 1, 0, deviation * slope)


def _with_noise(image: Image, exposed: Image, *, deviations: NDArray[np.float32], seed: int) -> Image:
    bits = np.random.SFC64(seed)
    noisy = np.empty_like(exposed)
    for rows in row_bands(*image.shape[:2]):
        levels = image[rows]
        random_bytes = bits.random_raw(levels.size // 8 + 1).view(np.uint8)[: levels.size].reshape(levels.shape)
        noise = cv2.multiply(cv2.LUT(random_bytes, NORMAL_TABLE), cv2.LUT(levels, deviations))
        noisy[rows] = cv2.add(exposed[rows], noise, dtype=cv2.CV_8U)
    return noisy


def _normal_table() -> NDArray[np.float32]:
    """Middles of NOISE_STEPS equally likely slices of the normal distribution, scaled to variance 1."""
    middles = (np.arange(NOISE_STEPS) + 0.5) / NOISE_STEPS
    values = np.array([NormalDist().inv_cdf(share) for share in middles])
    table: NDArray[np.float32] = (values / values.std()).astype(np.float32)
    return table


NORMAL_TABLE = _normal_table()


def _looked_up(image: Image, table: NDArray[np.uint8]) -> Image:
    levels: Image = cv2.LUT(image, table.reshape(1, 256, -1))
    return levels
