"""Linear light: what the levels of an image mean in amounts of light, and lookup tables that scale the light.

Levels are sRGB. Source: IEC 61966-2-1 transfer function.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

POWER = 2.2  # light ~ level ** POWER, close to sRGB: a gain g of light is a gain g ** (1 / POWER) of levels


def encode(light: ArrayLike) -> NDArray[np.float64]:
    """Light 0..1 (cut outside) -> levels 0..255, not rounded."""
    cut = np.clip(light, 0, 1)
    return 255 * np.where(cut <= 0.0031308, 12.92 * cut, 1.055 * cut ** (1 / 2.4) - 0.055)


def _decode(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = levels / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


LIGHT = _decode(np.arange(256.0))  # (256,) light of each level, 0..1


def light_table(gains: ArrayLike) -> NDArray[np.uint8]:
    """Lookup table (256, 1) or (256, 3) for one gain of light or one per channel; gain 1 changes no level."""
    table = encode(np.multiply.outer(LIGHT, np.atleast_1d(gains)))
    return np.rint(table).astype(np.uint8)
