"""What a network sees of one image: its plain middle, or an augmented variant of it.

A variant is the augment job's variant of the same number and seed, so training sees pixels that `vtray augment`
would write.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from vtray.augment.operator import Image
from vtray.augment.recipe import Recipe
from vtray.augment.variants import augment
from vtray.classify.preprocessing import Preprocessing
from vtray.images import MAX_PIXELS, decode


@dataclass(frozen=True, kw_only=True)
class ViewMaker:
    """Makes views of encoded images; without a recipe all of them are plain."""

    preprocessing: Preprocessing
    recipe: Recipe | None = None
    seed: int = 0
    max_pixels: int = MAX_PIXELS

    def views(self, encoded: bytes, numbers: Sequence[int]) -> list[Image]:
        """uint8 (crop, crop, 3) for each view number, from one decode; 0 is plain.

        An augmented image that has the crop's size stays as it is; others are prepared as plain ones.
        Raises: ImageError (stage decode or augment).
        """
        image = decode(encoded, max_pixels=self.max_pixels).image
        image.flags.writeable = False  # shared by all views
        return [self._view(image, encoded, number) for number in numbers]

    def _view(self, image: Image, encoded: bytes, number: int) -> Image:
        if number == 0 or self.recipe is None:
            return self.preprocessing(image)
        seed = self.recipe.variant_seed(self.seed, hashlib.sha256(encoded).hexdigest(), number)
        varied = augment(self.recipe, image, seed).image
        side = self.preprocessing.crop_px
        return varied if varied.shape[:2] == (side, side) else self.preprocessing(varied)
