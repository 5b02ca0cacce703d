"""How geometric operators move what belongs to an image: one 2x3 matrix for boxes, mask and keypoints.

A matrix maps (x, y, 1) of the old image to (x, y) of the new one. Coordinates run along pixel edges: column i
reaches from i to i + 1 and its centre is i + 0.5, so a box around the whole image is (0, 0, width, height).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.augment.fields import Border, Colour
from vtray.augment.operator import Image, Sample

Matrix = NDArray[np.float64]  # 2 x 3
Levels = NDArray[np.uint8]  # (H, W, 3) image or (H, W) mask

CV2_BORDERS: dict[Border, int] = {
    "constant": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT_101,  # the edge pixel itself is not repeated, as in Pillow and torchvision
    "edge": cv2.BORDER_REPLICATE,
}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What is seen outside the image; a mask is 0 (background) where an image has the fill colour."""

    border: Border = "constant"
    fill: Colour = (0, 0, 0)


BLACK = Outside()


def axes_matrix(x: tuple[float, float], y: tuple[float, float]) -> Matrix:
    """Factor and shift in pixels of x, then of y."""
    return np.array([[x[0], 0, x[1]], [0, y[0], y[1]]], np.float64)


def warp(pixels: Levels, matrix: Matrix, *, size: tuple[int, int], outside: Outside = BLACK) -> Levels:
    """An image (bilinear, not anti-aliased) or a mask (nearest) seen through `matrix`, as (height, width)."""
    centres = matrix.copy()  # cv2 puts whole numbers on pixel centres
    centres[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    is_mask = pixels.ndim == 2
    warped: Levels = cv2.warpAffine(
        pixels,
        centres,
        size[::-1],
        flags=cv2.INTER_NEAREST if is_mask else cv2.INTER_LINEAR,
        borderMode=CV2_BORDERS[outside.border],
        borderValue=0 if is_mask else outside.fill,
    )
    return warped


def move(sample: Sample, matrix: Matrix, *, image: Image, outside: Outside = BLACK) -> Sample:
    """The sample with its new image, and boxes, mask and keypoints where `matrix` puts them.

    Boxes become the axis-aligned hull of their moved corners, clipped to the new image; those with nothing left
    are dropped together with their label. Keypoints keep their number and may lie outside.
    """
    if sample.boxes is None and sample.mask is None and sample.keypoints is None:
        return sample.with_image(image)
    size = image.shape[:2]
    mask = sample.mask if sample.mask is None else warp(sample.mask, matrix, size=size, outside=outside)
    keypoints = sample.keypoints if sample.keypoints is None else move_points(sample.keypoints, matrix)
    return _move_boxes(replace(sample, image=image, mask=mask, keypoints=keypoints), matrix)


def move_points(points: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """(K, 2) x, y -> (K, 2) x, y."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def _move_boxes(sample: Sample, matrix: Matrix) -> Sample:
    if sample.boxes is None:
        return sample
    corners = sample.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    moved = move_points(corners, matrix).reshape(-1, 4, 2)
    limit = np.array(sample.image.shape[1::-1], np.float32)
    low, high = moved.min(axis=1).clip(0, limit), moved.max(axis=1).clip(0, limit)
    kept = (low < high).all(axis=1)
    labels = sample.box_labels if sample.box_labels is None else sample.box_labels[kept]
    return replace(sample, boxes=np.hstack([low, high])[kept], box_labels=labels)
