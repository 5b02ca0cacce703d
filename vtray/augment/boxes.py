"""Random boxes inside an image, drawn by area and aspect ratio as torchvision draws them."""

import math

import numpy as np

Box = list[int]  # left, top, right, bottom in pixels; right and bottom are the first pixel outside

_NUM_TRIES = 10


def draw_box(
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Box | None:
    """A box inside an image of (height, width); None when ten tries gave none that fits.

    area: part of the image, uniform. ratio: width / height, log-uniform.
    Source: torchvision RandomResizedCrop.get_params, after Szegedy et al. 2015.
    """
    height, width = size
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_NUM_TRIES):
        box_area = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(*log_ratio))
        box_width = round(math.sqrt(box_area * aspect))
        box_height = round(math.sqrt(box_area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return [left, top, left + box_width, top + box_height]
    return None


def largest_centre_box(size: tuple[int, int], *, ratio: tuple[float, float]) -> Box:
    """The largest box in the middle of an image of (height, width) whose width / height lies in `ratio`."""
    height, width = size
    box_width = min(width, max(1, round(height * ratio[1])))
    box_height = min(height, max(1, round(width / ratio[0])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return [left, top, left + box_width, top + box_height]
