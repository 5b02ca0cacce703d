"""The camera: where it stands, how it exposes, and what lens and sensor add. Linear light in, uint8 sRGB out."""

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from vtray.demo.light import Pixels, lamp_colour

Image = NDArray[np.uint8]  # H x W x 3, RGB
Limits = tuple[float, float]

MARGIN = 0.08  # drawn beyond each edge, share of the final size, so that a tilted camera finds picture there
_CURVE_STEPS = 4096
_CURVE_TOP = 4.0  # linear light at which the sensor is full


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Ranges to draw from: lamp in kelvin, gain, noise as a share of white, blur in shares of the size."""

    kelvin: Limits
    gain: Limits
    noise: Limits
    blur: Limits


def _curve() -> NDArray[np.uint8]:
    """Linear light 0..4 to sRGB, with a soft shoulder above 0.65 instead of clipping."""
    light = np.linspace(0, _CURVE_TOP, _CURVE_STEPS)
    knee = 0.65
    soft = np.where(light < knee, light, knee + (1 - knee) * (1 - np.exp(-(light - knee) / (1 - knee))))
    encoded = np.where(soft <= 0.0031308, 12.92 * soft, 1.055 * soft ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(np.uint8)


_TO_SRGB = _curve()
# normal noise from random bytes: ten times faster than drawing each value, and no eye can tell
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)


def framed(scene: Pixels, rng: np.random.Generator, *, size_px: int) -> Pixels:
    """The part of a scene that a slightly turned, tilted and moved camera sees, (size_px, size_px, 3)."""
    canvas = scene.shape[0]
    edge = MARGIN * size_px
    far = canvas - edge
    corners = np.array([(edge, edge), (far, edge), (far, far), (edge, far)])
    roll, zoom = rng.normal(0, 0.028), rng.uniform(0.97, 1.04)
    turn = zoom * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    moved = (corners - canvas / 2) @ turn.T + canvas / 2 + rng.uniform(-0.012, 0.012, (4, 2)) * size_px
    target = np.array([(0, 0), (size_px, 0), (size_px, size_px), (0, size_px)], np.float32)
    view = cv2.getPerspectiveTransform(moved.astype(np.float32), target)
    picture = cv2.warpPerspective(scene, view, (size_px, size_px), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(picture, np.float32)


def developed(scene: Pixels, rng: np.random.Generator, *, exposure: Exposure) -> Image:
    """The picture as the sensor gives it: lens blur, lamp colour, gain, shot and read noise, tone curve."""
    size_px = scene.shape[0]
    sigma = rng.uniform(*exposure.blur) * size_px
    if sigma > 0.2:
        scene = cv2.GaussianBlur(scene, (0, 0), sigma)
    gains = lamp_colour(rng.uniform(*exposure.kelvin)) * np.float32(rng.uniform(*exposure.gain))
    light = np.maximum(cv2.transform(scene, np.diag(gains)), 0)
    strength = np.float32(rng.uniform(*exposure.noise))
    spread = strength * (np.sqrt(light) + np.float32(0.12))
    chance = np.frombuffer(rng.bytes(light.size), np.uint8).reshape(light.shape)
    noisy = light + spread * cv2.LUT(chance, _NORMAL)
    steps = np.clip(noisy * ((_CURVE_STEPS - 1) / _CURVE_TOP), 0, _CURVE_STEPS - 1)
    return np.asarray(_TO_SRGB[steps.astype(np.intp)], np.uint8)
