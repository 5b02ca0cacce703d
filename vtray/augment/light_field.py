"""Light that differs across the image: small fields of gains, computed coarsely and spread over the image.

Coordinates are in units of the longer side, x to the right and y down, so shapes keep their form at any size;
directions are degrees, 0 to the right and 90 down. Positions in parameters are shares of width and height.
"""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.augment.operator import Image

FIELD_PX = 128  # longer side of a field; edges softer than 2 / FIELD_PX come out smooth

Field32 = NDArray[np.float32]  # (rows, columns) or (rows, columns, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldGrid:
    """Where the cells of a field lie: x (1, columns) and y (rows, 1) of their centres, and the image's extent."""

    x: Field32
    y: Field32
    width: float
    height: float

    @classmethod
    def over(cls, image: Image) -> Self:
        """A grid of at most FIELD_PX x FIELD_PX cells over an image of any size."""
        height, width = (side / max(image.shape[:2]) for side in image.shape[:2])
        columns, rows = (max(1, round(FIELD_PX * side)) for side in (width, height))
        x = (np.arange(columns)[None] + 0.5) * width / columns
        y = (np.arange(rows)[:, None] + 0.5) * height / rows
        return cls(x=x.astype(np.float32), y=y.astype(np.float32), width=width, height=height)

    def along(self, angle: float, *, x: float, y: float) -> Field32:
        """Signed distance along a direction from the point at the shares (x, y) of width and height."""
        cos, sin = (np.float32(part(np.deg2rad(angle))) for part in (np.cos, np.sin))
        return (self.x - np.float32(x * self.width)) * cos + (self.y - np.float32(y * self.height)) * sin


def smooth_step(share: Field32) -> Field32:
    """0 below 0, 1 above 1, and a cubic with flat ends between."""
    cut = np.clip(share, 0, 1)
    smooth: Field32 = cut * cut * (3 - 2 * cut)
    return smooth


def shade(image: Image, gain: Field32) -> Image:
    """Levels times a field of gains, (rows, columns) or (rows, columns, 3), rounded and cut to 0..255."""
    height, width = image.shape[:2]
    colour_gain = gain if gain.ndim == 3 else cv2.merge([gain, gain, gain])
    spread = cv2.resize(colour_gain, (width, height), interpolation=cv2.INTER_LINEAR)
    shaded: Image = cv2.multiply(image, spread, dtype=cv2.CV_8U)
    return shaded
