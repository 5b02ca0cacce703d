"""A loaded Pillow image of any mode becomes uint8 RGB and, if it has one, an alpha plane.

16-bit samples keep their high byte (v >> 8), which is what Pillow does to 16-bit colour and is exact for 8-bit
samples stored as v * 257. CMYK is converted without a profile, LAB with D50 white, both by Pillow.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vtray.images.faults import decode_error

Pixels = NDArray[np.uint8]
Rgb = tuple[int, int, int]

_BITS_PER_SAMPLE = 258  # TIFF tag


def rgb_and_alpha(loaded: Pillow.Image, *, depth: int) -> tuple[Pixels, Pixels | None]:
    """uint8 (H, W, 3) RGB, not composited, and uint8 (H, W) alpha or None; both own their memory.

    depth: bits per sample in the file where Pillow's mode hides them (PNG), else 8. Changes `loaded.info`.

    Raises:
        ImageError: float and 32-bit integer samples ("unsupported").
    """
    mode = loaded.mode
    if mode in ("RGBA", "RGBa", "LA", "PA") or (mode == "P" and loaded.has_transparency_data):
        rgba = np.asarray(loaded.convert("RGBA"))
        return rgba[..., :3].copy(), rgba[..., 3].copy()
    key = loaded.info.pop("transparency", None)  # one fully transparent colour (tRNS); P was done above
    if mode.startswith("I;16") or (mode == "I" and loaded.format == "PPM"):
        return _from_16_bit(loaded, key)
    if mode in ("I", "F"):
        raise decode_error("unsupported", f"mode {mode} ({loaded.format}) has no stated white: store 8 or 16 bits")
    image = np.array(loaded.convert("RGB"))
    return image, None if key is None else _key_alpha(image, _scaled_key(key, depth, mode))


def composite(image: Pixels, alpha: Pixels, background: Rgb) -> Pixels:
    """(image * a + background * (255 - a)) / 255, rounded to the nearest; uint8 (H, W, 3)."""
    if alpha.min() == 255:
        return image
    weight = alpha[..., None].astype(np.uint16)
    behind = np.array(background, np.uint16)
    return ((image * weight + behind * (255 - weight) + 127) // 255).astype(np.uint8)


def _from_16_bit(loaded: Pillow.Image, key: int | None) -> tuple[Pixels, Pixels | None]:
    samples = np.asarray(loaded)
    grey = (samples >> (_sample_bits(loaded) - 8)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), None if key is None else _key_alpha(samples, key)


def _sample_bits(loaded: Pillow.Image) -> int:
    """12-bit TIFFs come as I;16 with values up to 4095; all others are scaled to 16 bits by Pillow."""
    tags = getattr(loaded, "tag_v2", {})
    return max(int(bits) for bits in tags.get(_BITS_PER_SAMPLE, (16,)))


def _scaled_key(key: Any, depth: int, mode: str) -> Any:
    """The transparent colour in the samples' scale: Pillow scales 2, 4 and 16-bit samples, but not the key."""
    if depth == 16:
        return tuple(part >> 8 for part in key)
    return key * 255 // (2**depth - 1) if mode == "L" else key


def _key_alpha(samples: NDArray[Any], key: Any) -> Pixels:
    same = samples == np.array(key, np.int64)
    if same.ndim == 3:
        same = same.all(axis=2)
    return np.where(same, 0, 255).astype(np.uint8)
