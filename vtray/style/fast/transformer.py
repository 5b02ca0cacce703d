"""The network of one style: two strides down, five residual blocks, two upsamplings.

B images, H rows, W columns.
"""

from torch import Tensor, nn

from vtray.style.fast.layers import ConvLayer, UpsampleConvLayer

NUM_RESIDUALS = 5


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norms beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, kernel=3)
        self.in1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = ConvLayer(channels, channels, kernel=3)
        self.in2 = nn.InstanceNorm2d(channels, affine=True)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        changed = self.relu(self.in1(self.conv1(features)))
        result: Tensor = features + self.in2(self.conv2(changed))
        return result


class TransformerNet(nn.Module):
    """RGB 0 to 255, (B, 3, H, W) -> the stylized images, of the same size and range but not clamped.

    Sides are at least 5 px. `width` is the number of channels at full size: 32 in published networks.
    Source: Johnson et al. 2016, in the layout and with the keys of pytorch/examples fast_neural_style; sizes that
    are no multiple of 4 come out larger there, here the rows and columns too many are cut off.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.conv1 = ConvLayer(3, width, kernel=9)
        self.in1 = nn.InstanceNorm2d(width, affine=True)
        self.conv2 = ConvLayer(width, 2 * width, kernel=3, stride=2)
        self.in2 = nn.InstanceNorm2d(2 * width, affine=True)
        self.conv3 = ConvLayer(2 * width, 4 * width, kernel=3, stride=2)
        self.in3 = nn.InstanceNorm2d(4 * width, affine=True)
        for number in range(1, NUM_RESIDUALS + 1):
            self.add_module(f"res{number}", ResidualBlock(4 * width))
        self.deconv1 = UpsampleConvLayer(4 * width, 2 * width, kernel=3)
        self.in4 = nn.InstanceNorm2d(2 * width, affine=True)
        self.deconv2 = UpsampleConvLayer(2 * width, width, kernel=3)
        self.in5 = nn.InstanceNorm2d(width, affine=True)
        self.deconv3 = ConvLayer(width, 3, kernel=9)
        self.relu = nn.ReLU()

    def forward(self, content: Tensor) -> Tensor:
        height, width = content.shape[-2:]
        features = self.relu(self.in1(self.conv1(content)))
        features = self.relu(self.in2(self.conv2(features)))
        features = self.relu(self.in3(self.conv3(features)))
        for number in range(1, NUM_RESIDUALS + 1):
            features = self.get_submodule(f"res{number}")(features)
        features = self.relu(self.in4(self.deconv1(features)))
        features = self.relu(self.in5(self.deconv2(features)))
        stylized: Tensor = self.deconv3(features)
        return stylized[..., :height, :width]
