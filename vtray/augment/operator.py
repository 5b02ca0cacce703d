"""What an operator is: a small frozen model called as `op(sample, rng) -> sample`.

Drawing the parameters (`draw`) is apart from applying them (`apply`), so the second half is a pure function
and what was drawn can be stored beside the image and applied again.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Image = NDArray[np.uint8]  # H x W x 3, RGB
Params = dict[str, Any]  # JSON values only: str, int, float, bool, list

Probability = Annotated[float, Field(ge=0, le=1)]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the lower end {limits[0]} is above the upper end {limits[1]}; swap them")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One image and what belongs to it; operators return a new sample and never write into an array.

    image: uint8 (H, W, 3) RGB. boxes: float32 (N, 4) x_min, y_min, x_max, y_max in pixels, with box_labels int32
    (N,). mask: uint8 (H, W). keypoints: float32 (K, 2) x, y in pixels. applied: one record per applied operator,
    its name under "op" and the drawn parameters.
    """

    image: Image
    boxes: NDArray[np.float32] | None = None
    box_labels: NDArray[np.int32] | None = None
    mask: NDArray[np.uint8] | None = None
    keypoints: NDArray[np.float32] | None = None
    label: int | None = None
    applied: tuple[Params, ...] = ()

    def with_image(self, image: Image) -> Self:
        """The same sample with other pixels of the same size."""
        return replace(self, image=image)


class Operator(BaseModel):
    """Base of all operators: `op` is the name in recipes, `p` the probability that the operator is applied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str
    p: Probability = Field(1.0, description="probability that the operator is applied")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Draw, apply and record; with probability 1 - p the sample comes back as it is."""
        if self.p < 1 and rng.random() >= self.p:
            return sample
        height, width = sample.image.shape[:2]
        params = self.draw(rng, height, width)
        moved = self.apply(sample, params)
        return replace(moved, applied=(*sample.applied, {"op": self.op, **params}))

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """The random parameters for one image of that size, as JSON values."""
        raise NotImplementedError

    def apply(self, sample: Sample, params: Params) -> Sample:
        """Apply drawn parameters: a pure function of the sample and the parameters."""
        raise NotImplementedError


class ImageOperator(Operator):
    """An operator that changes pixels in place: boxes, mask and keypoints stay where they are."""

    def apply(self, sample: Sample, params: Params) -> Sample:
        return sample.with_image(self.change(sample.image, params))

    def change(self, image: Image, params: Params) -> Image:
        """uint8 (H, W, 3) -> uint8 (H, W, 3), same size; never writes into `image`."""
        raise NotImplementedError


def uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """One float from the closed range; equal ends give exactly that value."""
    return float(rng.uniform(*limits))
