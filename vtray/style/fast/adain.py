"""Any style in one pass: a VGG encodes, its features get the moments of the style's, a trained decoder paints.

B images, H rows, W columns. Both halves are published as plain lists of layers, from which they are built here.
Source: Huang and Belongie 2017, arXiv 1703.06868; weights in the layout of WCT and its decoders.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from vtray.errors import WeightsError
from vtray.style.fast.moments import Moments, adaptive_instance_norm
from vtray.style.features import depth_of
from vtray.style.networks import network_named
from vtray.weights import Weights

ENCODER = "vgg19_normalised"
DECODERS = {  # end of the encoder -> numbers of the decoder's convolutions, and of its upsamplings
    "relu1_1": ((1,), ()),
    "relu2_1": ((1, 5, 8), (3,)),
    "relu3_1": ((1, 5, 8, 12, 15), (3, 10)),
    "relu4_1": ((1, 5, 8, 11, 14, 18, 21, 25, 28), (3, 16, 23)),
}
WIDTHS = {"relu1_1": 64, "relu2_1": 128, "relu3_1": 256, "relu4_1": 512}


class Adain(nn.Module):
    """Called with RGB pixels 0 to 1, (B, 3, H, W), and the moments of a style: the stylized pixels, not clamped.

    end: the layer whose features get the style's moments.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, end: str) -> None:
        super().__init__()
        self.encoder, self.decoder, self.end = encoder, decoder, end

    @property
    def min_side_px(self) -> int:
        """Reflection needs two rows and columns behind the last pooling."""
        return 4 << len(DECODERS[self.end][1])

    def encode_style(self, style: Tensor) -> Moments:
        """What stands for a style image, (1, 3, H, W) in 0 to 1."""
        return Moments.of(self.encoder(style))

    def forward(self, content: Tensor, style: Moments, strength: float = 1.0) -> Tensor:
        features = adaptive_instance_norm(self.encoder(content), style, strength=strength)
        painted: Tensor = self.decoder(features)
        return painted[..., : content.shape[-2], : content.shape[-1]]


def build_adain(encoder: Weights, decoder: Weights) -> Adain:
    """The network of two weights files: the normalised VGG-19, and a decoder that tells where it is cut.

    Raises: WeightsError for files of something else, or that do not fit together.
    """
    end = _end_of(decoder)
    return (
        Adain(_encoder(encoder, end), _decoder(decoder, end), end=end).eval().requires_grad_(requires_grad=False)
    )


def _end_of(decoder: Weights) -> str:
    """The encoder's layer that a decoder starts from, by its keys."""
    numbers = {int(key.partition(".")[0]) for key in decoder.tensors if key.partition(".")[0].isdigit()}
    for end, (convolutions, _) in DECODERS.items():
        if numbers == set(convolutions) and len(decoder.tensors) == 2 * len(convolutions):
            return end
    raise WeightsError(
        f"{decoder.uri}: no decoder of {ENCODER}: its keys are {', '.join(sorted(decoder.tensors)[:3])}; "
        f"engine.decoder takes those that begin at {', '.join(DECODERS)}"
    )


def _encoder(weights: Weights, end: str) -> nn.Sequential:
    """The layers of the normalised VGG-19 up to `end`."""
    network = network_named(ENCODER)
    depth = depth_of(network, weights.tensors)
    needed = network.up_to([end])
    if depth < len(needed) - 1:  # the last one is an activation without weights
        there = network.layers[depth - 1].name if depth else "nothing"
        raise WeightsError(f"{weights.uri}: the encoder has {ENCODER} to {there}, the decoder begins at {end}")
    layers: list[nn.Module] = []
    for layer in needed:
        if layer.kind == "conv":
            padded = [nn.ReflectionPad2d(layer.kernel // 2)] if layer.kernel > 1 else []
            layers += [*padded, _convolution(weights, str(layer.index))]
        else:
            layers.append(nn.ReLU() if layer.kind == "relu" else nn.MaxPool2d(2, 2, ceil_mode=True))
    return nn.Sequential(*layers)


def _decoder(weights: Weights, end: str) -> nn.Sequential:
    """Padding and convolution by turns, ReLUs between, twice the size where the encoder has pooled."""
    layers = list(_decoder_layers(weights.tensors, end))
    channels = WIDTHS[end]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            if layer.in_channels != channels:
                raise WeightsError(
                    f"{weights.uri}: a layer takes {layer.in_channels} channels and gets {channels}"
                )
            channels = layer.out_channels
    if channels != 3:
        raise WeightsError(f"{weights.uri}: the decoder ends with {channels} channels, not the 3 of RGB")
    return nn.Sequential(*layers)


def _decoder_layers(tensors: Mapping[str, Tensor], end: str) -> Iterator[nn.Module]:
    convolutions, upsamplings = DECODERS[end]
    for number in convolutions:
        yield nn.ReflectionPad2d(1)
        yield _filled(tensors[f"{number}.weight"], tensors[f"{number}.bias"])
        if number != convolutions[-1]:
            yield nn.ReLU()
        if number + 2 in upsamplings:
            yield nn.Upsample(scale_factor=2, mode="nearest")


def _convolution(weights: Weights, key: str) -> nn.Conv2d:
    tensors = {name: weights.tensors.get(f"{key}.{name}") for name in ("weight", "bias")}
    weight, bias = tensors["weight"], tensors["bias"]
    if weight is None or bias is None or weight.ndim != 4:
        raise WeightsError(f"{weights.uri}: {key}.weight or {key}.bias is missing: no weights of {ENCODER}")
    return _filled(weight, bias)


def _filled(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    outputs, inputs, height, width = weight.shape
    with torch.device("meta"):
        layer = nn.Conv2d(inputs, outputs, (height, width))
    layer.load_state_dict({"weight": weight.float().clone(), "bias": bias.float().clone()}, assign=True)
    return layer
