from dataclasses import replace

import numpy as np
import pytest
import torch
from style_networks import (
    REAL_NETWORKS,
    VGG_LAYERS,
    every_layer,
    photograph,
    random_weights,
    real_spec,
    saved,
    spec_of,
    tiny_spec,
)
from torch import nn
from torchvision import models
from torchvision.models.vgg import make_layers
from torchvision.transforms.functional import normalize

from vtray.errors import ConfigError, WeightsError
from vtray.style.features import FeatureExtractor, depth_of
from vtray.style.networks import IMAGENET_MEAN, IMAGENET_STD, NETWORKS
from vtray.style.pixels import to_pixels

NARROW = {  # torchvision's tables of VGG-16 and VGG-19, with few channels
    "vgg16": [4, 4, "M", 5, 5, "M", 6, 6, 6, "M", 7, 7, 7, "M", 8, 8, 8, "M"],
    "vgg19": [4, 4, "M", 5, 5, "M", 6, 6, 6, 6, "M", 7, 7, 7, 7, "M", 8, 8, 8, 8, "M"],
}
ODD = (1, 3, 75, 61)  # two rows and columns are left behind every pooling of every network, some of them odd


def random_pixels(*shape, seed=0):
    return torch.rand(shape or ODD, generator=torch.Generator().manual_seed(seed))


def torchvision_features(name, **options):
    torch.manual_seed(0)
    if name in NARROW:
        return make_layers(NARROW[name], **options)
    return models.get_model(name, weights=None).features


def outputs_of(layers, pixels):
    """What each layer gives; copies, as torchvision's ReLU works in place."""
    found = []
    with torch.no_grad():
        for layer in layers:
            pixels = layer(pixels)
            found.append(pixels.clone())
    return found


def prefixed(layers, prefix="features."):
    return {f"{prefix}{name}": tensor for name, tensor in layers.state_dict().items()}


def normalised_vgg(widths):
    """The 'normalised' VGG-19 as published, to relu5_1 (number 43); widths: channels of its five blocks."""
    layers, before = [nn.Conv2d(3, 3, 1)], 3
    for block, convolutions in enumerate((2, 2, 4, 4, 1)):
        for _ in range(convolutions):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(before, widths[block], 3), nn.ReLU()]
            before = widths[block]
        if block < 4:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
    return nn.Sequential(*layers)


# equal to independent networks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["vgg16", "vgg19", "squeezenet1_0", "squeezenet1_1"])
def of_torchvision(request, tmp_path_factory):
    """A network of torchvision with random weights: its name, their file, and all outputs for random pixels."""
    layers = torchvision_features(request.param)
    weights = saved(prefixed(layers), tmp_path_factory.mktemp("weights") / "net.pth")
    return request.param, weights, outputs_of(layers, normalize(random_pixels(), IMAGENET_MEAN, IMAGENET_STD))


def test_every_layer_equals_torchvision_s(of_torchvision):
    name, weights, expected = of_torchvision
    found = every_layer(name, weights)(random_pixels())
    assert list(found) == [layer.name for layer in NETWORKS[name].layers]
    for layer, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(
            found[layer], wanted, rtol=1e-5, atol=1e-5, msg=lambda m, at=layer: f"{at}: {m}"
        )


def test_a_layer_alone_equals_torchvision_s(of_torchvision):
    """Where nobody needs what went in, the ReLU works in place."""
    name, weights, expected = of_torchvision
    whole = every_layer(name, weights)
    for layer, wanted in zip(NETWORKS[name].layers, expected, strict=True):
        alone = replace(whole, wanted=frozenset([layer.name]), layers=NETWORKS[name].up_to([layer.name]))
        found = alone(random_pixels())
        assert list(found) == [layer.name]
        torch.testing.assert_close(found[layer.name], wanted, rtol=1e-5, atol=1e-5)


def test_every_layer_of_the_normalised_vgg_equals_the_published_network(tmp_path):
    torch.manual_seed(0)
    layers = normalised_vgg([4, 5, 6, 7, 8])
    assert len(layers) == 44
    weights = saved(layers.state_dict(), tmp_path / "net.pth")
    names = [layer.name for layer in NETWORKS["vgg19_normalised"].up_to(["relu5_1"])]
    found = FeatureExtractor.load(spec_of("vgg19_normalised", weights, names))(random_pixels())
    computed = zip(layers, outputs_of(layers, random_pixels()), strict=True)
    expected = [output for layer, output in computed if not isinstance(layer, nn.ReflectionPad2d)]
    for name, wanted in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5)


# the real files --------------------------------------------------------------------------------------------------


@pytest.mark.fixtures
def test_the_real_normalised_vgg_equals_the_published_network(fixtures):
    layers = normalised_vgg([64, 128, 256, 512, 512])[:18]
    file = fixtures / REAL_NETWORKS["vgg19_normalised"][0]
    layers.load_state_dict(torch.load(file, weights_only=True), strict=True)
    pixels = to_pixels([photograph(fixtures / "content" / "chelsea.png", 75, 91)])
    expected = outputs_of(layers, pixels)
    found = FeatureExtractor.load(real_spec(fixtures))(pixels)
    for name, number in zip(VGG_LAYERS, (3, 10, 17), strict=True):
        torch.testing.assert_close(found[name], expected[number], rtol=1e-5, atol=1e-5)


@pytest.mark.fixtures
def test_the_real_squeezenet_equals_torchvision_s(fixtures):
    file, names = REAL_NETWORKS["squeezenet1_1"]
    with torch.device("meta"):
        network = models.squeezenet1_1(weights=None)
    network.load_state_dict(torch.load(fixtures / file, weights_only=True), strict=False, assign=True)
    pixels = to_pixels([photograph(fixtures / "content" / "chelsea.png", 75, 91)])
    expected = outputs_of(network.features[:8], normalize(pixels, IMAGENET_MEAN, IMAGENET_STD))
    found = FeatureExtractor.load(real_spec(fixtures, "squeezenet1_1"))(pixels)
    for name, number in zip(names, (1, 3, 4, 6, 7), strict=True):
        torch.testing.assert_close(found[name], expected[number], rtol=1e-5, atol=1e-5)


def decoder(block):
    """The published decoder of relu1_1, relu2_1 or relu3_1: an encoder backwards, no ReLU at the end."""
    widths = [64, 128, 256]
    layers = []
    for number in range(block, 0, -1):
        width, narrower = widths[number - 1], widths[max(number - 2, 0)]
        if number < block:  # the second convolution of a block that was passed on the way in
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.ReLU()]
        last = number == 1
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, 3 if last else narrower, 3)]
        layers += [] if last else [nn.ReLU(), nn.UpsamplingNearest2d(scale_factor=2)]
    return nn.Sequential(*layers)


@pytest.mark.fixtures
@pytest.mark.parametrize(("block", "expected"), [(1, 27), (2, 31), (3, 26)])
def test_what_is_encoded_decodes_to_the_photograph(fixtures, block, expected):
    """Peak signal-to-noise ratio in dB; the expected ones were measured with other code on the same photograph."""
    folder, name = fixtures / "style" / "vgg_normalised", f"relu{block}_1"
    back = decoder(block)
    state = torch.load(folder / f"feature_invertor_conv{block}_1.pth", weights_only=True)
    back.load_state_dict(state, strict=True)
    pixels = to_pixels([photograph(fixtures / "content" / "astronaut.png", 256, 256)])
    weights = str(folder / f"vgg_normalised_conv{block}_1.pth")
    features = FeatureExtractor.load(spec_of("vgg19_normalised", weights, (name,)))(pixels)[name]
    with torch.no_grad():
        error = (back(features).clamp(0, 1) - pixels).square().mean().item()
    assert -10 * np.log10(error) == pytest.approx(expected, abs=0.5)


# how it computes -------------------------------------------------------------------------------------------------


def test_gradients_reach_the_pixels_and_never_the_weights(tmp_path):
    extractor = FeatureExtractor.load(tiny_spec(tmp_path))
    pixels = random_pixels(1, 3, 16, 16).requires_grad_()
    extractor(pixels)["relu3_1"].sum().backward()
    assert pixels.grad.abs().max() > 0
    tensors = [tensor for layer in extractor.parameters.values() for tensor in layer]
    assert len(tensors) == 10
    assert all(not tensor.requires_grad and tensor.grad is None for tensor in tensors)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_pixels_stay_as_they_were(tmp_path, network):
    extractor = every_layer(network, saved(random_weights(network), tmp_path / "net.pth"))
    pixels = random_pixels()
    extractor(pixels)
    assert torch.equal(pixels, random_pixels())


def test_the_network_is_cut_behind_the_deepest_layer(tmp_path):
    weights = saved(random_weights("vgg19"), tmp_path / "net.pth")
    extractor = FeatureExtractor.load(spec_of("vgg19", weights, ("relu2_1", "relu1_1")))
    assert extractor.layers[-1].name == "relu2_1"
    assert set(extractor.parameters) == {layer.name for layer in extractor.layers}
    assert list(extractor(random_pixels(1, 3, 16, 16))) == ["relu1_1", "relu2_1"]


@pytest.mark.parametrize("network", ["vgg19_normalised", "squeezenet1_1"])
def test_layout_and_precision_change_the_features_little(tmp_path, network):
    extractor = every_layer(network, saved(random_weights(network, width=8), tmp_path / "net.pth"))
    expected = extractor(random_pixels())
    for precision, layout, tolerance in (("fp32", "nhwc", 1e-5), ("bf16", "nchw", 0.1), ("bf16", "nhwc", 0.1)):
        found = extractor.to("cpu", precision=precision, layout=layout)(random_pixels())
        for name, wanted in expected.items():
            assert found[name].dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
            assert (found[name].float() - wanted).norm() < tolerance * wanted.norm(), name


@pytest.mark.fixtures
@pytest.mark.parametrize("network", REAL_NETWORKS)
def test_bf16_features_of_a_photograph_are_within_two_percent(fixtures, network):
    pixels = to_pixels([photograph(fixtures / "content" / "chelsea.png", 96, 128)])
    extractor = FeatureExtractor.load(real_spec(fixtures, network))
    rough = extractor.to("cpu", precision="bf16", layout="nhwc")(pixels)
    for name, wanted in extractor(pixels).items():
        assert rough[name].is_contiguous(memory_format=torch.channels_last)
        assert (rough[name].float() - wanted).norm() < 0.02 * wanted.norm(), name


def test_to_keeps_what_is_not_named(tmp_path):
    extractor = FeatureExtractor.load(tiny_spec(tmp_path, precision="bf16", layout="nhwc"))
    moved = extractor.to("cpu")
    assert (moved.precision, moved.layout, moved.device) == ("bf16", "nhwc", torch.device("cpu"))
    assert moved.parameters["conv1_1"][0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("network", "layer", "least"),
    [
        ("vgg19", "relu1_1", 8),
        ("vgg19", "relu3_1", 8),  # two poolings: 2 -> 4 -> 8
        ("vgg16", "relu5_3", 32),
        ("vgg19_normalised", "relu5_1", 32),
        ("squeezenet1_1", "fire5", 23),  # pooling 3 / 2 twice and the first convolution: 2 -> 5 -> 11 -> 23
        ("squeezenet1_0", "fire5", 27),  # the first convolution is 7 px wide
    ],
)
def test_shortest_side_by_hand(tmp_path, network, layer, least):
    weights = saved(random_weights(network), tmp_path / "net.pth")
    assert FeatureExtractor.load(spec_of(network, weights, (layer,))).min_side_px == least


@pytest.mark.parametrize("network", NETWORKS)
def test_two_rows_and_columns_are_left_of_the_shortest_sides(tmp_path, network):
    weights = saved(random_weights(network), tmp_path / "net.pth")
    names = [layer.name for layer in NETWORKS[network].layers if layer.kind in ("relu", "fire")]
    whole = every_layer(network, weights)
    for name in names:
        extractor = replace(whole, wanted=frozenset([name]), layers=NETWORKS[network].up_to([name]))
        least = extractor.min_side_px
        for height, width in ((least, least), (least, least + 1), (least + 3, least)):
            assert min(extractor(torch.zeros(1, 3, height, width))[name].shape[2:]) >= 2, name


# files -----------------------------------------------------------------------------------------------------------


def test_features_alone_need_no_prefix_and_a_classifier_is_left_out(tmp_path):
    tensors = random_weights("vgg16")
    bare = {name.removeprefix("features."): tensor for name, tensor in tensors.items()}
    whole = tensors | {"classifier.0.weight": torch.ones(4, 9), "classifier.0.bias": torch.ones(4)}
    expected = every_layer("vgg16", saved(tensors, tmp_path / "net.pth"))(random_pixels())
    for number, state in enumerate((bare, whole, {f"module.{name}": tensor for name, tensor in whole.items()})):
        found = every_layer("vgg16", saved(state, tmp_path / f"{number}.pth"))(random_pixels())
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_cut_network_serves_layers_as_far_as_it_goes(tmp_path):
    weights = saved(random_weights("vgg19", until="conv3_1"), tmp_path / "cut.pth")
    FeatureExtractor.load(spec_of("vgg19", weights, ("relu1_1", "relu3_1")))
    with pytest.raises(ConfigError, match=r"layer 'relu4_2' is deeper than the weights in .*cut\.pth") as caught:
        FeatureExtractor.load(spec_of("vgg19", weights, ("relu1_1", "relu4_2")))
    assert "which end at relu3_1; choose from conv1_1, relu1_1" in str(caught.value)


def test_how_deep_weights_reach():
    network = NETWORKS["vgg19"]
    names = [layer.name for layer in network.layers]
    assert depth_of(network, random_weights("vgg19")) == len(names)
    assert names[depth_of(network, random_weights("vgg19", until="conv2_1")) - 1] == "relu2_1"
    assert depth_of(network, {"fc.weight": torch.ones(2, 2)}) == 0


@pytest.mark.parametrize("key", ["content_layers", "style_layers"])
def test_an_unknown_layer_is_named_with_its_key(tmp_path, key):
    spec = replace(tiny_spec(tmp_path), **{key: ("relu1_1", "relu3-1")})
    with pytest.raises(
        ConfigError, match=rf"^features\.{key}: vgg19 has no layer 'relu3-1' \(did you mean relu3_1"
    ):
        FeatureExtractor.load(spec)


def test_a_file_cut_short_and_another_hash_are_refused(tmp_path):
    spec = tiny_spec(tmp_path)
    with pytest.raises(WeightsError, match="expected " + "0" * 64):
        FeatureExtractor.load(replace(spec, weights_sha256="0" * 64))
    content = (tmp_path / "vgg19.pth").read_bytes()
    (tmp_path / "vgg19.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cut short or damaged"):
        FeatureExtractor.load(spec)


def vgg_with(key, tensor):
    return random_weights("vgg19", until="relu3_1") | {key: tensor}


OTHER_NETWORKS = {
    "batch norm": (
        lambda: prefixed(torchvision_features("vgg19", batch_norm=True)),
        r"features\.1\.weight is a batch normalization: .* \(vgg19_bn\) do not fit; use those of vgg19 itself",
    ),
    "SqueezeNet": (
        lambda: random_weights("squeezenet1_1"),
        r"no weights of vgg19: features\.10\.expand1x1\.bias is none of its keys; choose another features.network",
    ),
    "VGG-16": (lambda: random_weights("vgg16"), r"no weights of vgg19: features\.17\.bias is none of its keys"),
    "normalised VGG": (
        lambda: random_weights("vgg19_normalised"),
        r"no weights of vgg19: features\.0\.weight \(3, 3, 1, 1\) with bias \(3,\), expected \(N, 3, 3, 3\)",
    ),
    "AlexNet": (
        lambda: {"features.0.weight": torch.ones(8, 3, 11, 11), "features.0.bias": torch.ones(8)},
        r"features\.0\.weight \(8, 3, 11, 11\) .*expected \(N, 3, 3, 3\) and \(N,\); choose another",
    ),
    "ResNet": (
        lambda: {"conv1.weight": torch.ones(8, 3, 7, 7), "fc.weight": torch.ones(9, 8)},
        r"features\.0\.weight is missing, there are features\.conv1\.weight, features\.fc\.weight; choose another",
    ),
    "greyscale": (lambda: vgg_with("features.0.weight", torch.ones(4, 1, 3, 3)), r"\(4, 1, 3, 3\)"),
    "a broken chain": (
        lambda: vgg_with("features.5.weight", torch.ones(4, 9, 3, 3)),
        r"features\.5\.weight \(4, 9, 3, 3\) with bias \(4,\), expected \(N, 4, 3, 3\)",
    ),
    "biases of another width": (
        lambda: vgg_with("features.2.bias", torch.ones(5)),
        r"features\.2\.weight \(4, 4, 3, 3\) with bias \(5,\)",
    ),
    "no biases": (
        lambda: {"features.0.weight": torch.ones(4, 3, 3, 3)},
        r"features\.0\.bias is missing, there are features\.0\.weight",
    ),
}


@pytest.mark.parametrize(("tensors", "match"), OTHER_NETWORKS.values(), ids=OTHER_NETWORKS)
def test_weights_of_another_network_are_refused_by_name(tmp_path, tensors, match):
    weights = saved(tensors(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=match) as caught:
        FeatureExtractor.load(spec_of("vgg19", weights, ("relu1_1",)))
    assert str(caught.value).startswith(f"{weights}: ")
    assert "\n" not in str(caught.value)


def test_the_other_squeezenet_is_refused(tmp_path):
    """Both have the keys of conv1, fire2 and fire3; the first convolutions differ."""
    weights = saved(random_weights("squeezenet1_0"), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"no weights of squeezenet1_1: features\.0\.weight \(4, 3, 7, 7\)"):
        FeatureExtractor.load(spec_of("squeezenet1_1", weights, ("fire2",)))
    broken = random_weights("squeezenet1_1") | {"features.3.expand3x3.weight": torch.ones(4, 3, 3, 3)}
    with pytest.raises(WeightsError, match=r"features\.3\.expand3x3\.weight .*expected \(N, 2, 3, 3\)"):
        FeatureExtractor.load(spec_of("squeezenet1_1", saved(broken, tmp_path / "net.pth"), ("fire2",)))
