"""Anti-aliased resizing, the same pixels as Pillow's BILINEAR, whichever of two does it.

`vtray_resample`, the C module of resample.c, is there if a compiler was when vtray was installed; without it
Pillow does the same work and takes about six times as long.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

try:
    import vtray_resample
except ImportError:
    vtray_resample = None

Image = NDArray[np.uint8]  # H x W x 3, RGB
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside


def resize(image: Image, *, height: int, width: int) -> Image:
    """uint8 (H, W, 3) at another size, the same pixels as Pillow's resize with BILINEAR."""
    return resize_part(image, (0, 0, image.shape[1], image.shape[0]), height=height, width=width)


def resize_part(image: Image, box: Box, *, height: int, width: int) -> Image:
    """A box inside the image at another size, the same pixels as Pillow's crop and then resize with BILINEAR.

    Source: Pillow 13. Older ones always take the rows first, which differs by 1 level in a few pixels of a part
    that gets much lower.
    """
    left, top, right, bottom = box
    part = image[top:bottom, left:right]
    if part.shape[:2] == (height, width):
        return np.ascontiguousarray(part)
    columns_first = _columns_first(part, height, width)
    if vtray_resample is None or not image.flags.c_contiguous:
        return _resize_with_pillow(part, height, width, columns_first=columns_first)
    resized = np.empty((height, width, 3), np.uint8)
    vtray_resample.resize(image, image.shape[1], box, resized, (width, height), columns_first)
    return resized


def _columns_first(part: Image, height: int, width: int) -> bool:
    """Pillow 13's order of the two passes, each of which rounds: columns first if that leaves much less to do."""
    rows_less, columns_less = int(part.shape[0]) - height, int(part.shape[1]) - width
    return rows_less > max(0, 2 * columns_less)


def _resize_with_pillow(part: Image, height: int, width: int, *, columns_first: bool) -> Image:
    """One pass after the other, so that the order does not depend on Pillow's version."""
    between = (part.shape[1], height) if columns_first else (width, part.shape[0])
    resized = Pillow.fromarray(part).resize(between, Pillow.Resampling.BILINEAR)
    return np.asarray(resized.resize((width, height), Pillow.Resampling.BILINEAR))
