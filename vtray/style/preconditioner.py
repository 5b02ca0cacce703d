"""Smooth changes first: the metric in which the pixels of an image are optimized.

A gradient with respect to pixels is mostly fine detail, while what a style needs most is a change of large areas.
"""

import torch
from torch import Tensor
from torch.nn import functional

MIN_SIDE = 4


def coarse_to_fine(gradient: Tensor, *, levels: int = 4, gain: float = 1.5) -> Tensor:
    """The gradient plus its smooth parts, (B, 3, H, W) -> (B, 3, H, W); linear, symmetric and positive definite.

    One V-cycle: shrink to half, do the same there, enlarge, add. Level l counts `gain`^l times, which weighs a
    frequency f with about 1/f, as the spectrum of natural images does (Field 1987). Style transfer needs half as
    many evaluations with it, or fewer (`benchmarks/style.py`). Related: optimizing in a decorrelated basis, Olah
    et al. 2017, who change the variables instead of the metric.
    """
    height, width = gradient.shape[-2:]
    if levels == 0 or min(height, width) < MIN_SIDE:
        return gradient
    kernel = _kernel(gradient)
    half = functional.conv2d(gradient, kernel, stride=2, padding=1, groups=3)
    smooth = functional.conv_transpose2d(
        coarse_to_fine(half, levels=levels - 1, gain=gain),
        kernel,
        stride=2,
        padding=1,
        output_padding=(height % 2, width % 2),
        groups=3,
    )
    return gradient + 4 * gain * smooth


def _kernel(like: Tensor) -> Tensor:
    """The 4x4 binomial filter for each of three channels; to enlarge is to shrink transposed: all is symmetric."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], device=like.device, dtype=like.dtype) / 8
    return torch.outer(row, row).expand(3, 1, 4, 4).contiguous()
