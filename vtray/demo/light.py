"""Light: what a shiny surface mirrors, what a dull one receives, and the colour of a lamp in kelvin.

All values are linear light; 1 is white paper in the key light. Directions: x right, y up, z towards the camera.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]  # H x W x 3, or H x W for masks

_PLANCK_UM_KELVIN = 14387.8
_WAVELENGTHS_UM = np.array([0.638, 0.540, 0.436])  # so that 3000 K has the exact linear sRGB ratios
_LEFT_OVER = 0.6  # what white balance leaves of a tint, as an exponent
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_ENCODED = np.arange(256) / 255
_LINEAR = np.where(_ENCODED <= 0.04045, _ENCODED / 12.92, ((_ENCODED + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear(art: NDArray[np.uint8]) -> Pixels:
    """sRGB uint8 as linear light 0..1."""
    return np.asarray(cv2.LUT(art, _LINEAR), np.float32)


def colour(name: str) -> Pixels:
    """A colour such as "#c4161c" as linear light, float32 (3,)."""
    return np.asarray(_LINEAR[list(bytes.fromhex(name.removeprefix("#")))], np.float32)


def lamp_colour(kelvin: float) -> Pixels:
    """RGB gains of a lamp seen by a camera that was balanced for 6500 K; luminance stays, float32 (3,).

    Source: Planck's law at one wavelength per channel. We keep 0.6 of the tint (as an exponent), since a camera's
    white balance takes part of it away.
    """
    lamp, daylight = (1 / np.expm1(_PLANCK_UM_KELVIN / (_WAVELENGTHS_UM * k)) for k in (kelvin, 6500.0))
    gains = (lamp / daylight) ** _LEFT_OVER
    return np.asarray(gains / (gains @ _LUMINANCE), np.float32)


@dataclass(frozen=True, kw_only=True)
class Softbox:
    """A bright window in the surroundings: middle and half width in radians around the y axis, 0 at the camera."""

    azimuth: float
    half_width: float
    brightness: float
    low: float = -0.7
    high: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Light:
    """One light setting: a key lamp, a soft surrounding, windows to mirror and the colour of the floor."""

    key_azimuth: float
    key_strength: float
    ambient: float
    softboxes: tuple[Softbox, ...]
    floor: tuple[float, float, float]

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, floor: Sequence[float]) -> Self:
        """A key lamp up to 60 degrees to one side, two windows and a faint one behind."""
        side = 1.0 if rng.random() < 0.5 else -1.0
        key = side * rng.uniform(0.35, 1.05)
        windows = (
            Softbox(azimuth=1.75 * key, half_width=rng.uniform(0.12, 0.34), brightness=rng.uniform(2.2, 4.0)),
            Softbox(azimuth=-side * rng.uniform(1.6, 2.3), half_width=0.2, brightness=rng.uniform(1.0, 2.2)),
            Softbox(azimuth=rng.uniform(-0.5, 0.5), half_width=0.5, brightness=rng.uniform(0.1, 0.35)),
        )
        red, green, blue = floor
        return cls(
            key_azimuth=key,
            key_strength=rng.uniform(0.55, 0.85),
            ambient=rng.uniform(0.3, 0.5),
            softboxes=windows,
            floor=(red, green, blue),
        )

    def received(self, normal: Pixels) -> Pixels:
        """Light on a dull surface with those normals (..., 3): float32 (...), about 0.2 in shade, 1 in the key."""
        key = np.array([0.85 * math.sin(self.key_azimuth), 0.52, 0.85 * math.cos(self.key_azimuth)], np.float32)
        # wrapped around the edge, as every lamp of a machine has some size
        facing = np.clip((normal @ key + 0.25) / 1.25, 0, None)
        return np.asarray(self.ambient * (0.8 + 0.2 * normal[..., 1]) + self.key_strength * facing, np.float32)

    def mirrored(self, direction: Pixels) -> Pixels:
        """What lies in those directions (..., 3), grey: float32 (...)."""
        x, up, z = direction[..., 0], direction[..., 1], direction[..., 2]
        level = np.hypot(x, z) + 1e-6
        seen = np.asarray(self.ambient * (0.35 + 0.5 * np.clip(up + 0.2, 0, 1)), np.float32)
        for box in self.softboxes:
            # the cosine of the angle from its middle, as it needs neither arc tangent nor wrapping
            near = (x * math.sin(box.azimuth) + z * math.cos(box.azimuth)) / level
            across = _soft_step((near - math.cos(box.half_width)) / (0.07 * math.sin(box.half_width)))
            along = _soft_step(np.minimum(up - box.low, box.high - up) / 0.12)
            seen += box.brightness * across * along
        below = _soft_step((-up - 0.3) / 0.2)
        return np.asarray(seen * (1 - below) + float(np.mean(self.floor)) * 0.6 * below, np.float32)


def tinted(grey: Pixels, tint: Pixels) -> Pixels:
    """A grey picture (H, W) in one colour (3,): (H, W, 3), three times faster than broadcasting."""
    return np.asarray(cv2.merge([grey * part for part in tint]), np.float32)


def dimmed(picture: Pixels, share: Pixels) -> Pixels:
    """A picture (H, W, 3) times a mask (H, W), three times faster than broadcasting."""
    return np.asarray(cv2.multiply(picture, cv2.merge([share, share, share])), np.float32)


def softened(plane: Pixels, sigma_px: float) -> Pixels:
    """Gaussian blur; wide blurs are worked out at a lower resolution, which nobody can see."""
    shrink = int(sigma_px / 2)
    if shrink < 2:
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), max(sigma_px, 0.1)), np.float32)
    rows, columns = plane.shape[:2]
    small = cv2.resize(plane, (max(1, columns // shrink), max(1, rows // shrink)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / shrink)
    return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)


def _soft_step(value: NDArray[np.floating[Any]]) -> Pixels:
    return np.asarray(np.clip(0.5 + value, 0, 1), np.float32)
