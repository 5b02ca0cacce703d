"""The lecture's three losses as pure functions, one value per image.

B images, C channels, H rows, W columns. Images of a batch never mix: every function returns shape (B,).
Source: Gatys et al. 2015, arXiv 1508.06576, and the lecture: slides/3_14 of d2l-ai/berkeley-stat-157.
"""

from typing import Any

import torch
from torch import Tensor

from vtray.style.work import Reduction


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of one layer's features, (B, C, H, W) and (B or 1, C, H, W) -> (B,).

    The lecture's ||F - T||^2, divided by C*H*W so that the size of the image cancels; Gatys halves the sum.
    """
    return (features.float() - target.float()).square().mean((1, 2, 3))  # flattening would copy channels_last


def gram_matrix(features: Tensor) -> Tensor:
    """Products of all pairs of channels, summed over positions, (B, C, H, W) -> (B, C, C), in float32.

    The lecture's F F^T, divided by C*H*W of one image; tutorials that divide by the batch size as well make the
    loss of an image depend on its neighbours in the batch.
    """
    gram: Tensor = _Gram.apply(features)
    return gram


class _Gram(torch.autograd.Function):
    """The Gram matrix with a gradient of one product instead of two, in the features' own precision and layout."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        positions = _positions_last(features).float()
        gram: Tensor = positions.transpose(1, 2) @ positions / features[0].numel()
        return gram

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        (gradient,) = gradients
        symmetric = (gradient + gradient.transpose(1, 2)) / features[0].numel()
        positions: Tensor = _positions_last(features) @ symmetric.to(features.dtype)
        batch, channels, height, width = features.shape
        return positions.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _positions_last(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C); a view where the layout is channels_last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of Gram matrices, (B, C, C) and (B or 1, C, C) -> (B,).

    The lecture's ||G - A||^2, divided by C*C; Gatys' 1 / (4 C^2 (HW)^2) is for Gram matrices that are sums.
    """
    return (gram - target).square().flatten(1).mean(1)


def total_variation(pixels: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Absolute differences of neighbouring pixels, (B, C, H, W) -> (B,); the loss that counts noise.

    sum: the lecture's sum over rows, columns and channels. mean: the mean over vertical neighbours plus the mean
    over horizontal ones, each halved, as in the lecture's code; it does not grow with the image.
    """
    vertical = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().flatten(1)
    horizontal = (pixels[..., 1:] - pixels[..., :-1]).abs().flatten(1)
    if reduction == "sum":
        return vertical.sum(1) + horizontal.sum(1)
    return (vertical.mean(1) + horizontal.mean(1)) / 2
