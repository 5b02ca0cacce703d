"""Weights into classifiers: load_weights_into, on real files and on files as older versions wrote them."""

import re

import pytest
import torch
from torch import nn
from torchvision import models

from vtray.classify.backbone import Classifier, build_classifier, load_weights_into, num_classes_in
from vtray.classify.loading import fitting_backbones
from vtray.classify.networks import ShapesOnly, build_network
from vtray.errors import WeightsError
from vtray.weights import load_weights


def state_of(classifier):
    return {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}


def shapes_of(backbone, num_classes=7):
    with ShapesOnly():
        return build_network(backbone, num_classes=num_classes).state_dict()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Two threads wait for each other longer than such small layers take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mobilenet(fixtures):
    return load_weights(str(fixtures / "weights" / "mobilenet_v2_imagenet.pth")).tensors


@pytest.mark.fixtures
@pytest.mark.parametrize(("backbone", "num_tensors"), [("mobilenet_v2", 314), ("squeezenet1_0", 52)])
def test_real_weights_are_loaded_bit_by_bit(fixtures, backbone, num_tensors):
    tensors = load_weights(str(fixtures / "weights" / f"{backbone}_imagenet.pth")).tensors
    classifier = build_classifier(backbone, num_classes=1000)
    load_weights_into(classifier, tensors, uri="file", head=True)
    assert num_classes_in(tensors, classifier) == 1000
    state = classifier.network.state_dict()
    assert len(state) == num_tensors
    assert all(torch.equal(state[name], tensors[name]) for name in state)


@pytest.mark.fixtures
def test_a_file_without_head_fills_the_backbone_only(fixtures):
    uri = str(fixtures / "weights" / "squeezenet1_1_features.pth")
    tensors = load_weights(uri).tensors
    classifier = build_classifier("squeezenet1_1", num_classes=5)
    head = classifier.head.weight.detach().clone()
    load_weights_into(classifier, tensors, uri=uri, head=False)
    assert num_classes_in(tensors, classifier) is None
    assert torch.equal(classifier.head.weight, head)
    assert torch.equal(classifier.network.features[12].expand3x3.bias, tensors["features.12.expand3x3.bias"])
    with pytest.raises(WeightsError, match=r"has no head \(classifier\.1\.weight is missing\), needed .* for 5;"):
        load_weights_into(classifier, tensors, uri=uri, head=True)


@pytest.mark.fixtures
def test_a_head_for_other_classes_is_refused_or_left_out(mobilenet):
    classifier = build_classifier("mobilenet_v2", num_classes=10)
    before = state_of(classifier)
    with pytest.raises(WeightsError, match="has a head for 1000 classes, needed is one for 10; take"):
        load_weights_into(classifier, mobilenet, uri="file", head=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(classifier).items())
    load_weights_into(classifier, mobilenet, uri="file", head=False)
    after = state_of(classifier)
    assert torch.equal(after["features.18.0.weight"], mobilenet["features.18.0.weight"])
    assert torch.equal(after["classifier.1.weight"], before["classifier.1.weight"])


@pytest.mark.fixtures
def test_weights_of_another_network_are_named(mobilenet):
    classifier = build_classifier("squeezenet1_1", num_classes=1000)
    before = state_of(classifier)
    message = (
        r"file: no weights of squeezenet1_1: 50 missing: features\.0\.weight, .*, \.\.\.; "
        r"312 unexpected: features\.0\.0\.weight, .*; they fit mobilenet_v2$"
    )
    with pytest.raises(WeightsError, match=message):
        load_weights_into(classifier, mobilenet, uri="file", head=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(classifier).items())


def test_other_shapes_are_named_with_both():
    classifier = build_classifier("squeezenet1_1", num_classes=3)
    tensors = state_of(classifier)
    tensors["features.3.squeeze.bias"] = torch.zeros(17)
    with pytest.raises(WeightsError) as caught:
        load_weights_into(classifier, tensors, uri="file", head=True)
    assert str(caught.value) == (
        "file: no weights of squeezenet1_1: 1 of another shape: features.3.squeeze.bias (17,), expected (16,); "
        "choose the backbone that they were trained for"
    )


def test_a_head_without_its_bias_is_refused():
    classifier = build_classifier("squeezenet1_1", num_classes=3)
    tensors = state_of(classifier)
    del tensors["classifier.1.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: classifier\.1\.bias"):
        load_weights_into(classifier, tensors, uri="file", head=True)


@pytest.mark.parametrize(("backbone", "num_left_out"), [("vgg13_bn", 0), ("vit_b_16", 2), ("regnet_x_800mf", 2)])
def test_weights_are_known_by_their_shapes(backbone, num_left_out):
    tensors = list(shapes_of(backbone).items())  # the last two are the head
    assert fitting_backbones(dict(tensors[: len(tensors) - num_left_out])) == [backbone]


def test_files_that_do_not_count_batches():
    classifier = build_classifier("resnet18", num_classes=2)
    tensors = {name: each for name, each in state_of(classifier).items() if "num_batches" not in name}
    nn.init.constant_(tensors["layer4.1.bn2.running_mean"], 0.75)
    classifier.network.bn1.num_batches_tracked.fill_(9)
    load_weights_into(classifier, tensors, uri="file", head=True)
    assert classifier.network.bn1.num_batches_tracked == 0
    assert (classifier.network.layer4[1].bn2.running_mean == 0.75).all()


def test_half_precision_files_are_loaded_as_fp32():
    classifier = build_classifier("squeezenet1_1", num_classes=2)
    halves = {name: tensor.half() for name, tensor in state_of(classifier).items()}
    load_weights_into(classifier, halves, uri="file", head=True)
    assert classifier.head.weight.dtype == torch.float32
    assert torch.equal(classifier.head.weight, halves["classifier.1.weight"].float())


def test_names_of_densenet_files():
    """torchvision's published files have norm.1 where its network has norm1."""
    network = models.DenseNet(4, (2, 2, 2, 2), 8, num_classes=2)
    classifier = Classifier(network, backbone="densenet121")
    tensors = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): torch.full_like(tensor, 3)
        for name, tensor in network.state_dict().items()
        if "num_batches" not in name
    }
    assert "features.denseblock1.denselayer2.norm.1.weight" in tensors
    load_weights_into(classifier, tensors, uri="file", head=True)
    assert (network.features.denseblock1.denselayer2.norm1.weight == 3).all()
    assert (network.features.denseblock4.denselayer1.conv2.weight == 3).all()


def vit(image_size):
    return models.VisionTransformer(image_size, 8, 2, 2, 16, 32, num_classes=2)


def test_names_of_vit_files():
    classifier = Classifier(vit(32), backbone="vit_b_32")
    tensors = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): torch.full_like(tensor, 3)
        for name, tensor in state_of(classifier).items()
    }
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in tensors
    load_weights_into(classifier, tensors, uri="file", head=True)
    assert all((tensor == 3).all() for tensor in state_of(classifier).values())


def test_a_vit_takes_the_image_size_of_its_weights():
    larger, classifier = vit(48).eval(), Classifier(vit(32), backbone="vit_b_32").eval()
    nn.init.normal_(larger.heads.head.weight)
    load_weights_into(classifier, larger.state_dict(), uri="file", head=True)
    pixels = torch.randn(1, 3, 48, 48)
    assert torch.equal(classifier(pixels), larger(pixels))
    assert classifier.prefix(pixels, 1).shape == (1, 1 + 36, 16)


def test_positions_of_no_square_are_refused():
    classifier = Classifier(vit(32), backbone="vit_b_32")
    tensors = state_of(classifier) | {"encoder.pos_embedding": torch.zeros(1, 30, 16)}
    with pytest.raises(WeightsError, match=r"pos_embedding \(1, 30, 16\), expected \(1, 17, 16\)"):
        load_weights_into(classifier, tensors, uri="file", head=True)


def test_auxiliary_heads_are_left_out():
    network = models.googlenet(weights=None, num_classes=2, aux_logits=True, init_weights=False)
    assert any(name.startswith("aux1.") for name in network.state_dict())
    classifier = build_classifier("googlenet", num_classes=2)
    load_weights_into(classifier, network.state_dict(), uri="file", head=True)
    assert torch.equal(classifier.head.weight, network.fc.weight)
