"""AdaIN on the real normalised VGG-19 against a plain implementation on the same weights, and what is refused."""

import pytest
import torch
from style_networks import photograph, random_weights
from torch.nn import functional

from vtray.errors import WeightsError
from vtray.style.fast.adain import build_adain
from vtray.style.fast.moments import Moments
from vtray.style.pixels import to_pixels
from vtray.weights import Weights, load_weights

CONVOLUTIONS, POOLED = (2, 5, 9, 12, 16), (5, 12)  # of the encoder to relu3_1; those in front of a pooling


@pytest.fixture(scope="module")
def files(fixtures):
    folder = fixtures / "style/vgg_normalised"
    return {
        name: load_weights(str(folder / f"{name}.pth"))
        for depth in (1, 2, 3)
        for name in (f"vgg_normalised_conv{depth}_1", f"feature_invertor_conv{depth}_1")
    }


@pytest.fixture(scope="module")
def network(files):
    return build_adain(files["vgg_normalised_conv3_1"], files["feature_invertor_conv3_1"])


@pytest.fixture(scope="module")
def pictures(fixtures):
    """Content of an odd size, and a style."""
    content = photograph(fixtures / "content/astronaut.png", 93, 122)
    style = photograph(fixtures / "style_images/starry_night.jpg", 96, 128)
    return to_pixels([content]), to_pixels([style])


def plain_encode(tensors, pixels):
    features = functional.conv2d(pixels, tensors["0.weight"], tensors["0.bias"])
    for number in CONVOLUTIONS:
        features = functional.pad(features, (1, 1, 1, 1), mode="reflect")
        features = torch.relu(functional.conv2d(features, tensors[f"{number}.weight"], tensors[f"{number}.bias"]))
        if number in POOLED:
            features = functional.max_pool2d(features, 2, ceil_mode=True)
    return features


def plain_decode(tensors, features):
    for number in (1, 5, 8, 12, 15):
        features = functional.pad(features, (1, 1, 1, 1), mode="reflect")
        features = functional.conv2d(features, tensors[f"{number}.weight"], tensors[f"{number}.bias"])
        if number != 15:
            features = torch.relu(features)
        if number in (1, 8):
            features = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return features


def plain_adain(content, style):
    flat, other = content.flatten(2), style.flatten(2)
    normal = (flat - flat.mean(2, keepdim=True)) / (flat.var(2, keepdim=True) + 1e-5).sqrt()
    moved = normal * (other.var(2, keepdim=True) + 1e-5).sqrt() + other.mean(2, keepdim=True)
    return moved.view_as(content)


@torch.inference_mode()
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_it_equals_a_plain_implementation(files, network, pictures, strength):
    content, style = pictures
    encoder, decoder = (files[name].tensors for name in ("vgg_normalised_conv3_1", "feature_invertor_conv3_1"))
    features = plain_encode(encoder, content)
    moved = strength * plain_adain(features, plain_encode(encoder, style)) + (1 - strength) * features
    expected = plain_decode(decoder, moved)[..., :93, :122]
    made = network(content, network.encode_style(style), strength)
    assert made.shape == content.shape
    assert (made - expected).abs().max() < 1e-3
    assert (made - content).abs().mean() > 0.01


@torch.inference_mode()
def test_an_encoded_style_is_as_good_as_one_encoded_each_time(network, pictures):
    content, style = pictures
    kept = network.encode_style(style)
    first, second = network(content, kept), network(content, kept)
    assert torch.equal(first, second)
    assert torch.equal(first, network(content, network.encode_style(style.clone())))


@torch.inference_mode()
@pytest.mark.parametrize(("depth", "decibels"), [(1, 26), (2, 30), (3, 26)])
def test_strength_0_gives_the_content_back_as_far_as_the_decoder_can(fixtures, files, pictures, depth, decibels):
    content, style = to_pixels([photograph(fixtures / "content/astronaut.png", 256, 256)]), pictures[1]
    network = build_adain(files[f"vgg_normalised_conv{depth}_1"], files[f"feature_invertor_conv{depth}_1"])
    made = network(content, network.encode_style(style), 0.0)
    assert torch.equal(made, network.decoder(network.encoder(content)))
    error = (made.clamp(0, 1) - content).square().mean()
    assert -10 * torch.log10(error) > decibels


@torch.inference_mode()
def test_a_blend_lies_between_its_styles(network, pictures):
    content, style = pictures
    both = [network.encode_style(style), network.encode_style(style.flip(1))]
    alone = network(content, Moments.blend(both, (1.0, 0.0)))
    assert torch.equal(alone, network(content, both[0]))
    steps = [network(content, Moments.blend(both, (1 - share, share))) for share in (0.0, 0.3, 0.7, 1.0)]
    distances = [float((step - steps[0]).square().mean()) for step in steps]
    assert distances == sorted(distances)
    assert distances[0] < distances[1]


def test_the_decoder_says_where_the_encoder_is_cut(files):
    deeper = build_adain(files["vgg_normalised_conv3_1"], files["feature_invertor_conv2_1"])
    assert (deeper.end, deeper.min_side_px) == ("relu2_1", 8)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (
            "vgg_normalised_conv2_1",
            "feature_invertor_conv3_1",
            "has vgg19_normalised to relu2_1, the decoder begins",
        ),
        ("vgg_normalised_conv3_1", "vgg_normalised_conv3_1", "no decoder of vgg19_normalised"),
        ("feature_invertor_conv3_1", "feature_invertor_conv3_1", "has vgg19_normalised to nothing"),
    ],
)
def test_files_that_do_not_fit_are_refused(files, encoder, decoder, message):
    with pytest.raises(WeightsError, match=message):
        build_adain(files[encoder], files[decoder])


def test_a_decoder_of_other_widths_is_refused(files):
    narrow = Weights(random_weights("vgg19_normalised", width=4, until="relu3_1"), "", "narrow.pth")
    decoder = dict(files["feature_invertor_conv3_1"].tensors)
    decoder["5.weight"] = decoder["5.weight"][:, :64]
    with pytest.raises(WeightsError, match="takes 64 channels and gets 128"):
        build_adain(narrow, Weights(decoder, "", "cut.pth"))
