import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.squeezenet import Fire

from vtray.errors import ConfigError
from vtray.style.networks import IMAGENET_MEAN, IMAGENET_STD, NETWORKS, network_named

ROOT = Path(__file__).resolve().parents[3]
KINDS = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool", Fire: "fire"}
OF_TORCHVISION = ("vgg16", "vgg19", "squeezenet1_0", "squeezenet1_1")


def index_of(network, name):
    return next(layer.index for layer in NETWORKS[network].layers if layer.name == name)


def torchvision_features(name):
    with torch.device("meta"):  # the layers without numbers
        return models.get_model(name, weights=None).features


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_layers_are_those_of_torchvision_one_by_one(name):
    features, network = torchvision_features(name), NETWORKS[name]
    assert [layer.index for layer in network.layers] == list(range(len(features)))
    for layer, module in zip(network.layers, features, strict=True):
        assert KINDS[type(module)] == layer.kind
        if layer.kind == "conv":
            assert module.kernel_size == (layer.kernel, layer.kernel)
            assert module.stride == (layer.stride, layer.stride)
            assert module.padding == ((layer.kernel // 2,) * 2 if layer.stride == 1 else (0, 0))
        if layer.kind == "pool":
            assert (module.kernel_size, module.stride, module.ceil_mode) == (
                layer.kernel,
                layer.stride,
                network.ceil,
            )


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_preprocessing_is_that_of_torchvision_s_weights(name):
    preprocessing = models.get_model_weights(name).DEFAULT.transforms()
    assert NETWORKS[name].mean == tuple(preprocessing.mean)
    assert NETWORKS[name].std == tuple(preprocessing.std)


@pytest.mark.parametrize(
    ("network", "numbers"),
    [
        ("vgg19", {"relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8, "relu3_1": 11, "relu4_1": 20}),
        ("vgg19", {"conv4_2": 21, "relu4_2": 22, "relu5_1": 29, "relu5_4": 35, "pool5": 36}),
        ("vgg16", {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}),
        ("vgg19_normalised", {"conv0": 0, "conv1_1": 2, "relu1_1": 3, "conv1_2": 5, "pool1": 7, "relu2_1": 10}),
        (
            "vgg19_normalised",
            {"conv2_2": 12, "pool2": 14, "relu3_1": 17, "conv3_4": 25, "pool3": 27, "relu4_1": 30},
        ),
        ("vgg19_normalised", {"pool4": 40, "conv5_1": 42, "relu5_1": 43}),
        ("squeezenet1_0", {"conv1": 0, "fire2": 3, "fire4": 5, "pool4": 6, "fire5": 7, "pool8": 11, "fire9": 12}),
        ("squeezenet1_1", {"conv1": 0, "fire3": 4, "pool3": 5, "fire4": 6, "pool5": 8, "fire6": 9, "fire9": 12}),
    ],
)
def test_names_stand_for_the_published_numbers(network, numbers):
    assert {name: index_of(network, name) for name in numbers} == numbers


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_names_are_unique_and_the_default_layers_are_activations(network):
    kinds = {layer.name: layer.kind for layer in network.layers}
    assert len(kinds) == len(network.layers)
    assert {kinds[name] for name in (*network.content_layers, *network.style_layers)} <= {"relu", "fire"}


def test_the_normalised_vgg_takes_rgb_as_it_is():
    assert NETWORKS["vgg19_normalised"].mean is None
    assert (NETWORKS["vgg19"].mean, NETWORKS["vgg19"].std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_up_to_ends_with_the_deepest_layer_in_any_order():
    layers = NETWORKS["vgg19"].up_to(["relu2_1", "relu1_1"])
    names = ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1"]
    assert [layer.name for layer in layers] == names


def test_within_keeps_what_can_be_reached_or_the_deepest_activation():
    network = NETWORKS["vgg19"]
    assert network.within(("relu1_1", "relu2_1", "relu4_1"), 8) == ("relu1_1", "relu2_1")
    assert network.within(("relu4_2",), 8) == ("relu2_1",)  # number 8 is the convolution behind it
    assert network.within(("relu4_2",), 1) == ()


def test_an_unknown_network_is_refused_with_the_list_and_the_nearest():
    with pytest.raises(
        ConfigError, match=r"'vgg_19' is not known \(did you mean vgg19\?\); allowed: vgg16, vgg19"
    ):
        network_named("vgg_19")
    with pytest.raises(ConfigError, match=r"'resnet' is not known; allowed: .*squeezenet1_1$"):
        network_named("resnet")


def test_an_unknown_layer_is_refused_with_the_list_and_the_nearest():
    network = network_named("vgg19")
    network.require_layers("features.style_layers", ["conv1_1", "pool5"])
    with pytest.raises(ConfigError, match=r"^features\.style_layers: vgg19 has no layer 'relu42'") as caught:
        network.require_layers("features.style_layers", ["relu1_1", "relu42"])
    assert "did you mean relu4_2?" in str(caught.value)
    assert "it has conv1_1, relu1_1" in str(caught.value)


def test_tables_and_the_work_are_read_without_torch():
    code = "import vtray.style.networks, vtray.style.work, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "False"
