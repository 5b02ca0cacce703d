"""Operators that mirror, turn and shear; boxes, mask and keypoints move along."""

import math
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vtray.augment.fields import Border, Colour
from vtray.augment.limits import AngleRange, within
from vtray.augment.move import Matrix, Outside, axes_matrix, move, warp
from vtray.augment.operator import Operator, Params, Probability, Range, Sample, uniform

ScaleRange = Annotated[Range, within(0.01, 100)]
LeanRange = Annotated[Range, within(-89, 89)]  # degrees


class FlipLeftRight(Operator):
    """Mirrors left and right."""

    op: Literal["flip"] = "flip"
    p: Probability = Field(0.5, description="probability that the operator is applied")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {}

    def apply(self, sample: Sample, params: Params) -> Sample:
        matrix = axes_matrix((-1, sample.image.shape[1]), (1, 0))
        return move(sample, matrix, image=cv2.flip(sample.image, 1))


class FlipTopBottom(Operator):
    """Mirrors top and bottom."""

    op: Literal["flip_top_bottom"] = "flip_top_bottom"
    p: Probability = Field(0.5, description="probability that the operator is applied")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {}

    def apply(self, sample: Sample, params: Params) -> Sample:
        matrix = axes_matrix((1, 0), (-1, sample.image.shape[0]))
        return move(sample, matrix, image=cv2.flip(sample.image, 0))


class _Warp(Operator):
    """Base of operators that look at the image through one matrix; the size stays."""

    border: Border = Field("constant", description="what is seen outside: the fill colour, a mirror or the edge")
    fill: Colour = Field((0, 0, 0), description="RGB levels outside the image, for the constant border")

    def apply(self, sample: Sample, params: Params) -> Sample:
        size = sample.image.shape[:2]
        matrix = self.matrix(params, *size)
        outside = Outside(border=self.border, fill=self.fill)
        return move(sample, matrix, image=warp(sample.image, matrix, size=size, outside=outside), outside=outside)

    def matrix(self, params: Params, height: int, width: int) -> Matrix:
        raise NotImplementedError


class Rotate(_Warp):
    """Turns around the centre; positive angles turn counter-clockwise. Bilinear; corners that leave are cut.

    Source: Pillow Image.rotate with BILINEAR, equal within 1 level away from the border.
    """

    op: Literal["rotate"] = "rotate"
    degrees: AngleRange = Field((-30, 30), description="angle in degrees, -360 to 360, counter-clockwise")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"angle": uniform(rng, self.degrees)}

    def matrix(self, params: Params, height: int, width: int) -> Matrix:
        return about_centre(turn(params["angle"]), height=height, width=width)


class Affine(_Warp):
    """Turns, shears, scales and shifts around the centre in one bilinear warp (not anti-aliased).

    Source: torchvision RandomAffine; there positive angles turn clockwise, here counter-clockwise as in Rotate.
    """

    op: Literal["affine"] = "affine"
    degrees: AngleRange = Field((-15, 15), description="angle in degrees, -360 to 360, counter-clockwise")
    translate: float = Field(
        0.1, ge=0, le=1, description="largest shift both ways, as a part of width and of height"
    )
    scale: ScaleRange = Field((0.8, 1.2), description="factor of size, 0.01 to 100")
    shear: LeanRange = Field((-10, 10), description="angle in degrees that verticals lean, -89 to 89")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {
            "angle": uniform(rng, self.degrees),
            "translate_px": [side * uniform(rng, (-self.translate, self.translate)) for side in (width, height)],
            "scale": uniform(rng, self.scale),
            "shear": uniform(rng, self.shear),
        }

    def matrix(self, params: Params, height: int, width: int) -> Matrix:
        lean = np.array([[1, -math.tan(math.radians(params["shear"]))], [0, 1]])
        matrix = about_centre(params["scale"] * turn(params["angle"]) @ lean, height=height, width=width)
        matrix[:, 2] += params["translate_px"]
        return matrix


def turn(degrees: float) -> NDArray[np.float64]:
    """2 x 2 counter-clockwise rotation for coordinates whose y runs down."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def about_centre(linear: NDArray[np.float64], *, height: int, width: int) -> Matrix:
    """The 2 x 3 matrix of a linear map that leaves the centre of the image where it is."""
    centre = np.array([width / 2, height / 2])
    return np.column_stack([linear, centre - linear @ centre])
