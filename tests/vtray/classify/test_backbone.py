import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.maxvit import MaxVit
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from vtray.classify.backbone import Classifier, build_classifier
from vtray.classify.networks import ShapesOnly, backbone_names, build_network
from vtray.classify.stages import FAMILIES
from vtray.errors import ConfigError

SIDES_PX = {  # one model of each family, and images that are as small as its architecture allows
    "alexnet": 63,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 32,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 32,
    "vit_b_32": 32,
}


def _narrow(backbone):
    """AlexNet and VGG without the tens of millions of parameters of their hidden layers."""
    with ShapesOnly():
        network = build_network(backbone, num_classes=7)
    first, second, last = (n for n, layer in enumerate(network.classifier) if isinstance(layer, nn.Linear))
    network.classifier[first] = nn.Linear(network.classifier[first].in_features, 8)
    network.classifier[second], network.classifier[last] = nn.Linear(8, 8), nn.Linear(8, 7)
    for layer in network.features.to_empty(device="cpu"):
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return network


def _densenet():
    return models.DenseNet(4, (2, 2, 2, 2), 8, num_classes=7)


def _convnext():
    blocks = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.2, num_classes=7)


def _maxvit():
    sizes = {
        "stem_channels": 8,
        "partition_size": 2,
        "block_channels": [8, 16],
        "block_layers": [1, 2],
        "head_dim": 4,
    }
    return MaxVit((32, 32), stochastic_depth_prob=0.2, num_classes=7, **sizes)


def _swin(**parts):
    sizes = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": [4, 4]}
    return models.SwinTransformer(stochastic_depth_prob=0.2, num_classes=7, **sizes, **parts)


def _vit():
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    return models.VisionTransformer(dropout=0.1, num_classes=7, **sizes)


SMALLER = {  # the same classes, for speed
    "alexnet": lambda: _narrow("alexnet"),
    "convnext_tiny": _convnext,
    "densenet121": _densenet,
    "maxvit_t": _maxvit,
    "swin_t": _swin,
    "swin_v2_t": lambda: _swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
    "vgg11_bn": lambda: _narrow("vgg11_bn"),
    "vit_b_32": _vit,
}


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Two threads wait for each other longer than such small layers take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_classifier(backbone):
    if backbone in SMALLER:
        return Classifier(SMALLER[backbone](), backbone=backbone)
    return build_classifier(backbone, num_classes=7)


def pixels_for(backbone, batch=2):
    return torch.randn(batch, 3, SIDES_PX[backbone], SIDES_PX[backbone])


def shapes_of(backbone):
    with ShapesOnly():
        network = build_network(backbone, num_classes=7)
    return Classifier(network, backbone=backbone)


def check_stages(classifier, pixels, expected):
    """Each prefix and the rest together make the same logits, and the rest leaves the prefix as it was."""
    for stop in range(1, classifier.last_boundary + 1):
        activations = classifier.prefix(pixels, stop)
        before = activations.clone()
        assert torch.equal(classifier(activations, start=stop), expected), stop
        assert torch.equal(activations, before), stop


def check_features(classifier, pixels):
    seen = []
    hook = classifier.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    classifier.network(pixels)
    hook.remove()
    features = classifier.features(pixels)
    assert torch.equal(features, seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0])
    assert torch.equal(classifier.features(classifier.prefix(pixels, 2), start=2), features)
    assert features.shape == (len(pixels), classifier.num_features)


@pytest.mark.parametrize("backbone", SIDES_PX)
def test_stages_make_what_the_network_makes(backbone):
    classifier, pixels = small_classifier(backbone).eval(), pixels_for(backbone)
    with torch.no_grad():
        expected = classifier.network(pixels)
        assert expected.shape == (2, 7)
        assert torch.equal(classifier(pixels), expected)
        check_stages(classifier, pixels, expected)
        check_features(classifier, pixels)


@pytest.mark.parametrize("backbone", SIDES_PX)
def test_training_makes_what_the_network_makes(backbone):
    """The same dropouts in the same order, and none in what was handed in."""
    classifier, pixels = small_classifier(backbone).train(), pixels_for(backbone)
    torch.manual_seed(1)
    expected = classifier.network(pixels)
    torch.manual_seed(1)
    assert torch.equal(classifier(pixels), expected)
    activations = classifier.prefix(pixels, classifier.last_boundary).detach()
    before = activations.clone()
    classifier(activations, start=classifier.last_boundary)
    assert torch.equal(activations, before)


def test_each_parameter_and_buffer_is_in_one_stage_or_the_head():
    counts, families = {}, set()
    for backbone in backbone_names():
        classifier = shapes_of(backbone)
        indexes = range(len(classifier.stage_names))
        parameters = [name for index in indexes for name, _ in classifier.stage_parameters(index)]
        parameters += [name for name, _ in classifier.head_parameters()]
        buffers = [name for index in indexes for name, _ in classifier.stage_buffers(index)]
        assert sorted(parameters) == sorted(name for name, _ in classifier.network.named_parameters()), backbone
        assert sorted(buffers) == sorted(name for name, _ in classifier.network.named_buffers()), backbone
        assert all(classifier.stage_parameters(index) for index in indexes), backbone
        assert len(set(classifier.stage_names)) == len(indexes), backbone
        assert classifier.num_classes == 7
        counts[backbone] = len(indexes)
        families |= {type(classifier.network)} if backbone in SIDES_PX else set()
    assert len(counts) >= 80
    assert families == set(FAMILIES)
    assert min(counts.values()) == 5
    assert max(counts.values()) == counts["vit_h_14"] == 33


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        ("resnet50", "stem layer1 layer2 layer3 layer4"),
        ("densenet121", "features.conv0 " + " ".join(f"features.denseblock{n}" for n in (1, 2, 3, 4))),
        ("vgg11", "features.0 features.3 features.6 features.8 features.11 features.13 features.16 features.18 "
                  "classifier.0 classifier.3"),
        ("alexnet", "features.0 features.3 features.6 features.8 features.10 classifier.1 classifier.4"),
        ("mobilenet_v2", " ".join(f"features.{n}" for n in range(19))),
        ("mobilenet_v3_small", " ".join((*(f"features.{n}" for n in range(13)), "classifier.0"))),
        ("regnet_x_400mf", "stem trunk_output.block1 trunk_output.block2 trunk_output.block3 trunk_output.block4"),
        ("shufflenet_v2_x1_0", "conv1 stage2 stage3 stage4 conv5"),
        ("swin_t", " ".join(f"features.{n}" for n in range(8))),
        ("maxvit_t", "stem blocks.0 blocks.1 blocks.2 blocks.3 classifier.2 classifier.3"),
    ],
)  # fmt: skip
def test_stage_names(backbone, names):
    assert " ".join(shapes_of(backbone).stage_names) == names


def test_tokens_of_a_vit_are_placed_and_led_by_the_class_token():
    classifier = small_classifier("vit_b_32").eval()
    network, pixels = classifier.network, pixels_for("vit_b_32")
    with torch.no_grad():
        network.class_token.normal_()
        tokens = classifier.prefix(pixels, 1)
        patches = network.conv_proj(pixels).flatten(2).transpose(1, 2)
    positions = network.encoder.pos_embedding
    assert tokens.shape == (2, 1 + 16, 16)
    assert torch.equal(tokens[:, 0], (network.class_token + positions[:, :1])[:, 0].expand(2, -1))
    assert torch.equal(tokens[:, 1:], patches + positions[:, 1:])


def test_swin_ends_with_channels_first():
    classifier = small_classifier("swin_t").eval()
    assert classifier.prefix(torch.zeros(1, 3, 64, 96), len(classifier.stage_names)).shape == (1, 16, 8, 12)


def test_inception_takes_pixels_normalised_like_all_others():
    """A pixel of value v (0 to 1) has to reach the first convolution as (v - 0.5) / 0.5."""
    classifier = build_classifier("googlenet", num_classes=2).eval()
    seen = []
    classifier.network.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    levels = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    classifier((levels - mean) / std)
    assert torch.allclose(seen[0], (levels - 0.5) / 0.5, atol=1e-6)


def test_boundaries_outside_are_refused_with_the_stages():
    classifier, pixels = build_classifier("squeezenet1_1", num_classes=2), torch.zeros(1, 3, 32, 32)
    assert classifier.last_boundary == 9  # a convolution before the pooling: nothing to pool in front of it
    with pytest.raises(ValueError, match=r"stop 0 .*squeezenet1_1; choose 1 to 9"):
        classifier.prefix(pixels, 0)
    with pytest.raises(ValueError, match=r"0 to 9 \(features.0, features.3"):
        classifier.prefix(pixels, 10)
    with pytest.raises(ValueError, match="stages -1 to"):
        classifier(pixels, start=-1)


def test_frozen_stages_stay_in_eval_mode_and_keep_their_statistics():
    classifier = build_classifier("mobilenet_v2", num_classes=3)
    classifier.frozen = frozenset({0, 1, 2})
    classifier.train()
    before = [buffer.clone() for index in range(19) for _, buffer in classifier.stage_buffers(index)]
    num_frozen = sum(len(classifier.stage_buffers(index)) for index in range(3))
    classifier(torch.randn(2, 3, 32, 32))
    after = [buffer for index in range(19) for _, buffer in classifier.stage_buffers(index)]
    same = [torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert num_frozen == 3 * (1 + 2 + 3)  # 1, 2 and 3 norms of 3 buffers
    assert all(same[:num_frozen])
    assert not any(same[num_frozen:])
    assert not classifier.eval().training


def test_dropout_before_the_head_works_with_all_stages_frozen():
    classifier = build_classifier("mobilenet_v2", num_classes=3, dropout=0.5)
    classifier.frozen = frozenset(range(19))
    classifier.train()
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(classifier.features(pixels), classifier.features(pixels))
    assert not torch.equal(classifier(pixels), classifier(pixels))
    classifier.eval()
    assert torch.equal(classifier(pixels), classifier(pixels))


def test_a_copy_stands_for_itself():
    classifier, pixels = build_classifier("squeezenet1_1", num_classes=3).eval(), torch.randn(1, 3, 32, 32)
    expected = classifier(pixels)
    for copied in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert torch.equal(copied(pixels), expected)
        nn.init.zeros_(copied.head.bias)
        nn.init.zeros_(copied.head.weight)
        assert not copied(pixels).any()
    assert torch.equal(classifier(pixels), expected)


def test_dropout_of_the_classifying_layers():
    mobilenet = build_classifier("mobilenet_v2", num_classes=2, dropout=0.4)
    assert mobilenet.network.classifier[0].p == 0.4
    assert mobilenet.added_dropout == 0
    assert build_classifier("mobilenet_v2", num_classes=2).network.classifier[0].p == 0.2
    vit = small_classifier("vit_b_32")
    vit.set_dropout(0.4)
    assert vit.network.encoder.dropout.p == 0.1  # is none of the classifying layers'
    assert vit.added_dropout == 0.4
    alexnet = shapes_of("alexnet")
    alexnet.set_dropout(0.4)
    assert [layer.p for layer in alexnet.network.classifier if isinstance(layer, nn.Dropout)] == [0.4, 0.4]


def test_added_dropout_scales_what_it_keeps():
    """With all rows 1 and D features, a logit is the sum of those that are kept, times 1 / (1 - p)."""
    classifier = build_classifier("resnet18", num_classes=1, dropout=0.75)
    nn.init.ones_(classifier.head.weight)
    nn.init.zeros_(classifier.head.bias)
    features = torch.ones(400, 512)
    kept = classifier.train()(features, start=classifier.last_boundary) / 4
    assert torch.equal(kept, kept.round())
    assert kept.mean().item() == pytest.approx(128, abs=2)  # a binomial of 512 and 1/4: standard error 0.5
    assert (classifier.eval()(features, start=classifier.last_boundary) == 512).all()


@pytest.mark.parametrize(
    ("backbone", "layer"), [("resnet18", nn.Linear(512, 4)), ("squeezenet1_1", nn.Conv2d(512, 4, 1))]
)
def test_a_new_head_gives_that_many_logits(backbone, layer):
    classifier = build_classifier(backbone, num_classes=9).eval()
    classifier.replace_head(layer)
    assert classifier.head is layer
    assert classifier.num_classes == 4
    assert classifier(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert [parameter for _, parameter in classifier.head_parameters()] == [layer.weight, layer.bias]


@pytest.mark.parametrize("layer", [nn.Linear(511, 4), nn.Conv2d(512, 4, 1)])
def test_a_head_of_another_kind_or_width_is_refused(layer):
    with pytest.raises(ValueError, match="cannot be the head of resnet18; it takes the place of Linear"):
        build_classifier("resnet18", num_classes=9).replace_head(layer)


@pytest.mark.parametrize(
    ("backbone", "hint"),
    [
        ("resnet51", "did you mean .*resnet50"),
        ("ResNet50", "did you mean .*resnet50"),
        ("quantized_resnet18", "not a classification model"),
        ("deeplabv3_resnet50", "not a classification model"),
        ("?", "allowed: alexnet, "),
    ],
)
def test_unknown_backbones_are_refused_with_near_matches(backbone, hint):
    with pytest.raises(ConfigError, match=hint):
        build_classifier(backbone, num_classes=2)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="num_classes 0"):
        build_classifier("resnet18", num_classes=0)
    with pytest.raises(ConfigError, match=r"dropout 1\.5 .* 0 to 1"):
        build_classifier("resnet18", num_classes=2, dropout=1.5)
