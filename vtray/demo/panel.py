"""A flat panel of packaging to draw on: positions and sizes in centimetres, x right, y down from the upper left.

Drawn at three times the resolution and reduced, so edges are smooth; letters are Pillow's built-in font.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Art = NDArray[np.uint8]  # H x W x 3, sRGB
Point = tuple[float, float]

PIXELS_PER_CM = 40
_SUPERSAMPLING = 3
_SCALE = PIXELS_PER_CM * _SUPERSAMPLING


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size_px)


@dataclass(frozen=True, kw_only=True)
class Lettering:
    """How a word looks: cap height, stroke and extra spacing in cm, `slant` a tangent, `turn` in degrees."""

    size: float
    fill: str = "#ffffff"
    weight: float = 0.0
    outline: str | None = None
    outline_width: float = 0.0
    slant: float = 0.0
    turn: float = 0.0
    tracking: float = 0.0


class Panel:
    """A rectangle of packaging, `width` x `height` cm, in one colour until something is drawn on it."""

    def __init__(self, width: float, height: float, *, colour: str) -> None:
        self.width, self.height = width, height
        size = (round(width * PIXELS_PER_CM) * _SUPERSAMPLING, round(height * PIXELS_PER_CM) * _SUPERSAMPLING)
        self._image = Image.new("RGB", size, colour)
        self._pen = ImageDraw.Draw(self._image)

    def art(self) -> Art:
        """The finished panel, 40 pixels per centimetre."""
        return np.asarray(self._image.reduce(_SUPERSAMPLING))

    def gradient(self, top: str, bottom: str) -> None:
        """Fill the whole panel from one colour to another."""
        ends = np.asarray(
            [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in (top, bottom)], np.float32
        )
        share = np.linspace(0, 1, self._image.height, dtype=np.float32)[:, None]
        column = (ends[0] * (1 - share) + ends[1] * share).round().astype(np.uint8)[:, None]
        self._image.paste(Image.fromarray(np.repeat(column, self._image.width, axis=1)))

    def polygon(self, points: Sequence[Point], fill: str) -> None:
        """A filled polygon."""
        self._pen.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=fill)

    def band(self, top: float, bottom: float, *, fill: str) -> None:
        """A horizontal band across the whole panel."""
        self.polygon([(0, top), (self.width, top), (self.width, bottom), (0, bottom)], fill)

    def disc(self, center: Point, radius: float | Point, *, fill: str) -> None:
        """A filled circle, or an ellipse when `radius` is a pair."""
        radius_x, radius_y = radius if isinstance(radius, tuple) else (radius, radius)
        (x, y) = center
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        self._pen.ellipse([value * _SCALE for value in box], fill=fill)

    def line(self, points: Sequence[Point], *, width: float, fill: str) -> None:
        """A line with round joints."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._pen.line(scaled, fill=fill, width=max(1, round(width * _SCALE)), joint="curve")

    def wave(self, middle: float, *, thickness: float, swing: float, fill: str) -> None:
        """A ribbon that swings once over the width, thick where it climbs; its two ends meet when wrapped."""
        steps = [i / 96 for i in range(97)]
        centre = [middle + swing * math.sin(2 * math.pi * s) for s in steps]
        half = [thickness * (0.55 + 0.45 * math.cos(4 * math.pi * s)) / 2 for s in steps]
        upper = [(s * self.width, y - h) for s, y, h in zip(steps, centre, half, strict=True)]
        lower = [(s * self.width, y + h) for s, y, h in zip(steps, centre, half, strict=True)]
        self.polygon(upper + lower[::-1], fill)

    def text(self, words: str, center: Point, style: Lettering) -> None:
        """Words centred at a point."""
        stamp = _stamp(words, style)
        x, y = (round(value * _SCALE) for value in center)
        self._image.paste(stamp, (x - stamp.width // 2, y - stamp.height // 2), stamp)

    def hill(self, middle: float, *, swing: float, fill: str) -> None:
        """Everything below a line that swings once over the width; its two ends meet when wrapped."""
        steps = [i / 64 for i in range(65)]
        edge = [(s * self.width, middle - swing * math.cos(2 * math.pi * s)) for s in steps]
        self.polygon([*edge, (self.width, self.height), (0, self.height)], fill)

    def seam_print(self, top: float, *, lines: int, fill: str) -> None:
        """Small print where the two halves of a wrapped label meet, away from the brand."""
        for x in (-0.95, self.width - 0.95):
            self.small_print((x, top), lines=lines, fill=fill)

    def small_print(self, corner: Point, *, lines: int, fill: str) -> None:
        """Lines too small to read and a bar code below, as on the back of every pack."""
        x, y = corner
        for i in range(lines):
            self.line([(x, y + 0.22 * i), (x + 1.9 - 0.35 * (i * 7 % 4) / 3, y + 0.22 * i)], width=0.07, fill=fill)
        top = y + 0.22 * lines
        self.polygon([(x, top), (x + 1.9, top), (x + 1.9, top + 1.0), (x, top + 1.0)], "#f6f6f2")
        for i in range(22):
            left = x + 0.1 + i * 0.078
            bar = 0.025 + 0.02 * (i * 5 % 3)
            self.polygon(
                [(left, top + 0.1), (left + bar, top + 0.1), (left + bar, top + 0.9), (left, top + 0.9)], "#111"
            )


def _stamp(words: str, style: Lettering) -> Image.Image:
    """The words alone on a transparent ground, slanted and turned."""
    font = _font(round(style.size * _SCALE * 1.4))  # cap height is about 0.7 of the size
    weight, outline, tracking = (round(cm * _SCALE) for cm in (style.weight, style.outline_width, style.tracking))
    starts = [round(font.getlength(words[:i])) + tracking * i for i in range(len(words))]
    _, top, right, bottom = font.getbbox(words)
    margin = weight + outline + 4
    lean = style.slant * (bottom - top)
    size = (round(right + tracking * (len(words) - 1) + 2 * margin + lean), bottom - top + 2 * margin)
    stamp = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(stamp)
    # all outlines first, or one letter's outline would cut into the letter before it
    for ink, stroke in ((style.outline, weight + outline), (style.fill, weight)):
        for letter, start in zip(words, starts, strict=True):
            if ink:
                at = (margin + start, margin - top)
                pen.text(at, letter, font=font, fill=ink, stroke_width=stroke, stroke_fill=ink)
    if style.slant:
        shift = (1, style.slant, -lean, 0, 1, 0)
        stamp = stamp.transform(size, Image.Transform.AFFINE, shift, Image.Resampling.BICUBIC)
    return stamp.rotate(style.turn, Image.Resampling.BICUBIC, expand=True) if style.turn else stamp
