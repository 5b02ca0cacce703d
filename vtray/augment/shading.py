"""Light that is not the same everywhere: a gradient with vignette (UnevenIllumination) and a cast shadow.

Gains are meant in linear light and applied to levels as gain ** (1 / 2.2): the same for a 2.2 power curve.
"""

import math
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from vtray.augment.fields import WholeRange
from vtray.augment.light_field import Field32, FieldGrid, shade, smooth_step
from vtray.augment.limits import AngleRange, UnitRange, within
from vtray.augment.linear_light import POWER
from vtray.augment.operator import Image, ImageOperator, Params, Range, uniform

StopsRange = Annotated[Range, within(0, 6)]
EdgeCount = Annotated[int, Field(ge=1, le=4)]
SoftnessRange = Annotated[Range, within(0.02, 1)]

LEVELS_PER_STOP = np.float32(math.log(2) / POWER)  # logarithm of the gain of levels for one stop of light
EDGE_DISTANCES = (0.1, 0.35)  # of a shadow's edges from its centre, in units of the longer side
EDGE_TURN = 20.0  # degrees by which an edge may differ from that of a regular shape


class UnevenIllumination(ImageOperator):
    """Brighter on one side than on the other, and darker towards the corners."""

    op: Literal["uneven_illumination"] = "uneven_illumination"
    strength: StopsRange = Field(
        (0.5, 2), description="stops between the brightest and the darkest side, 0 to 6; half up and half down"
    )
    angle: AngleRange = Field((0, 360), description="direction of the bright side in degrees; 0 right, 90 down")
    vignette: StopsRange = Field((0, 0.7), description="stops by which the corners are darker, 0 to 6")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {name: uniform(rng, getattr(self, name)) for name in ("strength", "angle", "vignette")}

    def change(self, image: Image, params: Params) -> Image:
        if params["strength"] == params["vignette"] == 0:
            return image
        grid = FieldGrid.over(image)
        stops = params["strength"] * _slope(grid, params["angle"]) - params["vignette"] * _corner_distance(grid)
        return shade(image, np.exp(LEVELS_PER_STOP * stops))


def _slope(grid: FieldGrid, angle: float) -> Field32:
    """From -0.5 to 0.5 across the whole image in a direction."""
    radians = np.deg2rad(angle)
    extent = abs(np.cos(radians)) * grid.width + abs(np.sin(radians)) * grid.height
    return grid.along(angle, x=0.5, y=0.5) / np.float32(extent)


def _corner_distance(grid: FieldGrid) -> Field32:
    """Squared distance from the centre: 0 there and 1 in the corners."""
    squared = (grid.x - np.float32(grid.width / 2)) ** 2 + (grid.y - np.float32(grid.height / 2)) ** 2
    return (squared / ((grid.width**2 + grid.height**2) / 4)).astype(np.float32)


class CastShadow(ImageOperator):
    """The soft shadow of something outside the picture, bluish because the sky or the room still lights it.

    One edge makes a half plane, two a band (a pole), three or four a polygon.
    """

    op: Literal["cast_shadow"] = "cast_shadow"
    darkness: UnitRange = Field((0.3, 0.7), description="share of the light that the shadow takes away, 0 to 1")
    softness: SoftnessRange = Field(
        (0.03, 0.2), description="width of the soft edge in units of the longer side, 0.02 to 1"
    )
    tint: UnitRange = Field((0, 0.25), description="share of the darkness that is missing in blue, 0 (grey) to 1")
    num_edges: WholeRange[EdgeCount] = Field((1, 4), description="fewest and most edges of the shadow, 1 to 4")
    angle: AngleRange = Field((0, 360), description="direction of the first edge in degrees; 0 right, 90 down")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        num_edges = int(rng.integers(*self.num_edges, endpoint=True))
        return {
            "darkness": uniform(rng, self.darkness),
            "softness": uniform(rng, self.softness),
            "tint": uniform(rng, self.tint),
            "x": uniform(rng, (0.2, 0.8)),
            "y": uniform(rng, (0.2, 0.8)),
            "edges": _draw_edges(rng, num_edges, first=uniform(rng, self.angle)),
        }

    def change(self, image: Image, params: Params) -> Image:
        if params["darkness"] == 0:
            return image
        shadow = shadow_field(FieldGrid.over(image), params)
        kept = 1 - params["darkness"] * (1 - params["tint"] * np.array([0, 0.4, 1]))  # of red, green, blue light
        channels = [1 - shadow * np.float32(1 - share ** (1 / POWER)) for share in kept]
        return shade(image, cv2.merge(channels))


def _draw_edges(rng: np.random.Generator, num_edges: int, *, first: float) -> list[list[float]]:
    """Outward direction in degrees and distance from the centre of each edge, roughly a regular shape."""
    return [
        [first + 360 / num_edges * i + uniform(rng, (-EDGE_TURN, EDGE_TURN)), uniform(rng, EDGE_DISTANCES)]
        for i in range(num_edges)
    ]


def shadow_field(grid: FieldGrid, params: Params) -> Field32:
    """1 in the full shadow, 0 in the light; half way at the edges, each `softness` wide, with rounded corners."""
    shadow = np.ones((1, 1), np.float32)
    for angle, distance in params["edges"]:
        outside = grid.along(angle, x=params["x"], y=params["y"]) - np.float32(distance)
        shadow = shadow * smooth_step(0.5 - outside / np.float32(params["softness"]))
    return shadow
