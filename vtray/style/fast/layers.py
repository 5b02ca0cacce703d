"""Convolutions of fast networks: reflection padding, and nearest upsampling instead of transposed convolutions.

B images, C channels, H rows, W columns. Children have the names of pytorch/examples and MSG-Net, so keys fit.
"""

from torch import Tensor, nn

SMALLEST_SIDE_PX = 5  # reflection needs two rows and columns at a quarter of the size, five at the full one


class ConvLayer(nn.Module):
    """Reflection padding and a convolution: (B, C, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.conv2d(self.reflection_pad(features))
        return convolved


class UpsampleConvLayer(nn.Module):
    """Twice the size by repeating pixels, then a ConvLayer: (B, C, H, W) -> (B, outputs, 2H, 2W)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int) -> None:
        super().__init__()
        self.upsample_layer = nn.Upsample(scale_factor=2, mode="nearest")
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, kernel)

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.conv2d(self.reflection_pad(self.upsample_layer(features)))
        return convolved
