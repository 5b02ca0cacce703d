"""Colour operators: brightness, contrast, saturation, hue, all four in random order, and greyscale.

Formulas of Pillow's ImageEnhance, which torchvision uses on PIL images. Brightness, contrast and saturation are
one matrix each, in OpenCV's fixed point, within 1 level of Pillow, which cuts where we round (saturation f: plus
|1 - f| / 2 for its rounded grey). The neutral value returns the image itself. Source: Pillow, torchvision v2.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vtray.augment.bands import row_bands
from vtray.augment.limits import within
from vtray.augment.operator import Image, ImageOperator, Params, Probability, Range, uniform

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's mode L
IDENTITY = np.eye(3, 4)
LEVEL = np.array([[0.0, 0, 0, 1]] * 3)  # adds the same to all channels

FactorRange = Annotated[Range, within(0, 20)]
TurnRange = Annotated[Range, within(-0.5, 0.5)]

LECTURE_FACTORS = (0.5, 1.5)
LECTURE_TURNS = (-0.5, 0.5)


def adjust_brightness(image: Image, factor: float) -> Image:
    """Every level times `factor`, cut at 255."""
    return image if factor == 1 else _mixed(image, factor * IDENTITY)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Levels moved away from (or to) the mean grey of the image, which is rounded as in Pillow."""
    if factor == 1:
        return image
    mean_grey = int(GREY_WEIGHTS @ cv2.mean(image)[:3] + 0.5)
    return _mixed(image, factor * IDENTITY + (1 - factor) * mean_grey * LEVEL)


def adjust_saturation(image: Image, factor: float) -> Image:
    """Colours moved away from (or to) the grey of their pixel."""
    return image if factor == 1 else _mixed(image, factor * IDENTITY[:, :3] + (1 - factor) * GREY_WEIGHTS)


def adjust_hue(image: Image, turns: float) -> Image:
    """Hues turned round the colour wheel by a fraction of a turn; greys stay. Within 1 level of exact arithmetic.

    Pillow keeps hue and saturation in 8 bits, which costs it up to 14 levels on saturated colours; we use float32,
    which is as fast, so the difference is Pillow's own (on photos about 1 level in the mean).
    """
    if turns == 0:
        return image
    turned = np.empty(image.shape, np.uint8)
    for rows in row_bands(*image.shape[:2]):
        hsv = cv2.cvtColor(image[rows].astype(np.float32), cv2.COLOR_RGB2HSV)  # hue in degrees
        cv2.add(hsv, (360 * (turns % 1), 0, 0, 0), dst=hsv)  # OpenCV takes hues above a turn, none below 0
        turned[rows] = cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return turned


def greyscale(image: Image) -> Image:
    """The grey of each pixel in all three channels; within 1 level of Pillow."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey_image: Image = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return grey_image


def _mixed(image: Image, matrix: NDArray[np.float64]) -> Image:
    """Each pixel times a 3x3 or 3x4 matrix (the fourth column is added), rounded and cut to 0..255."""
    mixed: Image = cv2.transform(image, matrix)
    return mixed


class Brightness(ImageOperator):
    """Multiplies all levels by one factor."""

    op: Literal["brightness"] = "brightness"
    factor: FactorRange = Field(
        LECTURE_FACTORS, description="brightness factor, 0 (black) to 20; 1 keeps the image"
    )

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"factor": uniform(rng, self.factor)}

    def change(self, image: Image, params: Params) -> Image:
        return adjust_brightness(image, params["factor"])


class Contrast(ImageOperator):
    """Stretches or shrinks the levels around the mean grey of the image."""

    op: Literal["contrast"] = "contrast"
    factor: FactorRange = Field(
        LECTURE_FACTORS, description="contrast factor, 0 (flat grey) to 20; 1 keeps the image"
    )

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"factor": uniform(rng, self.factor)}

    def change(self, image: Image, params: Params) -> Image:
        return adjust_contrast(image, params["factor"])


class Saturation(ImageOperator):
    """Makes colours stronger or paler."""

    op: Literal["saturation"] = "saturation"
    factor: FactorRange = Field(
        LECTURE_FACTORS, description="saturation factor, 0 (grey) to 20; 1 keeps the image"
    )

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"factor": uniform(rng, self.factor)}

    def change(self, image: Image, params: Params) -> Image:
        return adjust_saturation(image, params["factor"])


class Hue(ImageOperator):
    """Turns all hues round the colour wheel by the same amount."""

    op: Literal["hue"] = "hue"
    shift: TurnRange = Field(LECTURE_TURNS, description="hue shift in turns, -0.5 to 0.5; 0 keeps the image")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"shift": uniform(rng, self.shift)}

    def change(self, image: Image, params: Params) -> Image:
        return adjust_hue(image, params["shift"])


ADJUSTMENTS: dict[str, Callable[[Image, float], Image]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


class ColourJitter(ImageOperator):
    """Brightness, contrast, saturation and hue, each with its own draw, in a random order.

    Rounds and cuts to uint8 after each adjustment, as torchvision does on PIL images: brightness 1.5 then contrast
    0.5 is not one matrix, because highlights that were cut stay cut.
    """

    op: Literal["colour_jitter"] = "colour_jitter"
    brightness: FactorRange = Field(LECTURE_FACTORS, description="brightness factor, 0 to 20; 1 leaves it out")
    contrast: FactorRange = Field(LECTURE_FACTORS, description="contrast factor, 0 to 20; 1 leaves it out")
    saturation: FactorRange = Field(LECTURE_FACTORS, description="saturation factor, 0 to 20; 1 leaves it out")
    hue: TurnRange = Field(LECTURE_TURNS, description="hue shift in turns, -0.5 to 0.5; 0 leaves it out")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        names = list(ADJUSTMENTS)
        order = [names[i] for i in rng.permutation(len(names))]
        return {"order": order} | {name: uniform(rng, getattr(self, name)) for name in names}

    def change(self, image: Image, params: Params) -> Image:
        for name in params["order"]:
            image = ADJUSTMENTS[name](image, params[name])
        return image


class Greyscale(ImageOperator):
    """Takes all colour away; the image keeps its three channels."""

    op: Literal["greyscale"] = "greyscale"
    p: Probability = Field(0.1, description="probability that the operator is applied")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {}

    def change(self, image: Image, params: Params) -> Image:
        return greyscale(image)
