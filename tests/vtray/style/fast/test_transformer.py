"""TransformerNet: the layout of pytorch/examples, and an independent forward pass over its keys."""

import pytest
import torch
from fast_networks import content, tiny_transformer
from torch.nn import functional

from vtray.style.fast.transformer import TransformerNet


def reference(tensors, pixels):
    """pytorch/examples' network, written down as a sequence of functions on its state dict."""

    def conv(x, key, stride=1):
        weight = tensors[f"{key}.conv2d.weight"]
        x = functional.pad(x, (weight.shape[-1] // 2,) * 4, mode="reflect")
        return functional.conv2d(x, weight, tensors[f"{key}.conv2d.bias"], stride)

    def norm(x, key):
        mean = x.mean((2, 3), keepdim=True)
        variance = x.var((2, 3), unbiased=False, keepdim=True)
        weight, bias = (tensors[f"{key}.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def double(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    x = norm(conv(pixels, "conv1"), "in1").relu()
    x = norm(conv(x, "conv2", 2), "in2").relu()
    x = norm(conv(x, "conv3", 2), "in3").relu()
    for number in range(1, 6):
        res = f"res{number}"
        inner = norm(conv(x, f"{res}.conv1"), f"{res}.in1").relu()
        x = x + norm(conv(inner, f"{res}.conv2"), f"{res}.in2")
    x = norm(conv(double(x), "deconv1"), "in4").relu()
    x = norm(conv(double(x), "deconv2"), "in5").relu()
    return conv(x, "deconv3")


def test_it_has_the_tensors_of_published_files():
    tensors = TransformerNet().state_dict()
    assert len(tensors) == 62
    assert sum(tensor.numel() for tensor in tensors.values()) == pytest.approx(1.68e6, rel=0.005)
    assert {"conv1.conv2d.weight", "in5.bias", "res5.conv2.conv2d.bias", "res1.in2.weight"} <= tensors.keys()
    assert tensors["deconv3.conv2d.weight"].shape == (3, 32, 9, 9)


@pytest.mark.parametrize("size", [(24, 28), (23, 30), (5, 9)])
def test_it_computes_what_the_source_does(size):
    network, pixels = tiny_transformer(), content(2, *size)
    expected = reference(network.state_dict(), pixels)[..., : size[0], : size[1]]
    assert torch.allclose(network(pixels), expected, atol=1e-4 * float(expected.abs().max()))


def test_images_of_a_batch_never_mix():
    network, pixels = tiny_transformer(), content(3)
    alone = torch.cat([network(one) for one in pixels.split(1)])
    assert torch.allclose(network(pixels), alone, atol=1e-4 * float(alone.abs().max()))
