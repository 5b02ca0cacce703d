"""Images larger than memory: painted tile by tile, with the pixels that the whole image would have got.

`exact`: the statistics of every norm are those of the whole image, see `vtray.style.fast.field`. `fast`: those of
a small copy of it, so that the network is walked through once; its pixels differ a little.
"""

import numpy as np
import torch

from vtray.style.fast.field import Canvas, Pixels, Statistics
from vtray.style.fast.operations import OPERATIONS
from vtray.style.fast.painter import Painter
from vtray.style.pixels import resized, to_images
from vtray.style.work import Image

TILE_PX = 512
THUMBNAIL_PX = 512  # longer side of the small copy


@torch.inference_mode()
def paint_in_tiles(
    painter: Painter, image: Image, *, device: torch.device, exact: bool = True, tile_px: int = TILE_PX
) -> Image | None:
    """The stylized image, uint8 (H, W, 3); None if a pixel of it is not a finite number.

    Memory: the image twice, the features of less than full size that are in use, and those of a tile.
    """
    given = None if exact else _statistics_of_thumbnail(painter, image, device)
    canvas = _canvas(image, device, tile_px, given)
    painted = painter(Pixels(canvas, image))
    result = np.empty_like(image)
    for rows, columns in canvas.tiles(painted):
        tile = painted.window(rows, columns)
        if not bool(tile.isfinite().all()):
            return None
        result[slice(*rows), slice(*columns)] = to_images(tile)[0]
    return result


def _canvas(image: Image, device: torch.device, tile_px: int, given: list[Statistics] | None) -> Canvas:
    height, width = image.shape[:2]
    return Canvas(size=(height, width), tile_px=tile_px, device=device, operations=OPERATIONS, given=given)


def _statistics_of_thumbnail(painter: Painter, image: Image, device: torch.device) -> list[Statistics]:
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    scale = min(1.0, max(scale, painter.min_side_px / min(height, width)))
    small = np.asarray(resized(image, (round(height * scale), round(width * scale))))
    canvas = _canvas(small, device, max(small.shape), None)
    painter(Pixels(canvas, small))
    return canvas.found


def bytes_in_tiles(painter: Painter, height: int, width: int, *, tile_px: int = TILE_PX) -> int:
    """Peak memory of `paint_in_tiles`, without the network."""
    tile = painter.bytes_for(min(height, tile_px + 128), min(width, tile_px + 128))
    element = 2 if painter.precision == "bf16" else 4
    return 2 * tile + height * width * (painter.kept * element + 12)
