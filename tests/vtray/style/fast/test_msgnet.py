"""MSG-Net: what the source's layers compute, worked out from its keys, and the part of the style."""

import pytest
import torch
from fast_networks import content, tiny_msgnet
from torch.nn import functional

from vtray.style.fast.msgnet import CoMatch, MsgNet
from vtray.style.losses import gram_matrix


def reference(tensors, pixels, gram, *, num_blocks):
    """The source's `Net` as a sequence of functions on its state dict."""

    def conv(x, key, stride=1):
        weight = tensors[f"{key}.weight"]
        if weight.shape[-1] > 1:
            x = functional.pad(x, (weight.shape[-1] // 2,) * 4, mode="reflect")
        return functional.conv2d(x, weight, tensors[f"{key}.bias"], stride)

    def active(x):
        variance = x.var((2, 3), unbiased=False, keepdim=True)
        return ((x - x.mean((2, 3), keepdim=True)) / (variance + 1e-5).sqrt()).relu()

    def double(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def inner(x, key, middle):
        x = conv(active(x), f"{key}.conv_block.2")
        return conv(active(middle(active(x), f"{key}.conv_block.5.conv2d")), f"{key}.conv_block.8")

    x = active(conv(pixels, "model.0.0.conv2d"))
    for key in ("model.0.3", "model.0.4"):
        x = conv(x, f"{key}.residual_layer", 2) + inner(x, key, lambda y, name: conv(y, name, 2))
    turned = torch.bmm(tensors["model.1.weight"].expand_as(gram), gram).transpose(1, 2)
    x = torch.einsum("bij,bjhw->bihw", turned.expand(len(x), -1, -1), x)
    for number in range(2, 2 + num_blocks):
        x = x + inner(x, f"model.{number}", conv)
    for number in range(2 + num_blocks, 4 + num_blocks):
        key = f"model.{number}"
        skipped = conv(double(x), f"{key}.residual_layer.conv2d")
        x = skipped + inner(x, key, lambda y, name: conv(double(y), name))
    return conv(active(x), f"model.{6 + num_blocks}.conv2d")


def test_it_has_the_layout_of_published_files():
    with torch.device("meta"):
        tensors = MsgNet().state_dict()
    assert tensors["model.1.weight"].shape == (1, 512, 512)
    assert tensors["model.0.4.residual_layer.weight"].shape == (512, 128, 1, 1)
    assert tensors["model.8.residual_layer.conv2d.weight"].shape == (128, 512, 1, 1)
    assert tensors["model.12.conv2d.weight"].shape == (3, 64, 7, 7)
    assert not [key for key in tensors if "running" in key]


@pytest.mark.parametrize("size", [(24, 28), (23, 30)])
def test_it_computes_what_the_source_does(size):
    network, pixels = tiny_msgnet(), content(2, *size)
    gram = network.style_gram(content(1, 32, 20, seed=5))
    expected = reference(network.state_dict(), pixels, gram, num_blocks=2)[..., : size[0], : size[1]]
    assert torch.allclose(network(pixels, gram), expected, atol=1e-4 * float(expected.abs().max()))


def test_a_style_is_the_gram_matrix_behind_the_encoder():
    network, style = tiny_msgnet(), content(1, 20, 20)
    gram = network.style_gram(style)
    assert gram.shape == (1, 8, 8)
    assert torch.equal(gram, gram_matrix(network.model[0](style)))


def test_comatch_by_hand():
    layer = CoMatch(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 2.0], [0.0, 1.0]]]))
    gram = torch.tensor([[[3.0, 1.0], [1.0, 2.0]]])  # W G = [[5, 5], [1, 2]], its transpose [[5, 1], [5, 2]]
    features = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    assert layer(features, gram).flatten().tolist() == [15.0, 25.0]


def test_each_image_of_a_batch_may_have_its_own_style():
    network, pixels = tiny_msgnet(), content(2)
    grams = torch.cat([network.style_gram(content(seed=seed)) for seed in (7, 8)])
    one_by_one = torch.cat([network(pixels[i : i + 1], grams[i : i + 1]) for i in range(2)])
    assert torch.allclose(network(pixels, grams), one_by_one, atol=1e-3 * float(one_by_one.abs().max()))
