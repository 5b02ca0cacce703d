"""A fast network with its style inside: pixels in, stylized pixels out, however many styles it was made for.

B images, H rows, W columns; pixels are RGB 0 to 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vtray.errors import ConfigError
from vtray.style.fast.adain import Adain, build_adain
from vtray.style.fast.load import FastModel, load_fast
from vtray.style.fast.microast import MicroAst, Signals, build_microast
from vtray.style.fast.moments import Moments, weighted
from vtray.style.fast.msgnet import MsgNet
from vtray.style.fast.transformer import TransformerNet
from vtray.style.features import DTYPES, FORMATS
from vtray.style.pixels import resized, to_pixels
from vtray.style.work import FastWork, Image, Layout, Precision, StyleImage
from vtray.weights import load_weights

LEVELS = 255  # trained networks take and give 0 to 255
PIXEL_BYTES = 40  # the image itself: 8 bit and float, in and out
SMALLEST_STYLE_PX = 32
SMALLEST_TRAINED_PX = 16  # eight positions at a quarter of the size are few enough to normalise


class Styled(nn.Module):
    """A network with its style, (B, 3, H, W) -> (B, 3, H, W): pixels times `levels` in and out.

    min_side_px: smaller images cannot be normalised. features: channels for each pixel that are alive at the worst
    moment; kept: those that stay where the image is painted in tiles.
    """

    levels: int = LEVELS
    min_side_px: int = SMALLEST_TRAINED_PX
    features: int
    kept: int


class _AnyStyle(Styled):
    """AdaIN and MicroAST, with the style encoded."""

    levels = 1

    def __init__(self, network: Adain | MicroAst, style: Moments | Signals, strength: float) -> None:
        super().__init__()
        self.network, self.style, self.strength = network, style, strength
        self.min_side_px = network.min_side_px
        self.features, self.kept = (205, 20) if isinstance(network, Adain) else (145, 20)

    def forward(self, content: Tensor) -> Tensor:
        painted: Tensor = self.network(content, self.style, self.strength)
        return painted


class _OneStyle(Styled):
    """A network that was trained for one style."""

    def __init__(self, network: TransformerNet) -> None:
        super().__init__()
        self.network = network
        self.features, self.kept = 11 * network.width // 2, network.width

    def forward(self, content: Tensor) -> Tensor:
        painted: Tensor = self.network(content)
        return painted


class _ManyStyles(Styled):
    """MSG-Net with one Gram matrix: its CoMatch layer is then a 1x1 convolution."""

    def __init__(self, network: MsgNet, gram: Tensor) -> None:
        super().__init__()
        matrix = network.comatch.matrix(gram)[0]
        self.match = nn.Conv2d(len(matrix), len(matrix), 1, bias=False)
        self.match.weight = nn.Parameter(matrix[:, :, None, None].clone(), requires_grad=False)
        self.encoder, self.decoder = network.encoder, nn.Sequential(*network.decoder)
        self.features, self.kept = 8 * network.width, network.filters + network.width // 2

    def forward(self, content: Tensor) -> Tensor:
        painted: Tensor = self.decoder(self.match(self.encoder(content)))
        return painted[..., : content.shape[-2], : content.shape[-1]]


class Painter(nn.Module):
    """Called with float32 pixels (B, 3, H, W); gives stylized pixels of that size, float32, not clamped.

    mix: share of the stylized pixels in the result; the rest is the content.
    """

    def __init__(self, network: Styled, *, precision: Precision, layout: Layout, mix: float = 1.0) -> None:
        super().__init__()
        self.precision, self.layout, self.mix = precision, layout, mix
        self.levels, self.min_side_px, self.features = network.levels, network.min_side_px, network.features
        self.kept = network.kept
        self.network = network.to(dtype=DTYPES[precision]).to(memory_format=FORMATS[layout])

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = pixels * self.levels if self.levels != 1 else pixels
        painted: Tensor = self.network(scaled.to(dtype=DTYPES[self.precision], memory_format=FORMATS[self.layout]))
        painted = painted.to(dtype=torch.float32)
        painted = painted / self.levels if self.levels != 1 else painted
        return painted if self.mix == 1 else painted * self.mix + pixels * (1 - self.mix)

    @property
    def weights_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.parameters())

    def bytes_for(self, height: int, width: int) -> int:
        """Peak memory of one image that is worked on whole, without the network."""
        element = 2 if self.precision == "bf16" else 4
        return height * width * (self.features * element + PIXEL_BYTES)


@torch.inference_mode()
def load_painter(work: FastWork, *, device: torch.device | str = "cpu") -> Painter:
    """Read the weights and encode the styles, once. Raises: ConfigError, WeightsError, StorageError."""
    spec = work.fast
    network = _styled(work, device)
    mix = 1.0 if isinstance(network, _AnyStyle) else spec.strength
    return Painter(network, precision=spec.precision, layout=spec.layout, mix=mix).to(device).eval()


def _styled(work: FastWork, device: torch.device | str) -> Styled:
    if work.fast.engine in ("adain", "microast"):
        return _any_style(work, device)
    (file,) = work.fast.weights
    model = load_fast(file.uri, file.sha256 or None)
    require_engine(model, work.fast.engine)
    if isinstance(model.network, MsgNet):
        network = model.network.to(device)
        return _ManyStyles(network, _gram(model, network, work, device))
    return _OneStyle(model.network)


def require_engine(model: FastModel, engine: str) -> None:
    """Raises: ConfigError for a model of another engine."""
    if model.engine != engine:
        raise ConfigError(f"engine.model: {model.uri} is of engine {model.engine}; use engine.name={model.engine}")


def _any_style(work: FastWork, device: torch.device | str) -> _AnyStyle:
    parts = {file.part: load_weights(file.uri, sha256=file.sha256 or None) for file in work.fast.weights}
    adain = work.fast.engine == "adain"
    network: Any = build_adain(parts["encoder"], parts["decoder"]) if adain else build_microast(parts)
    network = network.to(device)
    encoded = [network.encode_style(pixels) for pixels in _style_pixels(work, device)]
    return _AnyStyle(network, encoded[0].blend(encoded, shares_of(work.styles)), work.fast.strength)


def _gram(model: FastModel, network: MsgNet, work: FastWork, device: torch.device | str) -> Tensor:
    """Of the named styles, or of style images, blended."""
    if work.named:
        grams = [model.grams[style.name].to(device) for style in work.styles]
    else:
        grams = [network.style_gram(pixels * LEVELS) for pixels in _style_pixels(work, device)]
    return weighted(grams, shares_of(work.styles))


def _style_pixels(work: FastWork, device: torch.device | str) -> list[Tensor]:
    """The style images with `style_px` times `style_scale` on their longer side."""
    longer = max(SMALLEST_STYLE_PX, round(work.fast.style_px * work.style_scale))
    return [to_pixels([_scaled(style.image, longer)], device) for style in work.styles]


def _scaled(image: Image, longer: int) -> Image:
    height, width = image.shape[:2]
    sides = (max(SMALLEST_STYLE_PX, round(side * longer / max(height, width))) for side in (height, width))
    rows, columns = sides
    return np.asarray(resized(image, (rows, columns)))


def shares_of(styles: Sequence[StyleImage]) -> tuple[float, ...]:
    """The styles' weights, scaled so that they add up to 1."""
    total = sum(style.weight for style in styles)
    return tuple(style.weight / total for style in styles)
