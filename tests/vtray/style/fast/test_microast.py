"""MicroAST by its published weights against a plain implementation on the same tensors, and what is refused."""

from dataclasses import replace

import pytest
import torch
from style_networks import photograph
from torch.nn import functional

from vtray.errors import WeightsError
from vtray.style.fast.microast import PARTS, Signals, build_microast
from vtray.style.pixels import to_pixels
from vtray.weights import load_weights


@pytest.fixture(scope="module")
def parts(fixtures):
    folder = fixtures / "style/MicroAST"
    return {name: load_weights(str(folder / f"{name}_iter_160000.pth.tar")) for name in PARTS}


@pytest.fixture(scope="module")
def network(parts):
    return build_microast(parts)


@pytest.fixture(scope="module")
def pictures(fixtures):
    content = photograph(fixtures / "content/coffee.png", 90, 121)
    return to_pixels([content]), to_pixels([photograph(fixtures / "style_images/starry_night.jpg", 96, 128)])


class Plain:
    """The published program in words of torch.nn.functional; `parts` hold the tensors."""

    def __init__(self, parts):
        self.parts = {name: weights.tensors for name, weights in parts.items()}

    def convolve(self, part, key, features, *, stride=1):
        weight, bias = (self.parts[part][f"{key}.conv_layer.{name}"] for name in ("weight", "bias"))
        side = weight.shape[-1] // 2
        padded = functional.pad(features, (side,) * 4, mode="reflect") if side else features
        return functional.conv2d(padded, weight, bias, stride, groups=features.shape[1] // weight.shape[1])

    def encode(self, part, pixels):
        features = pixels
        for number, stride in ((0, 1), (2, 2), (4, 1), (6, 2), (8, 1)):
            features = torch.relu(self.convolve(part, f"enc1.{number}", features, stride=stride))
        first = self.residual(part, "enc1.10", features)
        return first, self.residual(part, "enc2.0", first)

    def residual(self, part, key, x):
        inner = torch.relu(self.convolve(part, f"{key}.conv1", x))
        return x + self.convolve(part, f"{key}.conv2", inner)

    def modulated(self, key, x, gain, bias):
        inner = torch.relu(gain * self.convolve("decoder", f"{key}.conv1", x) + bias * x)
        return x + gain * self.convolve("decoder", f"{key}.conv2", inner) + bias * inner

    def adain(self, x, style, strength):
        (mean, std), (own_mean, own_std) = self.moments(style), self.moments(x)
        return strength * ((x - own_mean) / own_std * std + mean) + (1 - strength) * x

    def moments(self, x):
        return x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + 1e-5).sqrt()

    def __call__(self, content, style, strength):
        styles = self.encode("style_encoder", style)
        signals = {
            name: self.convolve("modulator", f"{name}.0", styles[int(name[-1]) - 1]).mean((2, 3), keepdim=True)
            for name in ("weight1", "bias1", "weight2", "bias2")
        }
        x = self.encode("content_encoder", content)[1]
        x = self.modulated("dec1", self.adain(x, styles[1], strength), signals["weight2"], signals["bias2"])
        x = self.modulated("dec2", self.adain(x, styles[0], strength), signals["weight1"], signals["bias1"])
        for pair in ((1, 3), (6, 8)):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear")
            for number in pair:
                x = torch.relu(self.convolve("decoder", f"dec3.{number}", x))
        return self.convolve("decoder", "dec3.10", x)


@torch.inference_mode()
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_it_equals_a_plain_implementation(parts, network, pictures, strength):
    content, style = pictures
    expected = Plain(parts)(content, style, strength)
    assert expected.shape[-2:] == (92, 124)  # the source's output: 4 x ceil(side / 4)
    made = network(content, network.encode_style(style), strength)
    assert made.shape == content.shape
    assert (made - expected[..., :90, :121]).abs().max() < 1e-3


@torch.inference_mode()
def test_an_encoded_style_is_as_good_as_one_encoded_each_time(network, pictures):
    content, style = pictures
    kept = network.encode_style(style)
    first = network(content, kept)
    assert torch.equal(first, network(content, kept))
    assert torch.equal(first, network(content, network.encode_style(style.clone())))


@torch.inference_mode()
def test_strength_blends_the_moments_and_keeps_the_modulation(network, pictures):
    """Without modulation strength 0 would know nothing of the style; with it the style still shows."""
    content, style = pictures
    signals = network.encode_style(style)
    other = replace(network.encode_style(style.flip(1)), gains=signals.gains, biases=signals.biases)
    assert torch.equal(network(content, signals, 0.0), network(content, other, 0.0))
    assert not torch.equal(
        network(content, signals, 0.0), network(content, network.encode_style(style.flip(1)), 0.0)
    )
    assert (network(content, signals, 0.0) - content).abs().mean() > 0.01


@torch.inference_mode()
def test_a_blend_lies_between_its_styles(network, pictures):
    content, style = pictures
    both = [network.encode_style(style), network.encode_style(style.flip(1))]
    steps = [network(content, Signals.blend(both, (1 - share, share))) for share in (0.0, 0.5, 1.0)]
    assert torch.equal(steps[0], network(content, both[0]))
    assert torch.equal(steps[2], network(content, both[1]))
    halves = [float((steps[1] - steps[end]).square().mean()) for end in (0, 2)]
    assert max(halves) < float((steps[2] - steps[0]).square().mean())


def test_files_in_another_order_are_refused(parts):
    swapped = parts | {"decoder": parts["modulator"]}
    with pytest.raises(WeightsError, match="not MicroAST's decoder: bias1"):
        build_microast(swapped)
