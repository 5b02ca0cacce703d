"""Mean and deviation of each channel, and features moved to those of a style: adaptive instance normalization.

B images, C channels, H rows, W columns; moments are float32 (B, C, 1, 1).
Source: Huang and Belongie 2017, "Arbitrary Style Transfer in Real-time", arXiv 1703.06868.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-5  # added to the variance before the root, as in the published networks


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean and standard deviation of each channel."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Over all positions of each image, (B, C, H, W); the variance is the unbiased one."""
        variance, mean = torch.var_mean(features.float(), dim=(2, 3), correction=1, keepdim=True)
        return cls(mean=mean, std=(variance + EPSILON).sqrt())

    @classmethod
    def blend(cls, moments: Sequence["Moments"], shares: Sequence[float]) -> "Moments":
        """The average of several styles' moments with shares that add up to 1."""
        return cls(
            mean=weighted([each.mean for each in moments], shares),
            std=weighted([each.std for each in moments], shares),
        )


def weighted(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The sum of the tensors times their shares."""
    return torch.stack([tensor * share for tensor, share in zip(tensors, shares, strict=True)]).sum(0)


def adaptive_instance_norm(features: Tensor, style: Moments, *, strength: float) -> Tensor:
    """Features with the style's moments in place of their own; `strength` 0 leaves them untouched, 1 moves them.

    Any number between is the average of both. Features keep their precision, the moments are taken in fp32.
    """
    if strength == 0:
        return features
    own = Moments.of(features)
    scale = style.std / own.std
    shift = style.mean - own.mean * scale
    scale, shift = strength * scale + (1 - strength), strength * shift
    return features * scale.to(features.dtype) + shift.to(features.dtype)
