"""The network of many styles: a style's Gram matrix, put in behind the encoder, says what to paint.

B images, C channels behind the encoder, H rows, W columns.
Source: Zhang and Dana 2017, "Multi-style Generative Network for Real-time Transfer", arXiv 1703.06953.
"""

import torch
from torch import Tensor, nn

from vtray.style.fast.layers import ConvLayer, UpsampleConvLayer
from vtray.style.losses import gram_matrix

EXPANSION = 4  # outputs of a bottleneck for each of its filters


class Bottleneck(nn.Module):
    """A residual block with the norms before the convolutions; `stride` halves the size or keeps it."""

    def __init__(self, inputs: int, filters: int, *, stride: int | None = None) -> None:
        super().__init__()
        outputs = filters * EXPANSION
        if stride:
            self.residual_layer: nn.Module = nn.Conv2d(inputs, outputs, 1, stride)
        else:
            self.residual_layer = nn.Identity()
        middle = ConvLayer(filters, filters, kernel=3, stride=stride or 1)
        self.conv_block = _bottleneck(inputs, filters, middle)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.residual_layer(features) + self.conv_block(features)
        return result


class UpBottleneck(nn.Module):
    """A residual block that doubles the size."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.residual_layer = UpsampleConvLayer(inputs, filters * EXPANSION, kernel=1)
        self.conv_block = _bottleneck(inputs, filters, UpsampleConvLayer(filters, filters, kernel=3))

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.residual_layer(features) + self.conv_block(features)
        return result


class CoMatch(nn.Module):
    """Turns features so that their Gram matrix comes near a style's; `weight` (1, C, C) is learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels, channels).uniform_(0, 0.02))

    def matrix(self, gram: Tensor) -> Tensor:
        """What the features of every position are multiplied with, (B or 1, C, C) -> (B or 1, C, C), float32.

        In full precision also under autocast: large numbers cancel here.
        """
        with torch.autocast(gram.device.type, enabled=False):
            return (self.weight.float() @ gram.float()).transpose(1, 2)

    def forward(self, features: Tensor, gram: Tensor) -> Tensor:
        matched: Tensor = self.matrix(gram).to(features.dtype) @ features.flatten(2)
        return matched.view_as(features)


class MsgNet(nn.Module):
    """Called with RGB 0 to 255, (B, 3, H, W), and the Gram matrix of a style, (B or 1, C, C): the stylized
    images, of the same size and range but not clamped. Sides are at least 5 px.

    C is 4 x `filters`; `width` is the number of channels at full size. Published networks have 128 and 64. Keys
    are those of the source without the second names of encoder and CoMatch (`model1`, `ins`); the source works on
    BGR, so the first and last kernels are turned round when such a file is read.
    """

    def __init__(self, filters: int = 128, *, width: int = 64, num_blocks: int = 6) -> None:
        super().__init__()
        self.filters, self.width, self.num_blocks = filters, width, num_blocks
        channels, half, quarter = filters * EXPANSION, width // 2, width // 4
        encoder = nn.Sequential(
            ConvLayer(3, width, kernel=7),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            Bottleneck(width, half, stride=2),
            Bottleneck(half * EXPANSION, filters, stride=2),
        )
        self.model = nn.ModuleList([encoder, CoMatch(channels)])
        self.model.extend(Bottleneck(channels, filters) for _ in range(num_blocks))
        self.model.extend(
            [
                UpBottleneck(channels, half),
                UpBottleneck(half * EXPANSION, quarter),
                nn.InstanceNorm2d(quarter * EXPANSION),
                nn.ReLU(),
                ConvLayer(quarter * EXPANSION, 3, kernel=7),
            ]
        )

    @property
    def encoder(self) -> nn.Module:
        return self.model[0]

    @property
    def comatch(self) -> CoMatch:
        layer = self.model[1]
        assert isinstance(layer, CoMatch)
        return layer

    @property
    def decoder(self) -> tuple[nn.Module, ...]:
        """The layers behind CoMatch, each applied to what the one before it gives."""
        return tuple(self.model[2:])

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that makes the pixels."""
        layer = self.model[-1].get_submodule("conv2d")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def style_gram(self, style_pixels: Tensor) -> Tensor:
        """The Gram matrix that stands for a style image, RGB 0 to 255, (1, 3, H, W) -> (1, C, C), float32."""
        return gram_matrix(self.encoder(style_pixels))

    def forward(self, content: Tensor, gram: Tensor) -> Tensor:
        height, width = content.shape[-2:]
        features: Tensor = self.comatch(self.encoder(content), gram)
        for layer in self.decoder:
            features = layer(features)
        return features[..., :height, :width]


def _bottleneck(inputs: int, filters: int, middle: nn.Module) -> nn.Sequential:
    """1x1, `middle`, 1x1, each behind a norm and a ReLU."""
    return nn.Sequential(
        nn.InstanceNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, filters, 1),
        nn.InstanceNorm2d(filters),
        nn.ReLU(),
        middle,
        nn.InstanceNorm2d(filters),
        nn.ReLU(),
        nn.Conv2d(filters, filters * EXPANSION, 1),
    )
