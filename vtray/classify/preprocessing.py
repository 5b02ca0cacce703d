"""What a network's weights were trained to see: size, crop, mean and deviation, as torchvision records them.

`image` is uint8 (H, W, 3) RGB, `pixels` is float (B, 3, H, W). Everything here works offline.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from PIL import Image as PillowImage
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from vtray.augment.operator import Image
from vtray.errors import ConfigError
from vtray.images import MAX_PIXELS, decode
from vtray.images.resize import resize

if TYPE_CHECKING:  # processes that only load images need no torch
    from torch import Tensor

LONGEST_PX = 16384  # of a longer strip only the middle is resized: all of it could take gigabytes
RESAMPLING = {"bilinear": PillowImage.Resampling.BILINEAR, "bicubic": PillowImage.Resampling.BICUBIC}

Side = Annotated[int, Field(ge=1, le=4096)]
Deviation = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Preprocessing:
    """Called with an image of any size; gives its middle, uint8 (crop_px, crop_px, 3).

    The shorter side becomes resize_px, by Pillow's antialiased resampling. mean and std are of RGB in 0 to 1.
    Source: torchvision's ImageClassification preset on a Pillow image, the same pixels; of strips that would get
    longer than LONGEST_PX we resize the middle only, up to one pixel beside torchvision's.
    """

    resize_px: Side
    crop_px: Side
    mean: tuple[float, float, float]
    std: tuple[Deviation, Deviation, Deviation]
    interpolation: Literal["bilinear", "bicubic"]

    def __call__(self, image: Image) -> Image:
        return self._middle(self._resized(image))

    def _resized(self, image: Image) -> Image:
        height, width = image.shape[:2]
        left, right, new_width = self._kept(width, min(height, width))
        top, bottom, new_height = self._kept(height, min(height, width))
        box = (left, top, right, bottom)
        if self.interpolation == "bilinear" and box == (0, 0, width, height):
            return resize(image, height=new_height, width=new_width)
        method = RESAMPLING[self.interpolation]
        return np.asarray(PillowImage.fromarray(image).resize((new_width, new_height), method, box=box))

    def _middle(self, image: Image) -> Image:
        """The middle crop_px x crop_px pixels, black where the image is smaller."""
        y, x = (_centre_offset(side, self.crop_px) for side in image.shape[:2])
        if min(x, y) >= 0:
            return np.ascontiguousarray(image[y : y + self.crop_px, x : x + self.crop_px])
        return np.asarray(PillowImage.fromarray(image).crop((x, y, x + self.crop_px, y + self.crop_px)))

    def pixels(self, images: "Tensor") -> "Tensor":
        """uint8 (B, 3, H, W) to what the network takes, float32 of the same shape, on the same device."""
        scaled = images.float().div_(255)
        mean, std = (scaled.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return scaled.sub_(mean).div_(std)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises: ConfigError for missing or unknown keys and for values out of range, one line each."""
        try:
            return cls(**values)
        except ValidationError as error:
            faults = (f"preprocessing.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise ConfigError("\n".join(faults)) from None

    def digest(self) -> str:
        """64 hex digits that change with any of the values."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def _kept(self, side: int, shorter: int) -> tuple[float, float, int]:
        """Start and end of the part of a side that is resized, and the pixels that it gets."""
        scaled = int(self.resize_px * side / shorter)
        kept = min(scaled, LONGEST_PX)
        cut = side * (1 - kept / scaled) / 2
        return cut, side - cut, kept


def _centre_offset(length: int, wanted: int) -> int:
    # torchvision rounds the two cases differently; so do we, to give its pixels
    return round((length - wanted) / 2) if length >= wanted else -((wanted - length) // 2)


def decode_for(preprocessing: Preprocessing, encoded: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """An encoded image as the network's crop, uint8 (crop_px, crop_px, 3). Raises: ImageError."""
    return preprocessing(decode(encoded, max_pixels=max_pixels).image)
