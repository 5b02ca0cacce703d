"""Floors and walls: wood, brushed steel, painted metal and a blurred room, in linear light.

Every texture is drawn from the generator that is passed in; float32 (H, W, 3).
"""

import cv2
import numpy as np

from vtray.demo.light import Pixels, colour, softened, tinted

Size = tuple[int, int]  # rows, columns


def noise(rng: np.random.Generator, size: Size, *, cells: Size) -> Pixels:
    """Smooth noise of unit variance at the grid points, with that many cells down and across; float32 (H, W)."""
    grid = rng.standard_normal(cells, dtype=np.float32)
    return np.asarray(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def wood(rng: np.random.Generator, size: Size, *, tone: str) -> Pixels:
    """Boards that run left to right, with grain and joints."""
    rows = size[0]
    num_boards = int(rng.integers(3, 6))
    board = np.arange(rows) * num_boards // rows
    drift = noise(rng, size, cells=(4 * num_boards, 4))
    rings = np.sin(np.linspace(0, 22 * num_boards, rows, dtype=np.float32)[:, None] + 3.2 * drift)
    grain = noise(rng, size, cells=(rows, 10))
    value = 1 + 0.1 * rings + 0.08 * grain + rng.normal(0, 0.1, num_boards).astype(np.float32)[board][:, None]
    joints = np.flatnonzero(np.diff(board))
    value[joints] *= 0.45
    value[joints + 1] *= 0.8
    return tinted(np.clip(value, 0.2, 1.6), colour(tone))


def steel(rng: np.random.Generator, size: Size) -> Pixels:
    """Brushed steel: streaks from left to right and slow bands of light."""
    streaks = noise(rng, size, cells=(size[0] // 2, 4))
    bands = noise(rng, size, cells=(3, 4))
    grey = np.clip(0.36 + 0.013 * streaks + 0.07 * bands, 0.08, 0.9)
    return tinted(grey, np.array([0.97, 1.0, 1.03], np.float32))


def painted(rng: np.random.Generator, size: Size, *, tone: str) -> Pixels:
    """Painted sheet metal, lit unevenly."""
    value = np.clip(1 + 0.12 * noise(rng, size, cells=(3, 3)), 0.5, 1.6)
    return tinted(value, colour(tone))


def room(rng: np.random.Generator, size: Size, *, tone: str) -> Pixels:
    """A room out of focus: a wall, a few furniture shadows and round spots of lamps."""
    rows, columns = size
    picture = painted(rng, size, tone=tone)
    for _ in range(int(rng.integers(2, 5))):
        left, width = (int(rng.uniform(*limits) * columns) for limits in ((-0.1, 0.9), (0.08, 0.3)))
        top = int(rng.uniform(0, 0.7) * rows)
        picture[top:, max(left, 0) : max(left + width, 0)] *= np.float32(rng.uniform(0.45, 1.35))
    picture = softened(picture, columns / 28)
    lamps = np.zeros((rows, columns), np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        spot = (int(rng.uniform(0, columns)), int(rng.uniform(0, 0.8 * rows)))
        cv2.circle(lamps, spot, int(columns * rng.uniform(0.02, 0.05)), int(rng.uniform(60, 200)), -1, cv2.LINE_AA)
    glow = cv2.GaussianBlur(lamps, (0, 0), columns / 160).astype(np.float32) / 255
    return picture + tinted(glow, np.array([0.55, 0.47, 0.36], np.float32))


def table_top(texture: Pixels, size: Size, *, spread: float) -> Pixels:
    """A square texture laid down flat: the far edge shows `spread` times as much of it as the near edge."""
    rows, columns = size
    height, width = texture.shape[:2]
    inset = width * (1 - 1 / spread) / 2
    source = np.array([(0, 0), (width, 0), (width - inset, height), (inset, height)], np.float32)
    target = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    onto = cv2.getPerspectiveTransform(source, target)
    laid = cv2.warpPerspective(texture, onto, (columns, rows), borderMode=cv2.BORDER_REFLECT)
    depth = np.linspace(0.72, 1.08, rows, dtype=np.float32)[:, None, None]  # the far edge gets less light
    return np.asarray(laid * depth, np.float32)
