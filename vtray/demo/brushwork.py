"""Thick oil paint: strokes of many bristles that follow a field of directions, and the relief that they leave.

Brushes are fractions of the picture's shorter side. A canvas is uint8 (H, W, 4): RGB and the height of the paint.
Points are pixels (x, y).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.demo.light import Pixels, dimmed

Canvas = NDArray[np.uint8]
Points = NDArray[np.float32]
Bristle = tuple[NDArray[np.int32], list[float], list[int]]  # points, RGB and height, points left out at each end

CELL_PX = 4  # size of a cell of the fields that strokes follow

_GROUND = (60, 42, 34, 90)  # warm brown, thin
_REACH = 5  # points of a stroke to either side of its middle
_BRISTLE_PX = 1.7
_BRISTLE_THICK_PX = 2  # neighbours overlap
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, kw_only=True)
class Coat:
    """One layer of strokes: brush width, length in widths, strokes per width, spread of the colours in levels."""

    width: float
    length: float
    density: float
    spread: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Motif:
    """What is painted, on a grid of cells: colours (R, C, 3) in 0-255, directions of strokes (R, C) in radians."""

    colours: Pixels
    angle: Pixels


def laid(motif: Motif, coats: Sequence[Coat], rng: np.random.Generator, *, height: int, width: int) -> Canvas:
    """A canvas with all coats, the first one lowest."""
    canvas = np.empty((height, width, 4), np.uint8)
    canvas[:] = _GROUND
    for coat in coats:
        _lay(canvas, motif, coat, rng)
    return canvas


def in_raking_light(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture, uint8 (H, W, 3), lit from the upper left: ridges of paint shine, the weave of linen shows."""
    rows, columns = canvas.shape[:2]
    side = min(rows, columns)
    ridges = cv2.GaussianBlur(canvas[..., 3].astype(np.float32) / 255, (0, 0), 0.3 + side / 900)
    pitch = 2 * np.pi / max(side / 170, 2.5)
    warp, weft = np.sin(np.arange(columns) * pitch), np.sin(np.arange(rows) * pitch)
    grain = cv2.GaussianBlur(rng.standard_normal((rows, columns), dtype=np.float32), (0, 0), 1)
    surface = (ridges + 0.01 * np.outer(weft, warp) + 0.01 * grain).astype(np.float32)
    slope = cv2.Sobel(surface, -1, 1, 0, scale=1 / 8) + cv2.Sobel(surface, -1, 0, 1, scale=1 / 8)
    light = np.tanh(4 * slope).astype(np.float32)
    lit = dimmed(canvas[..., :3].astype(np.float32), 1 + 0.42 * light)
    shine = 26 * np.clip(light, 0, 1)[..., None]
    return np.asarray(np.clip(lit + shine, 0, 255), np.uint8)


def _lay(canvas: Canvas, motif: Motif, coat: Coat, rng: np.random.Generator) -> None:
    rows, columns = canvas.shape[:2]
    brush_px = max(coat.width * min(rows, columns), 1.5)
    middles = _middles(rows, columns, spacing_px=brush_px / coat.density, rng=rng)
    paths = _paths(motif.angle, middles, stride_px=brush_px * coat.length / (2 * _REACH))
    colours = _at(motif.colours, middles)
    colours *= 1 + coat.spread / 80 * rng.uniform(-1, 1, (len(colours), 1))  # lighter and darker paint
    colours += 0.9 * coat.spread * rng.uniform(-1, 1, colours.shape)  # and other hues
    bristles = _bristles(paths, colours, brush_px=brush_px, rng=rng)
    for line, paint, (late, early) in bristles:
        cv2.polylines(
            canvas, [line[late : len(line) - early]], False, paint, _BRISTLE_THICK_PX, cv2.LINE_AA, _SUBPIXEL_BITS
        )


def _middles(rows: int, columns: int, *, spacing_px: float, rng: np.random.Generator) -> Points:
    """Places for strokes, one in each square of that size, in random order; (N, 2)."""
    down, right = np.mgrid[0 : rows / spacing_px, 0 : columns / spacing_px]
    places = np.stack([right.ravel(), down.ravel()], axis=1)
    places += rng.uniform(0, 1, places.shape)
    return np.asarray(rng.permutation(places) * spacing_px, np.float32)


def _paths(angle: Pixels, middles: Points, *, stride_px: float) -> Points:
    """Lines through the middles along the directions, (N, 2 * _REACH + 1, 2)."""
    directions = np.dstack([np.cos(angle), np.sin(angle)])
    halves = []
    for stride in (-stride_px, stride_px):
        points, half = middles, []
        for _ in range(_REACH):
            ahead = _at(directions, points)
            points = points + stride * ahead / (np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-6)
            half.append(points)
        halves.append(half)
    return np.asarray(np.stack([*halves[0][::-1], middles, *halves[1]], axis=1), np.float32)


def _bristles(paths: Points, colours: Pixels, *, brush_px: float, rng: np.random.Generator) -> Iterator[Bristle]:
    """The bristles of all strokes, stroke by stroke, side by side."""
    number = max(3, round(brush_px / _BRISTLE_PX))
    along = np.gradient(paths, axis=1)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    across *= brush_px / (np.linalg.norm(across, axis=-1, keepdims=True) + 1e-6)
    places = np.linspace(-0.5, 0.5, number)[:, None]
    load = rng.normal(0, 1, (len(paths), number, 1))  # how much paint each bristle holds
    tones = np.clip(colours[:, None] * (1 + 0.11 * load), 0, 255)
    heights = np.clip(110 + 70 * (1 - np.abs(places)) + 34 * load, 0, 255)
    paints = np.concatenate([tones, heights], axis=2).reshape(-1, 4)
    lines = paths[:, None] + across[:, None] * places[..., None]
    flat = np.round(lines * (1 << _SUBPIXEL_BITS)).astype(np.int32).reshape(-1, *paths.shape[1:])
    ends = rng.integers(0, 3, (len(flat), 2))
    yield from zip(flat, paints.tolist(), ends.tolist(), strict=True)


def _at(field: Pixels, points: Points) -> Pixels:
    """Values of a grid of cells at points in pixels, (N, 2) -> (N, channels)."""
    across, down = (points.T / CELL_PX - 0.5).astype(np.float32)[:, None]
    field = field.astype(np.float32)
    found = cv2.remap(field, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found[0], np.float32)
