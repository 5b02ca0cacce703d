"""Drink cans: a printed aluminium body with bare neck and base, and a lid with its tab."""

import math
from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np

from vtray.demo.cutout import Cutout, Pose
from vtray.demo.light import Light, Pixels, linear
from vtray.demo.panel import Art, Panel
from vtray.demo.turned import Outline, Surface, seen

_ALUMINIUM = 0.62
_LID_CM = 6.0  # the lid is drawn 6 cm wide and shrunk to the rim


@dataclass(frozen=True, eq=False)
class Can:
    """A can of `radius` x `height` cm; `label` is half a turn of print from 0.55 cm above the base to the neck."""

    label: Art
    radius: float
    height: float

    @cached_property
    def outline(self) -> Outline:
        """Base, straight body, neck, rim."""
        r, h = self.radius, self.height
        corners = ((0, 0.72 * r), (0.18, 0.8 * r), (0.75, r), (h - 1.35, r), (h - 0.35, 0.81 * r))
        return Outline((*corners, (h - 0.22, 0.84 * r), (h, 0.84 * r)))

    def render(self, pose: Pose, light: Light) -> Cutout:
        """The can in linear light; opaque."""
        surface = seen(self.outline, pose)
        body = self._body(surface, light)
        lid = _lid(surface, pose, light=light, radius=0.84 * self.radius)
        lid_share = surface.top_cover[..., None]
        cover = np.maximum(surface.cover, surface.top_cover)[..., None]
        shown = (body * (1 - lid_share) + lid * lid_share) * cover
        clear = np.broadcast_to(1 - cover, shown.shape).astype(np.float32)
        return Cutout(light=shown.astype(np.float32), clear=clear, foot=surface.foot)

    def _body(self, surface: Surface, light: Light) -> Pixels:
        mirrored = surface.mirrored(light)
        top = self.height - 0.95
        ink = wrapped(self.label, surface, limits=(0.5, top))
        received = light.received(surface.normal)[..., None]
        gloss = 0.07 + 0.4 * surface.rim[..., None] ** 4
        painted = ink * (0.82 * received + 0.26 * mirrored[..., None]) + gloss * mirrored[..., None]
        metal = _ALUMINIUM * (0.35 * received + 0.75 * mirrored[..., None])
        printed = within(surface.height, (0.5, top))[..., None]
        crease = 1 - 0.35 * np.exp(-(((surface.height - top) / 0.08) ** 2))[..., None]
        return np.asarray((painted * printed + metal * (1 - printed)) * crease, np.float32)


def wrapped(label: Art, surface: Surface, *, limits: tuple[float, float]) -> Pixels:
    """The label around the body between two heights in cm, twice a turn, linear (H, W, 3)."""
    rows, columns = label.shape[:2]
    u = (surface.azimuth / math.pi + 0.5) * columns - 0.5  # beyond the edges it wraps
    v = (limits[1] - surface.height) / (limits[1] - limits[0]) * rows - 0.5
    v = np.clip(v, 0, rows - 1)
    return linear(cv2.remap(label, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def within(height: Pixels, limits: tuple[float, float]) -> Pixels:
    """1 between two heights, 0 outside, with soft ends; float32 (H, W)."""
    inside = np.minimum(height - limits[0], limits[1] - height)
    return np.asarray(np.clip(inside / 0.04, 0, 1), np.float32)


@cache
def _lid_art() -> Art:
    panel = Panel(_LID_CM, _LID_CM, colour="#b4b6ba")
    middle = _LID_CM / 2
    for radius, fill in ((2.98, "#e6e7ea"), (2.75, "#6f7276"), (2.5, "#a9abaf"), (2.35, "#bcbec2")):
        panel.disc((middle, middle), radius, fill=fill)
    panel.disc((middle, middle + 1.15), (0.95, 0.8), fill="#989a9e")
    panel.disc((middle, middle + 1.13), (0.87, 0.72), fill="#b2b4b8")
    panel.disc((middle, middle - 0.45), (0.68, 1.05), fill="#77797d")
    panel.disc((middle, middle - 0.5), (0.62, 0.98), fill="#d9dadd")
    panel.disc((middle, middle - 0.85), (0.38, 0.42), fill="#8b8d91")
    panel.disc((middle, middle + 0.05), 0.2, fill="#8b8d91")
    return panel.art()


def _lid(surface: Surface, pose: Pose, *, light: Light, radius: float) -> Pixels:
    """The lid seen at a flat angle, turned with the can."""
    art = _lid_art()
    sine, cosine = math.sin(pose.yaw), math.cos(pose.yaw)
    across = surface.top_x * cosine + surface.top_z * sine
    along = surface.top_z * cosine - surface.top_x * sine
    to_px = art.shape[0] / (2 * radius)
    u, v = ((cm + radius) * to_px for cm in (across, along))
    metal = linear(cv2.remap(art, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    sheen = 1 + 0.5 * np.cos(2 * (np.arctan2(surface.top_x, surface.top_z) - light.key_azimuth))
    bright = (light.ambient + 0.75 * light.key_strength) * (0.6 + 0.4 * sheen)
    return np.asarray(metal * bright[..., None], np.float32)
