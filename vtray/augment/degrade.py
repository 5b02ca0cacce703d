"""Operators that lose detail as cameras, lenses and storage do: blur, noise, JPEG artefacts, erased parts."""

import functools
import math
import statistics
from typing import Annotated, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from pydantic import Field

from vtray.augment.boxes import draw_box
from vtray.augment.fields import AreaRange, Colour, Quality, RatioRange, WholeRange
from vtray.augment.limits import within
from vtray.augment.operator import Image, ImageOperator, Params, Probability, Range, uniform

SigmaRange = Annotated[Range, within(0, 100)]  # pixels
LevelsRange = Annotated[Range, within(0, 255)]


class Blur(ImageOperator):
    """Gaussian blur; the border is mirrored.

    Source: torchvision GaussianBlur, equal within 1 level for the same kernel of about 6 sigma.
    """

    op: Literal["blur"] = "blur"
    sigma: SigmaRange = Field((0.1, 2.0), description="standard deviation in pixels, 0 to 100; 0 keeps the image")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"sigma": uniform(rng, self.sigma)}

    def change(self, image: Image, params: Params) -> Image:
        if params["sigma"] == 0:
            return image
        blurred: Image = cv2.GaussianBlur(image, (0, 0), params["sigma"])
        return blurred


class Noise(ImageOperator):
    """Gaussian noise, independent for every pixel and channel, and cut at 4.4 standard deviations."""

    op: Literal["noise"] = "noise"
    std: LevelsRange = Field((0, 15), description="standard deviation in levels, 0 to 255; 0 keeps the image")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"std": uniform(rng, self.std), "noise_seed": draw_seed(rng)}

    def change(self, image: Image, params: Params) -> Image:
        if params["std"] == 0:
            return image
        noise = gaussian_levels(image.shape, params["noise_seed"], std=params["std"])
        noisy: Image = np.clip(noise + image, 0, 255).astype(np.uint8)
        return noisy


class JpegCompression(ImageOperator):
    """The artefacts of saving as JPEG with 4:2:0 colour, and reading back; the same pixels as with Pillow."""

    op: Literal["jpeg_compression"] = "jpeg_compression"
    quality: WholeRange[Quality] = Field((30, 90), description="JPEG quality, 1 (worst) to 100")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        return {"quality": int(rng.integers(self.quality[0], self.quality[1] + 1))}

    def change(self, image: Image, params: Params) -> Image:
        # not simplejpeg's encoder: below quality 96 it takes a faster, less exact transform than Pillow
        flags = [cv2.IMWRITE_JPEG_QUALITY, params["quality"]]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
        decoded: Image = simplejpeg.decode_jpeg(encoded, "RGB")
        return decoded


class Erasing(ImageOperator):
    """Paints over one random box; labels, boxes and mask stay. When no box fits, the record's box is empty.

    Source: Zhong et al. 2017 with torchvision RandomErasing's ranges; noise here is uniform over the levels.
    """

    op: Literal["erasing"] = "erasing"
    p: Probability = Field(0.5, description="probability that the operator is applied")
    area: AreaRange = Field((0.02, 0.33), description="part of the image's area, 0.0001 to 1")
    ratio: RatioRange = Field((0.3, 3.3), description="width / height, 0.01 to 100, log-uniform")
    fill: Colour | Literal["noise"] = Field((0, 0, 0), description='RGB levels, or "noise"')

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Params:
        box = draw_box(rng, (height, width), area=self.area, ratio=self.ratio)
        whole = [0, 0, width, height]
        params: Params = {"box": box if box and box != whole else [0, 0, 0, 0]}
        return params | {"noise_seed": draw_seed(rng)} if self.fill == "noise" else params

    def change(self, image: Image, params: Params) -> Image:
        left, top, right, bottom = params["box"]
        erased = image.copy(order="C")
        shape = bottom - top, right - left, 3
        erased[top:bottom, left:right] = (
            random_levels(shape, params["noise_seed"]) if self.fill == "noise" else self.fill
        )
        return erased


def draw_seed(rng: np.random.Generator) -> int:
    """0 <= seed < 2**64: stands in the record for the noise of a whole image."""
    return int(rng.integers(2**64, dtype=np.uint64))


def gaussian_levels(shape: tuple[int, ...], seed: int, *, std: float) -> NDArray[np.int16]:
    """Normal numbers rounded to whole levels, several times faster than drawing them as floats."""
    levels = np.rint(_normal_quantiles() * np.float32(std)).astype(np.int16)
    noise: NDArray[np.int16] = levels[_random_bits(math.prod(shape), seed).reshape(shape)]
    return noise


def random_levels(shape: tuple[int, ...], seed: int) -> Image:
    """uint8, uniform over 0 to 255."""
    return _random_bits(math.prod(shape), seed).astype(np.uint8).reshape(shape)


def _random_bits(num: int, seed: int) -> NDArray[np.uint16]:
    # NumPy keeps raw bits the same in all its versions, which it does not promise for its normal numbers
    raw = np.random.SFC64(seed).random_raw(num // 4 + 1)
    return raw.astype("<u8", copy=False).view("<u2")[:num]


@functools.cache
def _normal_quantiles() -> NDArray[np.float32]:
    """(65536,) the standard normal numbers that equally likely 16-bit numbers stand for; within 4.4."""
    normal = statistics.NormalDist()
    upper = [normal.inv_cdf((index + 0.5) / 65536) for index in range(32768, 65536)]
    return np.array([-value for value in reversed(upper)] + upper, np.float32)
