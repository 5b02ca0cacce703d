"""A rendered object cut out of its surroundings: the light it sends and the light it lets through."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import cv2
import numpy as np

from vtray.demo.light import Pixels, dimmed


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How an object stands: turn and height of the camera in radians, height of the upright object in pixels."""

    yaw: float
    tilt: float
    height_px: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Cutout:
    """What is left of an object when everything around it is taken away.

    `light` is what it sends itself, linear float32 (H, W, 3); `clear` (H, W, 3) the share of what lies behind that
    shines through: 1 beside the object, 0 where it is opaque, a tint inside a bottle. `foot` is the pixel (x, y)
    of the middle of its base. `lens`: what lies behind appears left-right reversed.
    """

    light: Pixels
    clear: Pixels
    foot: tuple[float, float]
    lens: bool = False

    @cached_property
    def cover(self) -> Pixels:
        """How much of the background is hidden, float32 (H, W)."""
        return np.asarray(1 - cv2.transform(self.clear, np.full((1, 3), 1 / 3, np.float32)), np.float32)

    def reduced(self, factor: float) -> Self:
        """The same cutout, `factor` (up to 2) times smaller: how supersampled drawings become smooth."""
        share = 1 / factor
        light, clear = (
            cv2.resize(plane, None, fx=share, fy=share, interpolation=cv2.INTER_LINEAR)
            for plane in (self.light, self.clear)
        )
        return type(self)(
            light=light, clear=clear, foot=(self.foot[0] * share, self.foot[1] * share), lens=self.lens
        )

    def upside_down(self) -> Self:
        """Mirrored at a horizontal line: the reflection in a table, when rendered from below."""
        foot = (self.foot[0], self.light.shape[0] - self.foot[1])
        light, clear = self.light[::-1].copy(), self.clear[::-1].copy()
        return type(self)(light=light, clear=clear, foot=foot, lens=self.lens)

    def placed(self, size_px: int, at: tuple[float, float]) -> Self:
        """On a square canvas with the foot at pixel `at`; what falls outside is lost."""
        shift = np.array([[1, 0, at[0] - self.foot[0]], [0, 1, at[1] - self.foot[1]]], np.float32)
        light = cv2.warpAffine(self.light, shift, (size_px, size_px), borderValue=(0, 0, 0))
        clear = cv2.warpAffine(self.clear, shift, (size_px, size_px), borderValue=(1, 1, 1))
        return type(self)(light=light, clear=clear, foot=at, lens=self.lens)

    def over(self, behind: Pixels) -> Pixels:
        """The object in front of a picture of the same size."""
        if self.lens:
            behind = self._through_lens(behind)
        return self.light + self.clear * behind

    def _through_lens(self, behind: Pixels) -> Pixels:
        """Inside the object the picture is reversed left to right, as water in a round bottle does."""
        column = np.arange(behind.shape[1], dtype=np.float32)
        flipped = np.broadcast_to(2 * self.foot[0] - column, behind.shape[:2])
        row = np.broadcast_to(np.arange(behind.shape[0], dtype=np.float32)[:, None], behind.shape[:2])
        inside = np.clip(self.cover * 6, 0, 1)
        bent = cv2.remap(
            behind,
            np.ascontiguousarray(flipped),
            np.ascontiguousarray(row),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        return dimmed(behind, 1 - inside) + dimmed(bent, inside)
