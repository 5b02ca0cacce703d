"""PET bottles: clear ribbed plastic around a liquid, a paper label and a ridged cap."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vtray.demo.can import within, wrapped
from vtray.demo.cutout import Cutout, Pose
from vtray.demo.light import Light, Pixels, colour
from vtray.demo.panel import Art
from vtray.demo.turned import Outline, Surface, seen

_CORNERS = (
    (0.0, 2.3), (0.35, 2.85), (1.0, 3.15), (6.0, 3.15), (6.3, 3.2), (12.9, 3.2), (13.2, 3.1), (14.6, 3.05),
    (16.6, 2.45), (18.2, 1.5), (18.9, 1.2), (19.35, 1.2), (19.4, 1.55), (19.6, 1.55), (19.65, 1.45), (21.2, 1.45),
)  # fmt: skip
_CAP_FROM = 19.65
_LIQUID_TO = 17.3


def _ribbed(corners: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Shallow rings above and below the label, as they stiffen thin bottles."""
    rings = [(1.4 + 0.25 * i, 3.15 - 0.07 * (i % 4 in (1, 2))) for i in range(18)]
    upper = [(13.3 + 0.25 * i, 3.08 - 0.05 * (i % 4 in (1, 2))) for i in range(5)]
    return tuple(sorted([*corners, *rings, *upper]))


@dataclass(frozen=True, eq=False)
class Bottle:
    """A half-litre bottle; `liquid` and `cap` are colours, `label` half a turn of print of `label_height` cm."""

    label: Art
    liquid: str
    cap: str
    label_height: float
    depth: float  # how strongly the liquid colours what is seen through the middle; 0 = not at all

    height = _CORNERS[-1][0]

    @cached_property
    def outline(self) -> Outline:
        """Ribbed body, shoulder, neck ring and cap."""
        return Outline(_ribbed(_CORNERS), rounding=0.16)

    def render(self, pose: Pose, light: Light) -> Cutout:
        """The bottle in linear light; what stands behind it shines through."""
        surface = seen(self.outline, pose)
        mirrored = surface.mirrored(light)[..., None]
        limits = (12.75 - self.label_height, 12.75)
        opaque = within(surface.height, limits) + (surface.height > _CAP_FROM)
        capped = (surface.height > _CAP_FROM)[..., None]
        solid = np.where(capped, self._cap(surface, light), self._paper(surface, light, limits=limits))
        solid = solid + 0.05 * mirrored
        glow, clear = self._plastic(surface, light)
        opaque = np.clip(opaque, 0, 1)[..., None].astype(np.float32)
        cover = surface.cover[..., None]
        sent = solid * opaque + (glow + (0.04 + 0.55 * surface.rim[..., None] ** 3) * mirrored) * (1 - opaque)
        through = clear * (1 - opaque)
        lid = surface.top_cover[..., None]
        sent = sent * cover * (1 - lid) + colour(self.cap) * (light.ambient + 0.8 * light.key_strength) * lid
        through = ((1 - cover) + through * cover) * (1 - lid)
        return Cutout(
            light=sent.astype(np.float32), clear=through.astype(np.float32), foot=surface.foot, lens=True
        )

    def _paper(self, surface: Surface, light: Light, *, limits: tuple[float, float]) -> Pixels:
        ink = wrapped(self.label, surface, limits=limits)
        return ink * light.received(surface.normal)[..., None]

    def _cap(self, surface: Surface, light: Light) -> Pixels:
        """Ridges all around, a smooth ring below."""
        ridges = 1 + 0.28 * np.sin(46 * surface.azimuth) * (surface.height > _CAP_FROM + 0.35)
        seam = 1 - 0.5 * np.exp(-(((surface.height - _CAP_FROM - 0.35) / 0.05) ** 2))
        shade = light.received(surface.normal) * ridges * seam
        return np.asarray(colour(self.cap) * shade[..., None], np.float32)

    def _plastic(self, surface: Surface, light: Light) -> tuple[Pixels, Pixels]:
        """(light scattered by the liquid, what shines through), each (H, W, 3)."""
        # the liquid ends in a flat surface, seen as a thin bright line
        wet = np.clip((_LIQUID_TO - surface.height) / 0.08, 0, 1)[..., None]
        thickness = (1 - surface.rim)[..., None]
        tint = colour(self.liquid)
        liquid = np.exp(np.log(np.maximum(tint, 0.02)) * self.depth * (0.25 + thickness))
        wall = 0.97 - 0.75 * surface.rim[..., None] ** 3
        clear = wall * (liquid * wet + (1 - wet))
        received = light.received(surface.normal)[..., None]
        glow = tint * (0.3 * self.depth * received * (0.4 + 0.6 * thickness) * wet)
        line = np.exp(-(((surface.height - _LIQUID_TO) / 0.07) ** 2))[..., None]
        return glow + 0.25 * light.ambient * line, clear * (1 - 0.4 * line)
