"""Bad light and lost detail in five severities: what a classifier is tested with besides clean images.

A condition works on the crop that the network sees, so that a severity means the same for images of any size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vtray.augment.degrade import Blur, Erasing, JpegCompression, Noise
from vtray.augment.lighting import ColourTemperature, Exposure
from vtray.augment.operator import Image, Operator, Sample
from vtray.augment.reflection import SpecularGlare, SurfaceReflection
from vtray.augment.shading import CastShadow, UnevenIllumination
from vtray.seeding import rng_for

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One disturbance. operators: for severity 1 to 5, each with its strength fixed; meaning: what grows."""

    name: str
    meaning: str
    operators: tuple[Operator, ...]

    def __call__(self, image: Image, severity: int, *, seed: int, source_sha256: str) -> Image:
        """uint8 (H, W, 3) -> the same size. What is left to chance (a shadow's place) depends on seed, image and
        condition, so it stays where it is while the severity grows."""
        operator = self.operators[severity - 1]
        disturbed = operator(Sample(image=image), rng_for(seed, source_sha256, "condition", self.name))
        return np.ascontiguousarray(disturbed.image)


def _ladder(
    name: str, meaning: str, rungs: tuple[float, ...], make: Callable[[float], Operator]
) -> tuple[str, Condition]:
    return name, Condition(name=name, meaning=meaning, operators=tuple(map(make, rungs)))


def _glare(count: float) -> Operator:
    fixed = (int(count), int(count))
    return SpecularGlare(count=fixed, strength=(1, 1), length=(0.25, 0.4), width=(0.08, 0.12))


# Source: noise and JPEG quality as in ImageNet-C (Hendrycks and Dietterich 2019); its blur is wider (1 to 6 px).
CONDITIONS: Mapping[str, Condition] = dict(
    (
        _ladder(
            "dim_light",
            "1 to 5 stops less light, with sensor noise",
            (-1, -2, -3, -4, -5),
            lambda stops: Exposure(stops=(stops, stops), noise=(1, 1)),
        ),
        _ladder(
            "too_much_light",
            "0.5 to 2.5 stops more light",
            (0.5, 1, 1.5, 2, 2.5),
            lambda stops: Exposure(stops=(stops, stops), noise=(0, 0)),
        ),
        _ladder(
            "warm_light",
            "light of 5000 to 2200 K",
            (5000, 4000, 3300, 2700, 2200),
            lambda kelvin: ColourTemperature(kelvin=(kelvin, kelvin)),
        ),
        _ladder(
            "cold_light",
            "light of 8000 to 25000 K",
            (8000, 10000, 13000, 18000, 25000),
            lambda kelvin: ColourTemperature(kelvin=(kelvin, kelvin)),
        ),
        _ladder(
            "uneven_light",
            "1 to 5 stops between the sides, and darker corners",
            (1, 2, 3, 4, 5),
            lambda stops: UnevenIllumination(strength=(stops, stops), vignette=(stops / 5, stops / 5)),
        ),
        _ladder(
            "cast_shadow",
            "a shadow that takes 30 to 90 % of the light",
            (0.3, 0.45, 0.6, 0.75, 0.9),
            lambda darkness: CastShadow(darkness=(darkness, darkness)),
        ),
        _ladder("glare", "1 to 8 highlights", (1, 2, 3, 5, 8), _glare),
        _ladder(
            "desk_reflection",
            "a mirror image of 20 to 100 %",
            (0.2, 0.4, 0.6, 0.8, 1.0),
            lambda opacity: SurfaceReflection(horizon=(0.55, 0.65), opacity=(opacity, opacity)),
        ),
        _ladder(
            "blur",
            "sigma 0.5 to 4 px",
            (0.5, 1, 2, 3, 4),
            lambda sigma: Blur(sigma=(sigma, sigma)),
        ),
        _ladder(
            "noise",
            "standard deviation 20 to 97 levels",
            (20, 31, 46, 66, 97),
            lambda std: Noise(std=(std, std)),
        ),
        _ladder(
            "jpeg",
            "quality 25 to 7",
            (25, 18, 15, 10, 7),
            lambda quality: JpegCompression(quality=(int(quality), int(quality))),
        ),
        _ladder(
            "erased",
            "5 to 40 % of the image hidden",
            (0.05, 0.1, 0.2, 0.3, 0.4),
            lambda area: Erasing(p=1, area=(area, area), ratio=(0.5, 2)),
        ),
    )
)
