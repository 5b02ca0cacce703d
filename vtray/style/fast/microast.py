"""Any style in one pass by a network of half a million weights: two encoders, a modulator and a decoder.

B images, C channels (64), H rows, W columns.
Source: Wang et al. 2023, "MicroAST: Towards Super-Fast Ultra-Resolution Arbitrary Style Transfer", arXiv
2211.15313.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtray.errors import WeightsError
from vtray.style.fast.moments import Moments, adaptive_instance_norm, weighted
from vtray.weights import Weights

PARTS = ("content_encoder", "style_encoder", "modulator", "decoder")
WIDTHS = (16, 32, 64)  # channels at full, half and quarter size


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """What stands for a style at two depths: moments of features; gain and bias of filters, (1, C, 1, 1)."""

    moments: tuple[Moments, Moments]
    gains: tuple[Tensor, Tensor]
    biases: tuple[Tensor, Tensor]

    @classmethod
    def blend(cls, signals: Sequence["Signals"], shares: Sequence[float]) -> "Signals":
        """The average of several styles with shares that add up to 1."""
        first, second = (Moments.blend([each.moments[depth] for each in signals], shares) for depth in (0, 1))
        gains = [weighted([each.gains[depth] for each in signals], shares) for depth in (0, 1)]
        biases = [weighted([each.biases[depth] for each in signals], shares) for depth in (0, 1)]
        return cls(moments=(first, second), gains=(gains[0], gains[1]), biases=(biases[0], biases[1]))


class _Convolution(nn.Module):
    """Reflection padding and a convolution, under the published key."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv_layer = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.conv_layer(self.reflection_pad(features))
        return convolved


class _Residual(nn.Module):
    """Two 3x3 convolutions beside the identity; gain and bias of a style may modulate both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _Convolution(channels, channels, kernel=3)
        self.conv2 = _Convolution(channels, channels, kernel=3)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = features + self.conv2(self.relu(self.conv1(features)))
        return result

    def modulated(self, features: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        gain, bias = gain.to(features.dtype), bias.to(features.dtype)
        inner = self.relu(self.conv1(features) * gain + features * bias)
        result: Tensor = features + (self.conv2(inner) * gain + inner * bias)
        return result


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        full, half, quarter = WIDTHS
        self.enc1 = nn.Sequential(
            _Convolution(3, full, kernel=9),
            nn.ReLU(),
            _Convolution(full, half, kernel=3, stride=2, groups=full),
            nn.ReLU(),
            _Convolution(half, half, kernel=1),
            nn.ReLU(),
            _Convolution(half, quarter, kernel=3, stride=2, groups=half),
            nn.ReLU(),
            _Convolution(quarter, quarter, kernel=1),
            nn.ReLU(),
            _Residual(quarter),
        )
        self.enc2 = nn.Sequential(_Residual(quarter))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        first = self.enc1(pixels)
        return first, self.enc2(first)


class _Modulator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = WIDTHS[-1]
        for name in ("weight1", "bias1", "weight2", "bias2"):
            depthwise = _Convolution(channels, channels, kernel=3, groups=channels)
            self.add_module(name, nn.Sequential(depthwise, nn.AdaptiveAvgPool2d((1, 1))))

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        by_depth = {"1": first, "2": second}
        return {name: part(by_depth[name[-1]]) for name, part in self.named_children()}


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        full, half, quarter = WIDTHS
        self.dec1, self.dec2 = _Residual(quarter), _Residual(quarter)
        self.dec3 = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _Convolution(quarter, half, kernel=3, groups=half),
            nn.ReLU(),
            _Convolution(half, half, kernel=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _Convolution(half, full, kernel=3, groups=full),
            nn.ReLU(),
            _Convolution(full, full, kernel=1),
            nn.ReLU(),
            _Convolution(full, 3, kernel=9),
        )

    def forward(self, features: Tensor, style: Signals, strength: float) -> Tensor:
        """The deeper map's style comes first."""
        for depth, block in ((1, self.dec1), (0, self.dec2)):
            moved = adaptive_instance_norm(features, style.moments[depth], strength=strength)
            features = block.modulated(moved, style.gains[depth], style.biases[depth])
        painted: Tensor = self.dec3(features)
        return painted


class MicroAst(nn.Module):
    """Called with RGB pixels 0 to 1, (B, 3, H, W), and the signals of a style: the stylized pixels, not clamped.

    `strength` blends the moments only, as published: the filters keep the style's modulation, so that 0 is not the
    content image. Sides that are no multiple of 4 come out larger in the source; here what is too much is cut off.
    """

    min_side_px = 16

    def __init__(self) -> None:
        super().__init__()
        self.content_encoder, self.style_encoder = _Encoder(), _Encoder()
        self.modulator, self.decoder = _Modulator(), _Decoder()

    def encode_style(self, style: Tensor) -> Signals:
        """What stands for a style image, (1, 3, H, W) in 0 to 1."""
        first, second = self.style_encoder(style)
        found = self.modulator(first, second)
        return Signals(
            moments=(Moments.of(first), Moments.of(second)),
            gains=(found["weight1"], found["weight2"]),
            biases=(found["bias1"], found["bias2"]),
        )

    def forward(self, content: Tensor, style: Signals, strength: float = 1.0) -> Tensor:
        features = self.content_encoder(content)[1]
        painted: Tensor = self.decoder(features, style, strength)
        return painted[..., : content.shape[-2], : content.shape[-1]]


def build_microast(parts: Mapping[str, Weights]) -> MicroAst:
    """The network of the four published files, by the names in `PARTS`. Raises: WeightsError if one is another."""
    with torch.device("meta"):
        network = MicroAst()
    for name in PARTS:
        weights, part = parts[name], network.get_submodule(name)
        expected = {key: tuple(tensor.shape) for key, tensor in part.state_dict().items()}
        found = {key: tuple(tensor.shape) for key, tensor in weights.tensors.items()}
        if found != expected:
            odd = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
            raise WeightsError(
                f"{weights.uri}: not MicroAST's {name.replace('_', ' ')}: {', '.join(odd[:3])} differ"
            )
        part.load_state_dict({key: tensor.float().clone() for key, tensor in weights.tensors.items()}, assign=True)
    return network.eval().requires_grad_(requires_grad=False)
