"""What a fast network is trained on: square crops at random places and scales, mirrored at random.

A crop is a function of seed, step and place in the batch: the same on any number of workers.
"""

from dataclasses import dataclass

import numpy as np

from vtray.images import MAX_PIXELS, decode
from vtray.seeding import rng_for
from vtray.style.pixels import resized
from vtray.style.work import Image


@dataclass(frozen=True, kw_only=True)
class CropMaker:
    """Makes crops of `crop_px` from images whose shorter side is taken as `size_px` to `zoom` times that."""

    crop_px: int
    size_px: int
    zoom: float = 1.5
    seed: int = 0
    max_pixels: int = MAX_PIXELS

    def __call__(self, encoded: bytes, *, step: int, place: int) -> Image:
        """uint8 (crop_px, crop_px, 3). Raises: ImageError (stage decode)."""
        rng = rng_for(self.seed, "crop", step, place)
        image = decode(encoded, max_pixels=self.max_pixels).image
        cut = self._cut(image, rng)
        return np.ascontiguousarray(cut[:, ::-1]) if rng.random() < 0.5 else cut

    def _cut(self, image: Image, rng: np.random.Generator) -> Image:
        shorter = min(image.shape[:2])
        taken_as = self.size_px * self.zoom ** rng.random()
        side = min(shorter, max(1, round(self.crop_px * shorter / taken_as)))
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
        return resized(image[top : top + side, left : left + side], (self.crop_px, self.crop_px))
