"""Narrow networks with random weights under their real names, and pictures: what tests of style need."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow

from vtray.style.features import FeatureExtractor
from vtray.style.networks import NETWORKS
from vtray.style.work import FeatureSpec, LossSpec, OptimizeSpec, StyleImage, StyleWork

VGG_LAYERS = ("relu1_1", "relu2_1", "relu3_1")
REAL_NETWORKS = {  # network -> weights among the fixtures, layers that they have
    "vgg19_normalised": ("style/vgg_normalised/vgg_normalised_conv3_1.pth", VGG_LAYERS),
    "squeezenet1_1": ("weights/squeezenet1_1_features.pth", ("relu1", "fire2", "fire3", "fire4", "fire5")),
}


def random_weights(name: str, *, width: int = 4, until: str | None = None) -> dict[str, torch.Tensor]:
    """Tensors for a network whose convolutions have `width` channels, up to the layer `until`."""
    network = NETWORKS[name]
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}

    def convolution(key: str, before: int, after: int, side: int) -> int:
        spread = (2 / (before * side**2)) ** 0.5
        tensors[f"{key}.weight"] = torch.randn(after, before, side, side, generator=random) * spread
        tensors[f"{key}.bias"] = torch.rand(after, generator=random) * 0.1
        return after

    channels = 3
    for layer in network.layers if until is None else network.up_to([until]):
        key = f"{network.prefix}{layer.index}"
        if layer.kind == "conv":
            channels = convolution(key, channels, 3 if layer.name == "conv0" else width, layer.kernel)
        if layer.kind == "fire":
            squeezed = convolution(f"{key}.squeeze", channels, width // 2, 1)
            channels = convolution(f"{key}.expand1x1", squeezed, width, 1)
            channels += convolution(f"{key}.expand3x3", squeezed, width, 3)
    return tensors


def saved(tensors: dict[str, torch.Tensor], path: Path) -> str:
    torch.save(tensors, path)
    return str(path)


def spec_of(network: str, weights: str, layers=VGG_LAYERS, **options) -> FeatureSpec:
    """Style at all of the layers, content at the last of them."""
    values = {"content_layers": tuple(layers[-1:]), "style_layers": tuple(layers)} | options
    return FeatureSpec(network=network, weights_uri=weights, weights_sha256="", **values)


def tiny_spec(folder: Path, **options) -> FeatureSpec:
    """VGG-19 to relu3_1 with six channels everywhere."""
    weights = saved(random_weights("vgg19", width=6, until="relu3_1"), folder / "vgg19.pth")
    return spec_of("vgg19", weights, **options)


def real_spec(fixtures: Path, name: str = "vgg19_normalised", **options) -> FeatureSpec:
    file, layers = REAL_NETWORKS[name]
    return spec_of(name, str(fixtures / file), layers, **options)


def every_layer(network: str, weights: str, **options) -> FeatureExtractor:
    """An extractor that gives all layers of a network."""
    names = tuple(layer.name for layer in NETWORKS[network].layers)
    return FeatureExtractor.load(spec_of(network, weights, names, **options))


def picture(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Smooth colours with some grain, uint8 (H, W, 3)."""
    random = np.random.default_rng(seed)
    colours = Pillow.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    smooth = np.asarray(colours.resize((width, height), Pillow.Resampling.BICUBIC), np.int16)
    return (smooth + random.integers(-12, 13, (height, width, 1))).clip(0, 255).astype(np.uint8)


def stripes(turn: int = 0, side: int = 48) -> np.ndarray:
    """Two colours in turn, uint8 (side, side, 3); its lines run down, or across with turn 1."""
    columns = np.arange(side) // 4 % 2
    lines = np.where(columns[None, :, None], [250, 220, 60], [20, 30, 130]).astype(np.uint8)
    return np.rot90(np.broadcast_to(lines, (side, side, 3)), turn).copy()


def photograph(path: Path, height: int, width: int) -> np.ndarray:
    return np.asarray(Pillow.open(path).convert("RGB").resize((width, height), Pillow.Resampling.BICUBIC))


def style_of(image: np.ndarray, *, name: str = "style", weight: float = 1.0) -> StyleImage:
    return StyleImage(name=name, image=image, sha256=f"sha256 of {name}", weight=weight)


def work_of(features: FeatureSpec, *styles: StyleImage, loss: LossSpec | None = None, **optimize) -> StyleWork:
    """Few steps at one level without early stop, unless `optimize` says so."""
    settings = {"steps": 6, "levels": 1, "tolerance": 0.0} | optimize
    return StyleWork(
        styles=styles or (style_of(stripes()),),
        features=features,
        loss=loss or LossSpec(),
        optimize=OptimizeSpec(**settings),
    )
