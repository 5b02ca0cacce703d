"""Between uint8 images and the float pixels that engines work on.

An image is uint8 (H, W, 3); pixels are float32 (B, 3, H, W) in 0 to 1, contiguous: L-BFGS needs flat views.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtray.style.work import Image

Size = tuple[int, int]  # height, width
Floats = NDArray[np.float32]
Array = TypeVar("Array", bound=NDArray[Any])


def to_pixels(images: Sequence[Image], device: torch.device | str = "cpu") -> Tensor:
    """Images of one size -> pixels."""
    stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    return torch.from_numpy(stacked).to(device).float().div_(255)


def to_images(pixels: Tensor) -> list[Image]:
    """Pixels, clipped to 0 to 1 and rounded to the nearest of 256 levels -> images."""
    levels = pixels.detach().clamp(0, 1).mul(255).round_().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def rounded(pixels: Tensor) -> Tensor:
    """The pixels of the 8-bit image that a user gets."""
    return pixels.detach().clamp(0, 1).mul(255).round_().div_(255)


def resized(image: Array, size: Size) -> Array:
    """(H, W, ...) of any depth at another size: area averages when it shrinks, cubic when it grows."""
    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    made: Array = cv2.resize(image, (width, height), interpolation=interpolation)
    return made


def resized_pixels(pixels: Tensor, size: Size) -> Tensor:
    """Pixels at another size, resampled as images are; may leave 0 to 1 where it overshoots."""
    planes = [
        resized(np.ascontiguousarray(one), size).transpose(2, 0, 1)
        for one in pixels.detach().permute(0, 2, 3, 1).cpu().numpy()
    ]
    return torch.from_numpy(np.ascontiguousarray(np.stack(planes))).to(pixels.device)
