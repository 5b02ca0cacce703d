"""Operators that choose which part of the image is seen, and at which size: crops, resize, pad.

Every resize is Pillow's anti-aliased BILINEAR, so the recorded box and size redo it with bare Pillow.
"""

from typing import Literal, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from vtray.augment.boxes import draw_box, largest_centre_box
from vtray.augment.fields import AreaRange, Border, Colour, Margin, Pixels, RatioRange, Size, height_and_width
from vtray.augment.move import CV2_BORDERS, Outside, axes_matrix, move
from vtray.augment.operator import Image, Operator, Params, Sample
from vtray.images.resize import resize, resize_part


class RandomResizedCrop(Operator):
    """Crops a random part and resizes it; when no part fits, the largest one in the middle.

    Source: torchvision RandomResizedCrop on Pillow images, the same pixels for the same box. Record: box as left,
    top, right, bottom in pixels of the input; `image.crop(box).resize((width, height), BILINEAR)` in Pillow.
    """

    op: Literal["random_resized_crop"] = "random_resized_crop"
    size_px: Size = Field(224, description="output size in pixels: one side of a square, or height and width")
    area: AreaRange = Field((0.08, 1.0), description="part of the image's area, 0.0001 to 1")
    ratio: RatioRange = Field((3 / 4, 4 / 3), description="width / height, 0.01 to 100, log-uniform")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        size = height, width
        box = draw_box(rng, size, area=self.area, ratio=self.ratio) or largest_centre_box(size, ratio=self.ratio)
        out_height, out_width = height_and_width(self.size_px)
        return {"box": box, "width": out_width, "height": out_height}

    def apply(self, sample: Sample, params: Params) -> Sample:
        left, top, right, bottom = params["box"]
        height, width = params["height"], params["width"]
        image = resize_part(sample.image, (left, top, right, bottom), height=height, width=width)
        x_scale, y_scale = width / (right - left), height / (bottom - top)
        return move(sample, axes_matrix((x_scale, -left * x_scale), (y_scale, -top * y_scale)), image=image)


class Resize(Operator):
    """Resizes to an exact height and width, or so that the shorter side has a given length.

    Source: torchvision Resize on Pillow images, the same pixels; `longest_px` is its max_size.
    """

    op: Literal["resize"] = "resize"
    size_px: Size = Field(256, description="pixels of the shorter side (ratio stays), or exact height and width")
    longest_px: Pixels = Field(
        4096, description="with one number in size_px: the longer side never gets longer than this, in pixels"
    )

    @model_validator(mode="after")
    def _longest_is_not_shorter(self) -> Self:
        if isinstance(self.size_px, int) and self.size_px > self.longest_px:
            raise ValueError(f"size_px {self.size_px} is above longest_px {self.longest_px}; raise longest_px")
        return self

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        out_height, out_width = self._size(height, width)
        return {"width": out_width, "height": out_height}

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size_px, tuple):
            return self.size_px
        shorter, longer = sorted((height, width))
        new_shorter, new_longer = self.size_px, int(self.size_px * longer / shorter)
        if new_longer > self.longest_px:  # a 1 x 20000 strip must not become gigabytes
            new_shorter, new_longer = max(1, int(self.longest_px * new_shorter / new_longer)), self.longest_px
        return (new_longer, new_shorter) if height > width else (new_shorter, new_longer)

    def apply(self, sample: Sample, params: Params) -> Sample:
        height, width = sample.image.shape[:2]
        image = resize(sample.image, height=params["height"], width=params["width"])
        return move(sample, axes_matrix((params["width"] / width, 0), (params["height"] / height, 0)), image=image)


class CentreCrop(Operator):
    """Cuts the middle out; an image that is too small gets a border of the fill colour.

    Source: torchvision CenterCrop. Record: box in pixels of the input, outside of it where there is a border;
    `image.crop(box)` in Pillow (its border is black).
    """

    op: Literal["centre_crop"] = "centre_crop"
    size_px: Size = Field(224, description="output size in pixels: one side of a square, or height and width")
    fill: Colour = Field((0, 0, 0), description="RGB levels outside the image")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        out_height, out_width = height_and_width(self.size_px)
        left, top = _centre_offset(width, out_width), _centre_offset(height, out_height)
        return {"box": [left, top, left + out_width, top + out_height]}

    def apply(self, sample: Sample, params: Params) -> Sample:
        left, top, right, bottom = params["box"]
        height, width = sample.image.shape[:2]
        part = sample.image[max(0, top) : bottom, max(0, left) : right]
        borders = max(0, -left), max(0, -top), max(0, right - width), max(0, bottom - height)
        image = pad_image(part, borders, outside=Outside(fill=self.fill))
        return move(sample, axes_matrix((1, -left), (1, -top)), image=image)


class Pad(Operator):
    """Adds a border: a number of pixels, then what is missing to a smallest size, half on each side.

    A mask is padded the same way (0 with a constant border); boxes and keypoints are only shifted.
    """

    op: Literal["pad"] = "pad"
    border_px: Margin | tuple[Margin, Margin, Margin, Margin] = Field(
        0, description="pixels to add: one number for all sides, or left, top, right, bottom"
    )
    size_px: Size | None = Field(
        224, description="smallest output size in pixels: one number, or height and width; null for no limit"
    )
    border: Border = Field("constant", description="what the border shows: the fill colour, a mirror or the edge")
    fill: Colour = Field((0, 0, 0), description="RGB levels of the constant border")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        borders = self.border_px if isinstance(self.border_px, tuple) else (self.border_px,) * 4
        left, top, right, bottom = borders
        least_height, least_width = height_and_width(self.size_px or 1)
        missing_x = max(0, least_width - (left + width + right))
        missing_y = max(0, least_height - (top + height + bottom))
        before_x, before_y = missing_x // 2, missing_y // 2  # an odd pixel goes to the right and to the bottom
        return {
            "borders": [
                left + before_x,
                top + before_y,
                right + missing_x - before_x,
                bottom + missing_y - before_y,
            ]
        }

    def apply(self, sample: Sample, params: Params) -> Sample:
        left, top, right, bottom = params["borders"]
        outside = Outside(border=self.border, fill=self.fill)
        image = pad_image(sample.image, (left, top, right, bottom), outside=outside)
        return move(sample, axes_matrix((1, left), (1, top)), image=image, outside=outside)


def pad_image(image: Image, borders: tuple[int, int, int, int], *, outside: Outside) -> Image:
    """uint8 (H, W, 3) with borders of left, top, right, bottom pixels."""
    left, top, right, bottom = borders
    border = CV2_BORDERS[outside.border]
    padded: Image = cv2.copyMakeBorder(image, top, bottom, left, right, border, value=outside.fill)
    return padded


def _centre_offset(length: int, wanted: int) -> int:
    # torchvision rounds the two cases differently; so do we, to give its pixels
    return round((length - wanted) / 2) if length >= wanted else -((wanted - length) // 2)
