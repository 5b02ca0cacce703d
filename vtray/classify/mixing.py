"""Mixing the images and labels of a batch: MixUp blends two images, CutMix pastes a piece of one into another.

Partners are neighbours in the batch (the first goes with the last), so a batch keeps its share of every class.
B batch, C channels, H W height and width, K classes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # a recipe that names these needs no torch to be checked
    from torch import Tensor

Strength = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Chance = Annotated[float, Field(ge=0, le=1)]


class _Mix(BaseModel):
    """Base: whether this batch is mixed, and by how much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p: Chance = Field(1.0, description="probability that a batch is mixed")

    def __call__(self, inputs: "Tensor", targets: "Tensor", rng: np.random.Generator) -> tuple["Tensor", "Tensor"]:
        """Mixed inputs and targets, new tensors of the same shapes and types; or the given ones.

        inputs: (B, ...), uint8 or floating. targets: (B, K), rows that sum to 1.
        """
        if rng.random() >= self.p:
            return inputs, targets
        return self._mix(inputs, targets, rng)

    def _mix(self, inputs: "Tensor", targets: "Tensor", rng: np.random.Generator) -> tuple["Tensor", "Tensor"]:
        raise NotImplementedError


class MixUp(_Mix):
    """Blends each image with its neighbour, and the labels in the same proportion.

    Source: Zhang et al. 2018, one proportion per batch. On activations it is manifold mixup, Verma et al. 2019.
    """

    op: Literal["mixup"] = "mixup"
    alpha: Strength = Field(
        0.2, description="proportions come from Beta(alpha, alpha); 1 = any, small = mostly one"
    )

    def _mix(self, inputs: "Tensor", targets: "Tensor", rng: np.random.Generator) -> tuple["Tensor", "Tensor"]:
        kept = float(rng.beta(self.alpha, self.alpha))
        return _blend(inputs, kept), _blend(targets, kept)


class CutMix(_Mix):
    """Replaces a rectangle of each image by that of its neighbour; labels are mixed by area.

    Source: Yun et al. 2019, one rectangle per batch; it may reach over the edge, and the area that is left counts.
    """

    op: Literal["cutmix"] = "cutmix"
    alpha: Strength = Field(1.0, description="areas come from Beta(alpha, alpha); 1 = any size")

    def _mix(self, inputs: "Tensor", targets: "Tensor", rng: np.random.Generator) -> tuple["Tensor", "Tensor"]:
        if inputs.ndim != 4:
            raise ValueError(f"cutmix of inputs {tuple(inputs.shape)}; it needs images (B, C, H, W), or use mixup")
        height, width = inputs.shape[2:]
        half = 0.5 * np.sqrt(1 - rng.beta(self.alpha, self.alpha))
        top, bottom = _cut(height, half, rng)
        left, right = _cut(width, half, rng)
        mixed = inputs.clone()
        mixed[:, :, top:bottom, left:right] = inputs.roll(1, 0)[:, :, top:bottom, left:right]
        return mixed, _blend(targets, 1 - (bottom - top) * (right - left) / (height * width))


AnyMix = Annotated[MixUp | CutMix, Field(discriminator="op")]


def mix_batch(
    inputs: "Tensor", targets: "Tensor", mixes: Sequence[MixUp | CutMix], rng: np.random.Generator
) -> tuple["Tensor", "Tensor"]:
    """The batch after the first of `mixes` that applies; each is tried with its own p, and at most one is done."""
    for mix in mixes:
        mixed, mixed_targets = mix(inputs, targets, rng)
        if mixed is not inputs:
            return mixed, mixed_targets
    return inputs, targets


def _cut(size: int, half: float, rng: np.random.Generator) -> tuple[int, int]:
    centre = int(rng.integers(size))
    return max(int(centre - half * size), 0), min(int(centre + half * size), size)


def _blend(rows: "Tensor", kept: float) -> "Tensor":
    """kept * row + (1 - kept) * the row before; bytes are rounded."""
    if rows.is_floating_point():
        return rows * kept + rows.roll(1, 0) * (1 - kept)
    return (rows.float() * kept + rows.roll(1, 0).float() * (1 - kept)).round().to(rows.dtype)
