"""What shiny things do: highlights on the object (SpecularGlare) and its mirror image in the surface below."""

import math
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vtray.augment.bands import row_bands
from vtray.augment.fields import WholeRange
from vtray.augment.light_field import Field32, FieldGrid, shade
from vtray.augment.limits import AngleRange, UnitRange, within
from vtray.augment.linear_light import light_table
from vtray.augment.operator import Image, ImageOperator, Params, Range, uniform

HighlightCount = Annotated[int, Field(ge=0, le=20)]
LengthRange = Annotated[Range, within(0.02, 2)]
HorizonRange = Annotated[Range, within(0.5, 1)]
BlurRange = Annotated[Range, within(0, 0.2)]

CORE = 1.3  # peak of a highlight of strength 1 before it is cut to white: gives it a white core
HALO = 0.3  # share of a highlight's light that spreads wider
LN2 = np.float32(math.log(2))
ONSET = 0.015  # share of the height over which a reflection sets in: no hard line at the horizon


class SpecularGlare(ImageOperator):
    """Bright elongated highlights of lamps or windows: white in the core, fading softly."""

    op: Literal["specular_glare"] = "specular_glare"
    strength: UnitRange = Field((0.5, 1), description="light in the middle of a highlight, 0 (none) to 1 (white)")
    count: WholeRange[HighlightCount] = Field((1, 3), description="fewest and most highlights, 0 to 20")
    length: LengthRange = Field((0.1, 0.4), description="length in units of the longer side, 0.02 to 2")
    width: LengthRange = Field((0.03, 0.12), description="width in units of the longer side, 0.02 to 2")
    angle: AngleRange = Field((0, 360), description="direction of the long axis in degrees; 0 right, 90 down")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        num_highlights = int(rng.integers(*self.count, endpoint=True))
        return {"highlights": [self._draw_highlight(rng) for _ in range(num_highlights)]}

    def _draw_highlight(self, rng: np.random.Generator) -> Params:
        place = {"x": uniform(rng, (0.1, 0.9)), "y": uniform(rng, (0.1, 0.9))}
        return place | {
            name: uniform(rng, getattr(self, name)) for name in ("strength", "length", "width", "angle")
        }

    def change(self, image: Image, params: Params) -> Image:
        highlights = [highlight for highlight in params["highlights"] if highlight["strength"] > 0]
        if not highlights:
            return image
        grid = FieldGrid.over(image)
        light = np.add.reduce([highlight_field(grid, highlight) for highlight in highlights])
        # what is missing to white shrinks: nothing gets darker and white stays white
        missing = shade(cv2.bitwise_not(image), 1 - np.minimum(light, 1))
        lit: Image = cv2.bitwise_not(missing)
        return lit


def highlight_field(grid: FieldGrid, highlight: Params) -> Field32:
    """Light of one highlight: a flat core with soft edges, half as bright at its length and width, and a halo."""
    centre = {"x": highlight["x"], "y": highlight["y"]}
    along, across = (grid.along(highlight["angle"] + turn, **centre) for turn in (0, 90))
    length, width = highlight["length"] / 2, highlight["width"] / 2
    core = np.exp(-LN2 * _squared_radius(along, across, (length, width)) ** 2)
    halo = np.exp(-LN2 * _squared_radius(along, across, (length + 2 * width, 3 * width)))
    light: Field32 = np.float32(CORE * highlight["strength"]) * ((1 - HALO) * core + HALO * halo)
    return light


def _squared_radius(along: Field32, across: Field32, axes: tuple[float, float]) -> Field32:
    """1 on the ellipse with those half axes."""
    squared: Field32 = (along / np.float32(axes[0])) ** 2 + (across / np.float32(axes[1])) ** 2
    return squared


class SurfaceReflection(ImageOperator):
    """A polished desk below the horizon mirrors what stands above it, fainter and less sharp further down.

    Below the horizon the image is blended with its upside-down upper part, dimmed and tinted by the surface.
    """

    op: Literal["surface_reflection"] = "surface_reflection"
    horizon: HorizonRange = Field(
        (0.6, 0.85), description="where the surface begins, share of the height from the top, 0.5 to 1"
    )
    opacity: UnitRange = Field((0.25, 0.7), description="share of the mirror image at the horizon, 0 (none) to 1")
    fade: UnitRange = Field((0.4, 1), description="share of the opacity that is lost at the bottom, 0 to 1")
    blur: BlurRange = Field(
        (0.005, 0.03), description="blur at the bottom, in units of the longer side, 0 (mirror) to 0.2"
    )
    warmth: UnitRange = Field((0, 0.4), description="share of blue light that the surface swallows, 0 (grey) to 1")
    dimming: UnitRange = Field((0, 0.3), description="share of all light that the surface swallows, 0 to 1")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        names = ("horizon", "opacity", "fade", "blur", "warmth", "dimming")
        return {name: uniform(rng, getattr(self, name)) for name in names}

    def change(self, image: Image, params: Params) -> Image:
        height, width = image.shape[:2]
        horizon = math.ceil(params["horizon"] * height)
        depth = height - horizon
        if params["opacity"] == 0 or depth == 0:
            return image
        reflected = image.copy(order="C")
        mirrored = _tinted(image[horizon - depth : horizon][::-1], params)
        sigma_px = params["blur"] * max(height, width)
        weights = _weights(params, height, depth)
        reflected[horizon:] = _blended(image[horizon:], _softened(mirrored, sigma_px), weights=weights)
        return reflected


def _tinted(mirrored: Image, params: Params) -> Image:
    """The light that the surface sends back."""
    gains = (1 - params["dimming"]) * (1 - params["warmth"] * np.array([0, 0.4, 1]))
    tinted: Image = cv2.LUT(np.ascontiguousarray(mirrored), light_table(gains).reshape(1, 256, 3))
    return tinted


def _weights(params: Params, height: int, depth: int) -> NDArray[np.float32]:
    """Share of the mirror image in each row below the horizon, (depth,)."""
    below = np.arange(depth) + 0.5
    onset = np.minimum(below / (ONSET * height), 1)
    weights: NDArray[np.float32] = params["opacity"] * onset * (1 - params["fade"] * below / depth)
    return weights.astype(np.float32)


def _softened(mirrored: Image, sigma_px: float) -> Image:
    """Sharp in the first row, blurred by half the sigma in the middle and by the whole at the bottom."""
    if sigma_px < 0.3:  # would change nothing that 8 bits can show
        return mirrored
    half, whole = _blurred(mirrored, sigma_px / 2), _blurred(mirrored, sigma_px)
    share = np.linspace(0, 2, len(mirrored), dtype=np.float32)
    nearer = _blended(mirrored, half, weights=np.minimum(share, 1))
    return _blended(nearer, whole, weights=np.maximum(share - 1, 0))


def _blurred(image: Image, sigma_px: float) -> Image:
    """Gaussian blur whose cost does not grow with sigma: a wide one is made on a smaller image."""
    height, width = image.shape[:2]
    shrink = max(1, int(sigma_px / 2))
    small = cv2.resize(image, (-(-width // shrink), -(-height // shrink)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / shrink)
    blurred: Image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return blurred


def _blended(under: Image, over: Image, *, weights: NDArray[np.float32]) -> Image:
    """`over` upon `under` with one weight 0..1 per row, (rows,)."""
    blended = np.empty(under.shape, np.uint8)
    for rows in row_bands(*under.shape[:2]):
        difference = over[rows].astype(np.float32) - under[rows]
        blended[rows] = np.rint(under[rows] + weights[rows, None, None] * difference)
    return blended
