"""Regions of styles: masks that say where a style applies, and how several of them share a pixel.

A mask is white (255) where its style applies, black (0) where not, grey in between.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.errors import ImageError
from vtray.style.work import Image

Mask = NDArray[np.uint8]  # H x W
Weights = NDArray[np.float32]  # ... x H x W, 0 to 1


def check_mask(mask_image: Image | Mask, *, name: str, height: int, width: int) -> Mask:
    """The mask of an image of that size as uint8 (H, W): the brightness of the RGB image that `decode` gives.

    Raises:
        ImageError: stage "stylize": the mask has another size than the image ("mask_size").
    """
    if mask_image.shape[:2] != (height, width):
        sizes = f"mask {name} is {mask_image.shape[1]} x {mask_image.shape[0]}, the image {width} x {height}"
        raise ImageError("stylize", "mask_size", f"{sizes}; draw the mask on the upright image")
    return np.asarray(cv2.cvtColor(mask_image, cv2.COLOR_RGB2GRAY)) if mask_image.ndim == 3 else mask_image


def region_weights(mask: Mask, *, size: tuple[int, int]) -> Weights:
    """The mask at the working size (h, w): each weight is the mean of what it covers, float32 0 to 1."""
    height, width = size
    shrinks = height <= mask.shape[0] and width <= mask.shape[1]
    weights = mask.astype(np.float32) / 255
    resized = cv2.resize(weights, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32).clip(0, 1)


def partition(masks: Sequence[Mask]) -> tuple[Weights, Weights]:
    """Weights of the styles (N, H, W) and of the content (H, W), float32; together 1 at every pixel.

    Where masks overlap to more than white the styles share in proportion; what they leave is the content's.

    Raises:
        ValueError: no mask, or masks of two sizes.
    """
    sizes = {mask.shape for mask in masks}
    if len(sizes) != 1:
        raise ValueError(f"{len(masks)} masks of the sizes {sorted(sizes)}; give one or more of the same size")
    weights: Weights = np.stack(masks).astype(np.float32) / np.float32(255)
    total = weights.sum(axis=0)
    weights /= np.maximum(total, 1)
    return weights, np.maximum(1 - total, 0)
