"""Cartons: the gable-top of a milk carton with its screw cap, and a small brick with a straw."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vtray.demo.cutout import Cutout, Pose
from vtray.demo.easel import Corner, Easel, Points
from vtray.demo.light import Light
from vtray.demo.panel import Art

_STRIPE = np.array([(-0.27, 0.0, 0.0), (0.27, 0.12, 0.0), (0.27, 0.34, 0.0), (-0.27, 0.22, 0.0)])


def _wall(half_width: float, half_depth: float, *, height: float, side: int) -> list[Corner]:
    """One of the four walls of a box, side 0 = front, 1 = right, 2 = back, 3 = left."""
    corners = [
        (-half_width, half_depth),
        (half_width, half_depth),
        (half_width, -half_depth),
        (-half_width, -half_depth),
    ]
    (x0, z0), (x1, z1) = corners[side], corners[(side + 1) % 4]
    return [(x0, height, z0), (x1, height, z1), (x1, 0.0, z1), (x0, 0.0, z0)]


@dataclass(frozen=True, eq=False)
class GableCarton:
    """A carton with a roof: `front` on front and back, `flank` on both sides, `roof` on the slopes."""

    front: Art
    flank: Art
    roof: Art
    fold: Art
    paper: str
    cap: str

    half: ClassVar[float] = 3.5
    wall: ClassVar[float] = 14.5
    ridge: ClassVar[float] = 17.4
    height: ClassVar[float] = 18.9

    def render(self, pose: Pose, light: Light) -> Cutout:
        """The carton in linear light; opaque."""
        easel = Easel(pose, light, height=self.height, reach=self.half * 1.45)
        for side in range(4):
            art = self.flank if side % 2 else self.front
            easel.face(_wall(self.half, self.half, height=self.wall, side=side), art)
        for x in (-1, 1):
            self._gable(easel, x)
        self._slopes(easel)
        fin = [(-self.half, self.height, 0.0), (self.half, self.height, 0.0)]
        easel.face([*fin, (self.half, self.ridge, 0.0), (-self.half, self.ridge, 0.0)], self.fold)
        easel.stroke(fin, width=0.14, fill="#ffffff", strength=0.9)
        self._screw_cap(easel)
        return easel.cutout()

    def _gable(self, easel: Easel, x: int) -> None:
        """The side under the roof: folded in, so it lies in shade between the slopes."""
        normal = (float(x), 0.0, 0.0)
        if not easel.sees(normal):
            return
        edge, bright = x * self.half, easel.brightness(normal)
        front, back = (edge, self.wall, self.half), (edge, self.wall, -self.half)
        apex, top = (edge * 0.45, self.ridge, 0.0), (edge, self.ridge, 0.0)
        for corners, shade in (((apex, top, back), 0.8), ((apex, front, back), 0.62), ((apex, top, front), 0.4)):
            easel.fill(np.array(corners, np.float32), self.paper, shade=shade * bright)
        easel.stroke([front, back], width=0.06, fill="#ffffff", strength=0.8 * bright)

    def _slopes(self, easel: Easel) -> None:
        h, w, r = self.half, self.wall, self.ridge
        easel.face([(h, r, 0.0), (-h, r, 0.0), (-h, w, -h), (h, w, -h)], self.roof)
        easel.face([(-h, r, 0.0), (h, r, 0.0), (h, w, h), (-h, w, h)], self.roof)
        easel.stroke([(-h, w, h), (h, w, h)], width=0.07, fill="#ffffff", strength=0.8)

    def _screw_cap(self, easel: Easel) -> None:
        rise = self.ridge - self.wall
        slope = math.hypot(rise, self.half)
        normal = (0.0, self.half / slope, rise / slope)
        middle = (0.0, self.wall + 0.48 * rise, 0.52 * self.half)
        low, high = (_ring(middle, normal, radius=1.25, lift=lift) for lift in (0.0, 1.0))
        bright = easel.brightness(normal)
        easel.fill(np.concatenate([low, high]), self.cap, shade=0.55 * bright)
        for i in range(0, len(low), 2):
            easel.stroke([tuple(low[i]), tuple(high[i])], width=0.06, fill=self.cap, strength=0.75 * bright)
        easel.fill(high, self.cap, shade=bright)
        easel.fill(_ring(middle, normal, radius=0.95, lift=1.0), self.cap, shade=0.9 * bright)


@dataclass(frozen=True, eq=False)
class BrickCarton:
    """A small brick: `front` on the wide walls, `flank` on the narrow ones, a bent straw through the top."""

    front: Art
    flank: Art
    top: Art
    straw: str

    half_width: ClassVar[float] = 3.3
    half_depth: ClassVar[float] = 2.2
    wall: ClassVar[float] = 11.5
    height: ClassVar[float] = 14.8  # with the straw

    def render(self, pose: Pose, light: Light) -> Cutout:
        """The carton in linear light; opaque."""
        easel = Easel(pose, light, height=self.height, reach=4.4)
        x, z, h = self.half_width, self.half_depth, self.wall
        for side in range(4):
            art = self.flank if side % 2 else self.front
            easel.face(_wall(x, z, height=h, side=side), art)
        easel.face([(-x, h, -z), (x, h, -z), (x, h, z), (-x, h, z)], self.top)
        easel.stroke([(-x, h, z), (x, h, z)], width=0.08, fill="#ffffff", strength=0.7)
        self._straw(easel)
        return easel.cutout()

    def _straw(self, easel: Easel) -> None:
        path: list[Corner] = [(1.9, self.wall, 0.0), (1.75, 13.6, 0.0), (0.4, 14.75, 0.0)]
        bright = easel.brightness((0.0, 0.3, 0.95))
        for width, shade in ((0.62, 0.5), (0.46, 0.8), (0.2, 1.05)):
            easel.stroke(path, width=width, fill="#f4f4f4", strength=shade * bright)
        for share in (0.1, 0.32, 0.54, 0.76):
            middle = np.array(path[0]) * (1 - share) + np.array(path[1]) * share
            easel.fill(np.asarray(middle + _STRIPE, np.float32), self.straw, shade=bright)


def _ring(middle: Corner, normal: Corner, *, radius: float, lift: float) -> Points:
    """32 points of a circle on a plane that leans backwards, lifted along its normal."""
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    across = np.array([1.0, 0.0, 0.0])
    along = np.cross(np.array(normal), across)
    circle = radius * (np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * along)
    return np.asarray(np.array(middle) + lift * np.array(normal) + circle, np.float32)
