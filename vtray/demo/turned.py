"""Surfaces of revolution, as cans and bottles are: which point of the surface each pixel sees.

Centimetres; y up from the base. Parallel rays come from a camera `tilt` radians above the horizon.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vtray.demo.cutout import Pose
from vtray.demo.light import Light, Pixels

_TABLE_SIZE = 1024
_ROUNDS = 5  # of the fixed point below; each divides the error by about 5 at the tilts used here


@dataclass(frozen=True)
class Outline:
    """The silhouette: (height, radius) corners in cm from the base up, rounded by `rounding` cm."""

    corners: tuple[tuple[float, float], ...]
    rounding: float = 0.12

    @property
    def height(self) -> float:
        """Height in cm."""
        return self.corners[-1][0]

    @cached_property
    def radii(self) -> Pixels:
        """Radius at 1024 equally spaced heights, float32."""
        heights, radii = np.array(self.corners).T
        dense = np.interp(np.linspace(0, self.height, _TABLE_SIZE), heights, radii)
        reach = max(1, round(self.rounding / self.height * _TABLE_SIZE))
        kernel = np.hanning(2 * reach + 1)
        return np.convolve(np.pad(dense, reach, mode="edge"), kernel / kernel.sum(), mode="valid").astype(
            np.float32
        )

    @cached_property
    def slopes(self) -> Pixels:
        """dr/dy at the same heights, float32."""
        return np.asarray(np.gradient(self.radii, self.height / (_TABLE_SIZE - 1)), np.float32)

    def index(self, height: Pixels) -> NDArray[np.intp]:
        """Where those heights lie in the tables."""
        scaled = height * ((_TABLE_SIZE - 1) / self.height)
        return np.asarray(np.clip(scaled, 0, _TABLE_SIZE - 1), np.intp)


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """What each pixel sees, float32 (H, W).

    Height on the body (cm), azimuth on the body (radians, turned with the object), normal in the world (H, W, 3)
    and cover 0..1 of the body; cover of the flat top, whose points are top_x, top_z (cm).
    """

    height: Pixels
    azimuth: Pixels
    normal: Pixels
    cover: Pixels
    top_cover: Pixels
    top_x: Pixels
    top_z: Pixels
    foot: tuple[float, float]
    tilt: float

    def mirrored(self, light: Light) -> Pixels:
        """What the body mirrors towards the camera, (H, W)."""
        view = np.array([0, math.sin(self.tilt), math.cos(self.tilt)], np.float32)
        facing = (self.normal @ view)[..., None]
        return light.mirrored(2 * facing * self.normal - view)

    @cached_property
    def rim(self) -> Pixels:
        """0 where the body faces the camera, 1 at its silhouette, (H, W)."""
        view = np.array([0, math.sin(self.tilt), math.cos(self.tilt)], np.float32)
        return np.asarray(1 - np.clip(self.normal @ view, 0, 1), np.float32)


def seen(outline: Outline, pose: Pose) -> Surface:
    """What a camera sees of the solid in that pose; `pose.height_px` pixels stand for its height."""
    scale = pose.height_px / outline.height
    sine, cosine = math.sin(pose.tilt), math.cos(pose.tilt)
    widest = float(outline.radii.max())
    rise = outline.height * cosine + widest * abs(sine)
    half_width, above, below = (int(cm * scale) + 3 for cm in (widest, rise, widest * abs(sine)))
    x = (np.arange(2 * half_width, dtype=np.float32) + 0.5 - half_width)[None, :] / scale
    v = (above - np.arange(above + below, dtype=np.float32) - 0.5)[:, None] / scale
    height = np.broadcast_to(v / cosine, (above + below, 2 * half_width)).astype(np.float32)
    for _ in range(_ROUNDS):
        depth = np.sqrt(np.clip(outline.radii[outline.index(height)] ** 2 - x * x, 0, None))
        height = np.asarray((v + depth * sine) / cosine, np.float32)
    index = outline.index(height)
    radius = outline.radii[index]
    within = np.minimum(np.minimum(radius - np.abs(x), height), outline.height - height)
    top_z = (outline.height * cosine - v) / max(sine, 1e-3)
    top_distance = float(outline.radii[-1]) - np.hypot(x, top_z)
    return Surface(
        height=height,
        azimuth=np.arctan2(x, depth + 1e-4) + np.float32(pose.yaw),
        normal=_normals(x / radius, outline.slopes[index]),
        cover=np.clip(within * scale + 0.5, 0, 1),
        top_cover=np.clip(top_distance * scale * sine + 0.5, 0, 1) if sine > 0 else np.zeros_like(height),
        top_x=np.broadcast_to(x, height.shape),
        top_z=np.broadcast_to(top_z, height.shape).astype(np.float32),
        foot=(float(half_width), float(above)),
        tilt=pose.tilt,
    )


def _normals(across: Pixels, slope: Pixels) -> Pixels:
    across = np.clip(across, -1, 1)
    normal = np.stack([across, -slope, np.sqrt(1 - across * across)], axis=-1)
    return np.asarray(normal / np.sqrt(1 + slope * slope)[..., None], np.float32)
