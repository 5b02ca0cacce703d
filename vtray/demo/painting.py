"""The demo's painting: lamps in a windy evening sky over dunes, in thick oil. No existing picture is copied.

Places are fractions of width and height from the upper left; y grows downwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.demo.brushwork import CELL_PX, Coat, Motif, in_raking_light, laid
from vtray.demo.light import Pixels
from vtray.seeding import rng_for

SMALLEST_PX = 64

Angle = NDArray[np.floating[Any]]
Wave = tuple[float, float, float]  # amplitude, frequency, phase


@dataclass(frozen=True, kw_only=True)
class _Lamp:
    """A glowing disc in the sky; the wind turns around it."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, kw_only=True)
class _Dune:
    """A hill below a wavy ridge; `lee`: 1 if slopes that fall to the right are lit, -1 for the others."""

    ridge: float
    waves: tuple[Wave, ...]
    colours: tuple[str, ...]
    lee: int = 1


_COATS = (
    Coat(width=0.040, length=7, density=1.14, spread=16),
    Coat(width=0.020, length=9, density=0.83, spread=22),
    Coat(width=0.0125, length=9, density=0.5, spread=26),
)
_NIGHT = ("#0d1b4a", "#14307a", "#1d4fa3", "#2f78b8", "#5aa3bd", "#9cc7b4")
_GLOW = ("#b9601a", "#dc8420", "#f0b034", "#fbd66e", "#fff0c0")
_HALO = "#e2a24a"
_WATER = ("#0b1740", "#123069", "#1f5a94", "#3f8fae", "#e8b552")
_LAMPS = (
    _Lamp(x=0.68, y=0.30, radius=0.115),
    _Lamp(x=0.24, y=0.19, radius=0.062),
    _Lamp(x=0.93, y=0.10, radius=0.045),
)
_SWIRLS = (  # eye x and y, radius, 1 or -1 for the sense of the turn
    (0.68, 0.30, 0.130, 1),
    (0.24, 0.19, 0.100, -1),
    (0.40, 0.46, 0.075, 1),
    (0.08, 0.45, 0.070, -1),
    (0.93, 0.10, 0.075, -1),
    (0.92, 0.50, 0.060, -1),
    (0.47, 0.06, 0.060, 1),
)
_FAR = _Dune(
    ridge=0.63,
    waves=((0.045, 5.2, 0.6), (0.02, 11, 0)),
    colours=("#6e3b1a", "#a85f1e", "#d08b2c", "#e8b552"),
)
_MIDDLE = _Dune(
    ridge=0.73,
    waves=((0.06, 4.1, 2.9), (0.015, 13, 1)),
    colours=("#43203a", "#7a3a22", "#b86a22", "#dc9c3c"),
    lee=-1,
)
_NEAR = _Dune(ridge=0.90, waves=((0.05, 3.7, 5.2),), colours=("#1a1a45", "#3a2348", "#743420", "#c0762a"))


def draw_painting(*, height: int, width: int) -> NDArray[np.uint8]:
    """The painting, uint8 (H, W, 3) RGB; brushes grow with the shorter side.

    The same size gives the same pixels for the same versions of NumPy and OpenCV.

    Raises:
        ValueError: a side below 64 pixels, where no stroke can be told from another.
    """
    if min(height, width) < SMALLEST_PX:
        raise ValueError(
            f"the painting is {height} x {width} px; strokes need at least {SMALLEST_PX} on each side"
        )
    canvas = laid(_motif(height, width), _COATS, rng_for("painting", "strokes"), height=height, width=width)
    return in_raking_light(canvas, rng_for("painting", "linen"))


def _motif(height: int, width: int) -> Motif:
    rows, columns = -(-height // CELL_PX), -(-width // CELL_PX)
    down, right = np.mgrid[:rows, :columns].astype(np.float32)
    x, y = (right + 0.5) * CELL_PX / width, (down + 0.5) * CELL_PX / height
    motif = _sky(x, y)
    for dune in (_FAR, _MIDDLE):
        motif = _with_dune(motif, dune, x, y)
    return _with_dune(_with_river(motif, x, y), _NEAR, x, y)


def _sky(x: Pixels, y: Pixels) -> Motif:
    """Bands of blue along the wind, paler towards the horizon, and the lamps."""
    stream = _stream(x, y)
    down, right = np.gradient(stream)
    band = 0.5 + 0.5 * np.sin(34 * stream + 1.5 * np.sin(5 * x + 3 * y))
    depth = np.clip(y / 0.62, 0, 1)
    colours = _ramp(_NIGHT, 0.1 + 0.26 * band * (1 + depth) + 0.28 * depth**2)
    for lamp in _LAMPS:
        away = np.hypot(x - lamp.x, y - lamp.y) / lamp.radius
        ring = np.cos(11 * away)
        halo = 0.275 * np.exp(-0.32 * away**2) * (1 + ring)
        colours = _over(colours, _ramp((_HALO,), away), halo)
        colours = _over(colours, _ramp(_GLOW, 1.05 - 0.85 * away + 0.16 * ring), 3.2 - 2.4 * away)
    return Motif(colours=colours, angle=np.arctan2(-right, down))


def _stream(x: Pixels, y: Pixels) -> Pixels:
    """The wind's stream function: air moves along its level lines, from left to right and around the swirls."""
    stream = y + 0.05 * np.sin(7 * x + 2) + 0.035 * np.sin(13 * x - 9 * y)
    for eye_x, eye_y, radius, turn in _SWIRLS:
        # 2.7 turns the wind back; the calm eye then lies 0.4 radii beside the middle of the bump
        away = np.hypot(x - eye_x, y - eye_y + 0.4 * turn * radius) / radius
        stream += 2.7 * turn * radius * np.exp(-0.5 * away**2)
    return np.asarray(stream, np.float32)


def _with_dune(motif: Motif, dune: _Dune, x: Pixels, y: Pixels) -> Motif:
    """A dune in front of the motif: folds of sand below the ridge, one side lit."""
    ridge = dune.ridge + sum(size * np.sin(often * x + phase) for size, often, phase in dune.waves)
    below = y - ridge
    slope = np.gradient(ridge * len(y), axis=1)
    folds = np.sin(70 * below + 9 * x + 4 * np.sin(6 * x + dune.ridge))
    sand = _ramp(dune.colours, 0.62 - 2.2 * below + 0.25 * folds - 0.55 * dune.lee * slope)
    angle = np.arctan(slope + 2.7 * below * np.cos(6 * x + 20 * dune.ridge))
    return _in_front(motif, sand, angle, where=below > 0)


def _with_river(motif: Motif, x: Pixels, y: Pixels) -> Motif:
    """A river that mirrors the largest lamp in its ripples."""
    away = y - (0.845 + 0.03 * np.sin(5 * x + 1))
    ripples = 0.5 + 0.5 * np.sin(140 * away + 6 * np.sin(9 * x))
    mirrored = np.exp(-0.5 * ((x - _LAMPS[0].x) / 0.09) ** 2)
    water = _ramp(_WATER, 0.15 + (0.45 + 0.5 * mirrored) * ripples)
    where = np.abs(away) < 0.035 + 0.02 * np.sin(3 * x + 2)
    return _in_front(motif, water, 0.15 * np.cos(5 * x + 1), where=where)


def _in_front(motif: Motif, colours: Pixels, angle: Angle, *, where: NDArray[np.bool_]) -> Motif:
    return Motif(
        colours=np.where(where[..., None], colours, motif.colours),
        angle=np.where(where, angle, motif.angle).astype(np.float32),
    )


def _over(colours: Pixels, paint: Pixels, share: Pixels) -> Pixels:
    return np.asarray(colours + np.clip(share, 0, 1)[..., None] * (paint - colours), np.float32)


def _ramp(names: Sequence[str], place: Pixels) -> Pixels:
    """Colours from the first name (place 0 and below) to the last (1 and above): (R, C) -> (R, C, 3) in 0-255."""
    stops = np.array([list(bytes.fromhex(name.removeprefix("#"))) for name in names], np.float32)[None]
    across = np.clip(place, 0, 1).astype(np.float32) * (len(names) - 1)
    return np.asarray(cv2.remap(stops, across, np.zeros_like(across), cv2.INTER_LINEAR), np.float32)
