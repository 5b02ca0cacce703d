"""Flat faces and lines in space, seen in perspective: what cartons are drawn with.

Centimetres; y up, z towards the camera when nothing is turned. Later strokes cover earlier ones.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.demo.cutout import Cutout, Pose
from vtray.demo.light import Light, Pixels, colour, linear
from vtray.demo.panel import Art

Corner = tuple[float, float, float]
Points = NDArray[np.float32]  # N x 3 in cm, or N x 2 in pixels
Part = tuple[slice, slice]  # rows and columns of the canvas

_DISTANCE_CM = 75.0
_GRID = 12  # shade is worked out at 12 x 12 points of a face
_SUBPIXEL_BITS = 4


class Easel:
    """A canvas for one object of `height` x `reach` cm (reach: the widest distance from its axis) in one pose."""

    def __init__(self, pose: Pose, light: Light, *, height: float, reach: float) -> None:
        self._light = light
        self._scale = pose.height_px / height
        turn, tilt = pose.yaw, pose.tilt
        around = np.array([[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]])
        over = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
        self._turn, self._view = around.astype(np.float32), (over @ around).astype(np.float32)
        self._eye = np.array([0, math.sin(tilt), math.cos(tilt)], np.float32) * _DISTANCE_CM
        self._foot = (reach * self._scale * 1.15, (height + 0.5 * reach) * self._scale * 1.12)
        rows = round(self._foot[1] + reach * self._scale * 0.5)
        self._size = (round(2 * self._foot[0]), rows)
        self._colour = np.zeros((rows, self._size[0], 3), np.float32)
        self._cover = np.zeros((rows, self._size[0], 1), np.float32)

    def cutout(self) -> Cutout:
        """Everything drawn so far; opaque."""
        clear = np.repeat(1 - self._cover, 3, axis=2)
        return Cutout(light=self._colour, clear=clear, foot=self._foot)

    def project(self, points: Points) -> Points:
        """Points in cm (N, 3) as pixels (N, 2)."""
        seen = points @ self._view.T
        shrink = _DISTANCE_CM / (_DISTANCE_CM - seen[:, 2:])
        return np.asarray(np.array(self._foot) + seen[:, :2] * shrink * [self._scale, -self._scale], np.float32)

    def face(self, corners: Sequence[Corner], art: Art, *, shade: float = 1.0) -> None:
        """Art on a flat quadrilateral: corners from the upper left clockwise, as seen from outside.

        A face that looks away is left out.
        """
        space = np.array(corners, np.float32)
        flat = self.project(space)
        if cv2.contourArea(flat, oriented=True) <= 0:
            return
        part, local = self._part(flat)
        size = (part[1].stop - part[1].start, part[0].stop - part[0].start)
        onto = _onto(local, *art.shape[1::-1])
        ink = linear(cv2.warpPerspective(art, onto, size, borderMode=cv2.BORDER_REPLICATE))
        onto = _onto(local, _GRID, _GRID)
        received, sheen = (
            cv2.warpPerspective(grid, onto, size, borderMode=cv2.BORDER_REPLICATE)[..., None]
            for grid in self._lit(space)
        )
        self._blend(ink * received * shade + sheen * shade, self._mask(flat), part=part)

    def fill(self, points: Points, fill: str, *, shade: float) -> None:
        """The convex hull of points in space, in one colour times `shade`."""
        hull = cv2.convexHull(self.project(points))[:, 0]
        self._blend(colour(fill) * np.float32(shade), self._mask(hull), part=self._part(hull)[0])

    def stroke(self, points: Sequence[Corner], *, width: float, fill: str, strength: float = 1.0) -> None:
        """A line through points in space, `width` cm thick, in one colour times `strength`."""
        mask = np.zeros(self._size[::-1], np.uint8)
        flat = _subpixel(self.project(np.array(points, np.float32)))
        thick = max(1, round(width * self._scale))
        cv2.polylines(mask, [flat], False, 255, thick, cv2.LINE_AA, _SUBPIXEL_BITS)
        x, y, columns, rows = cv2.boundingRect(mask)
        part = (slice(y, y + rows), slice(x, x + columns))
        self._blend(colour(fill) * np.float32(strength), mask, part=part)

    def sees(self, normal: Corner) -> bool:
        """Whether a surface through the axis with that normal (before the turn) faces the camera."""
        return bool((self._turn @ np.array(normal, np.float32)) @ self._eye > 0)

    def brightness(self, normal: Corner) -> float:
        """Light received by a surface with that normal (before the turn)."""
        return float(self._light.received(np.array(normal, np.float32) @ self._turn.T))

    def _lit(self, corners: Points) -> tuple[Pixels, Pixels]:
        """(light received, light mirrored) at 12 x 12 points of a face."""
        turned = corners @ self._turn.T
        down = np.linspace(0, 1, _GRID, dtype=np.float32)[:, None, None]
        right = np.linspace(0, 1, _GRID, dtype=np.float32)[None, :, None]
        upper, lower = (turned[a] * (1 - right) + turned[b] * right for a, b in ((0, 1), (3, 2)))
        points = upper * (1 - down) + lower * down
        normal = np.cross(turned[3] - turned[0], turned[1] - turned[0])
        normal = (normal / np.linalg.norm(normal)).astype(np.float32)
        view = self._eye - points
        view /= np.linalg.norm(view, axis=-1, keepdims=True)
        bounce = 2 * (view @ normal)[..., None] * normal - view
        fading = 1.05 - 0.2 * down[..., 0]  # less light reaches the foot of the pack
        received = np.broadcast_to(self._light.received(normal) * fading, points.shape[:2])
        return np.array(received), 0.035 * self._light.mirrored(bounce)

    def _mask(self, flat: Points) -> NDArray[np.uint8]:
        mask = np.zeros(self._size[::-1], np.uint8)
        cv2.fillPoly(mask, [_subpixel(flat)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return mask

    def _part(self, flat: Points) -> tuple[Part, Points]:
        """(the rows and columns of the canvas around some pixels, the same pixels counted from its corner)."""
        left, top = np.clip(np.floor(flat.min(axis=0)) - 1, 0, None).astype(int)
        right, low = np.minimum(np.ceil(flat.max(axis=0)) + 2, self._size).astype(int)
        return (slice(top, low), slice(left, right)), flat - np.array([left, top], np.float32)

    def _blend(self, paint: Pixels, mask: NDArray[np.uint8], *, part: Part) -> None:
        """Paint one part of the canvas with a colour (3,) or a picture of that part, where the mask is set."""
        share = mask[part].astype(np.float32)[..., None] / 255
        self._colour[part] += (paint - self._colour[part]) * share
        self._cover[part] = np.maximum(self._cover[part], share)


def _onto(flat: Points, width: int, height: int) -> Points:
    """The homography from a picture's outer corners to four pixels."""
    right, low = width - 0.5, height - 0.5
    source = np.array([(-0.5, -0.5), (right, -0.5), (right, low), (-0.5, low)], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(source, flat))


def _subpixel(flat: Points) -> NDArray[np.int32]:
    return np.asarray(np.round(flat * (1 << _SUBPIXEL_BITS)), np.int32)
