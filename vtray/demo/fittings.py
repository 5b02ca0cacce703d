"""Parts of the machine that are drawn line by line: the steel coil and the rail with the price tag."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.demo.light import Pixels, colour, linear
from vtray.demo.panel import Lettering, Panel

WIRE_STEPS = 48  # points of one turn of a coil
_SUBPIXEL_BITS = 4


def spiral(radius: float, *, turns: float, pitch: float) -> Pixels:
    """A coil seen along its axis from a little above, back to front, (N, 3): x, y in shares of the picture, scale.

    `pitch` is how much further away each turn lies, in distances of the camera.
    """
    steps = np.linspace(0, 2 * math.pi * turns, int(WIRE_STEPS * turns), dtype=np.float32)[::-1]
    scale = 1 / (1 + pitch * steps / (2 * math.pi))
    rise = 0.55 * (1 - scale)
    x, y = radius * np.cos(steps) * scale, radius * (np.sin(steps) * scale - rise)
    return np.asarray(np.stack([x, y, scale], axis=1), np.float32)


def draw_wire(picture: Pixels, path: Pixels, *, middle: Pixels, clear: Pixels | None = None) -> None:
    """Paint steel wire into the picture, far turns darker; where it covers, `clear` becomes 0."""
    size_px = picture.shape[0]
    points = ((path[:, :2] + middle) * size_px * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    turns = [slice(max(0, end - WIRE_STEPS - 1), end) for end in range(len(points), 1, -WIRE_STEPS)]
    for turn in reversed(turns):
        part, scale = points[turn], float(path[turn, 2].mean())
        for width, grey in ((0.026, 0.05), (0.019, 0.28), (0.007, 1.0)):
            mask = np.zeros(picture.shape[:2], np.uint8)
            thick = max(1, round(width * scale * size_px))
            cv2.polylines(mask, [part], False, 255, thick, cv2.LINE_AA, _SUBPIXEL_BITS)
            _paint(picture, mask, value=grey * scale**3)
            if clear is not None:
                _paint(clear, mask, value=0.0)


def _paint(picture: Pixels, mask: NDArray[np.uint8], *, value: float) -> None:
    x, y, width, height = cv2.boundingRect(mask)
    part = (slice(y, y + height), slice(x, x + width))
    share = mask[part].astype(np.float32)[..., None] / 255
    picture[part] += (np.float32(value) - picture[part]) * share


def draw_price_rail(picture: Pixels, rng: np.random.Generator) -> None:
    """The rail at the front edge of a shelf, with slot and price."""
    size_px = picture.shape[0]
    top, bottom = int(0.875 * size_px), int(0.95 * size_px)
    shade = np.linspace(1.25, 0.55, bottom - top, dtype=np.float32)[:, None, None]
    picture[top:bottom] = shade * colour("#a9b0b7")
    picture[bottom:] = 0.015
    tag = Panel(3.4, 1.2, colour="#f7f7f2")
    slot, cents = f"{'ABCDE'[int(rng.integers(5))]}{int(rng.integers(1, 10))}", int(rng.integers(16, 60)) * 5
    tag.text(slot, (0.65, 0.6), Lettering(size=0.5, fill="#b3151c", weight=0.05))
    tag.text(f"{cents // 100}.{cents % 100:02d}", (2.2, 0.6), Lettering(size=0.5, fill="#1a1a1a", weight=0.04))
    height = int(0.055 * size_px)
    art = cv2.resize(tag.art(), (int(height * 3.4 / 1.2), height), interpolation=cv2.INTER_AREA)
    left = int(rng.uniform(0.3, 0.55) * size_px)
    start = (top + bottom - height) // 2
    picture[start : start + height, left : left + art.shape[1]] = 0.9 * linear(art)
