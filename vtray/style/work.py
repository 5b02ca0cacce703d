"""Everything that decides the pixels of a stylized image, as plain values that travel to the workers."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # H x W x 3, RGB

Precision = Literal["fp32", "bf16"]
Layout = Literal["nchw", "nhwc"]
Reduction = Literal["mean", "sum"]
Optimizer = Literal["lbfgs", "adam"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleImage:
    """One style: uint8 (H, W, 3) RGB, the hash of its file and its share in a blend."""

    name: str
    image: Image
    sha256: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Which network gives the features, from which weights, at which layers, computed how."""

    network: str
    weights_uri: str
    weights_sha256: str
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    precision: Precision = "fp32"
    layout: Layout = "nchw"


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """How the three losses are weighed, see `vtray.style.objective`.

    strength: 0 (the content image) to 1 (nothing but style); decides where the weights are None.
    content_weight, style_weight, tv_weight: the lecture's w1, w2 and w3 on its unscaled losses, all or none.
    """

    strength: float = 0.5
    content_weight: float | None = None
    style_weight: float | None = None
    tv_weight: float | None = None
    tv_reduction: Reduction = "mean"


@dataclass(frozen=True, kw_only=True)
class OptimizeSpec:
    """The engine `optimize`.

    steps: evaluations of loss and gradient at the finest level, at most; coarse_steps: at each coarser one.
    levels: sizes of the pyramid, each half of the next. size_px: longer side of the largest image that is worked
    on at its own size. tolerance: an image is finished when ten evaluations lower its 8-bit loss by less than this
    fraction. batch: images optimized together. start: "content", "noise", or "image" for `start_image`.
    """

    optimizer: Optimizer = "lbfgs"
    steps: int = 120
    coarse_steps: int = 20
    levels: int = 3
    size_px: int = 512
    start: Literal["content", "noise", "image"] = "content"
    start_image: StyleImage | None = None
    tolerance: float = 0.002
    batch: int = 1


@dataclass(frozen=True, kw_only=True)
class StyleWork:
    """What is made of every image. style_scale: size of the style image relative to the content image."""

    styles: tuple[StyleImage, ...]
    features: FeatureSpec
    loss: LossSpec = LossSpec()
    optimize: OptimizeSpec = OptimizeSpec()
    style_scale: float = 1.0
    seed: int = 0
    threads: int = 1

    def describe(self) -> dict[str, Any]:
        """The work as JSON values; images appear as name, hash and weight."""
        values = asdict(self)
        values["styles"] = [_described(style) for style in self.styles]
        start = self.optimize.start_image
        values["optimize"]["start_image"] = _described(start) if start else None
        return values


def _described(style: StyleImage) -> dict[str, Any]:
    return {"name": style.name, "sha256": style.sha256, "weight": style.weight}
