"""Colour keeping: how much of the content image's colours a stylized image gives back."""

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vtray.style.work import Image

ColourMode = Literal["style", "luma", "histogram"]

_ROWS = 256  # of an image that are floats at one time
_NOISE = 1.0  # levels squared, added to variances: an image of one colour has none to divide by


def keep_colour(stylized: Image, content: Image, mode: ColourMode) -> Image:
    """The stylized image in the colours that `mode` wants; all uint8 (H, W, 3) RGB of one size.

    style: unchanged, the colours of the painting. luma: the brightness of the stylized image, the colours of the
    content at the same place. histogram: the colours of the content wherever the style puts them.

    Raises:
        ValueError: unknown mode, or images of two sizes.
    """
    if mode not in get_args(ColourMode):
        raise ValueError(f"colour {mode!r}: allowed are {', '.join(get_args(ColourMode))}")
    if stylized.shape != content.shape:
        raise ValueError(f"stylized {stylized.shape} and content {content.shape} differ; give both one size")
    if mode == "style":
        return stylized
    return merge_luma(stylized, content) if mode == "luma" else match_histogram(stylized, content)


def merge_luma(stylized: Image, content: Image) -> Image:
    """Y of the stylized image with Cb and Cr of the content.

    Pillow's conversion (BT.601, full range, rounded down), so that results are those of the usual YCbCr merge.
    Source: Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer", section 4 (there in YIQ).
    """
    brightness = Pillow.fromarray(stylized).convert("YCbCr").getchannel("Y")
    _, blue, red = Pillow.fromarray(content).convert("YCbCr").split()
    return np.array(Pillow.merge("YCbCr", (brightness, blue, red)).convert("RGB"))


def match_histogram(stylized: Image, content: Image) -> Image:
    """The stylized image moved to the content's mean and covariance in RGB, then each channel to its histogram.

    The linear map keeps the hues apart, which matching channels alone does not (grey turns green and purple); the
    histograms bring back deep shadows and whites. Matching all of the distribution puts grain on smooth strokes.
    Source: Pitie and Kokaram 2007, "The Linear Monge-Kantorovitch Linear Colour Mapping for Example-Based Colour
    Transfer"; Gatys et al. 2016 match the style image before the transfer, here the result is matched after it.
    """
    mean, covariance = _moments(stylized)
    wanted_mean, wanted_covariance = _moments(content)
    change = _linear_map(covariance, wanted_covariance)
    shift = wanted_mean - change @ mean
    moved = cv2.transform(stylized, np.column_stack([change, shift]))
    channels = (_match_levels(moved[..., channel], content[..., channel]) for channel in range(3))
    return np.dstack(list(channels))


def _moments(image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (3,) and covariance (3, 3) of the colours; the sums are whole numbers, so no order changes them."""
    total, products = np.zeros(3), np.zeros((3, 3))
    for row in range(0, len(image), _ROWS):
        colours = image[row : row + _ROWS].reshape(-1, 3).astype(np.float64)
        total += colours.sum(axis=0)
        products += colours.T @ colours
    num_pixels = image.shape[0] * image.shape[1]
    mean = total / num_pixels
    return mean, products / num_pixels - np.outer(mean, mean) + _NOISE * np.eye(3)


def _linear_map(covariance: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric matrix that takes colours of one covariance to another and moves them least."""
    root, inverse = _power(covariance, 0.5), _power(covariance, -0.5)
    return inverse @ _power(root @ wanted @ root, 0.5) @ inverse


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """A power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * values**exponent) @ vectors.T)


def _match_levels(channel: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One channel (H, W) with the histogram of another: each level goes to the level of the same middle rank."""
    counts, wanted_counts = (np.bincount(plane.ravel(), minlength=256) for plane in (channel, wanted))
    ranks = (np.cumsum(counts) - counts / 2) * (wanted.size / channel.size)
    table = np.searchsorted(np.cumsum(wanted_counts), ranks)
    return np.asarray(cv2.LUT(channel, table.astype(np.uint8)))
