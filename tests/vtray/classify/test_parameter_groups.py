from collections import Counter

import pytest
import torch
from training_support import small_classifier

from vtray.classify.backbone import build_classifier
from vtray.classify.freezing import freeze
from vtray.classify.parameters import backbone_layers, build_optimizer, parameter_groups


def shapes_only(backbone, num_classes=10):
    """A classifier without values: its groups are all that is asked for, and drawing weights takes longest."""
    with torch.device("meta"):
        return build_classifier(backbone, num_classes=num_classes)


def groups_of(classifier, **options):
    return parameter_groups(classifier, **({"lr": 1.0, "weight_decay": 0.05, "layer_decay": None} | options))


def rates_of(classifier, groups):
    """Network name -> (learning rate, weight decay) of all parameters in the groups."""
    names = {id(parameter): name for name, parameter in classifier.network.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def timm_rates(backbone):
    """What timm's own model of the same architecture gives: (name, shape) -> (scale, weight decay)."""
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    with torch.device("meta"):
        network = timm.create_model(backbone, num_classes=10)
    exempt = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    groups = param_groups_layer_decay(network, weight_decay=0.05, no_weight_decay_list=exempt, layer_decay=0.7)
    names = {id(parameter): (name, tuple(parameter.shape)) for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_layer_decay_equals_timms_by_name(backbone):
    """timm's resnet has torchvision's parameter names, so membership is compared parameter by parameter."""
    classifier = shapes_only(backbone)
    ours = rates_of(classifier, groups_of(classifier, head_lr_factor=1, layer_decay=0.7))
    theirs = {name: rates for (name, _), rates in timm_rates(backbone).items()}
    assert ours.keys() == theirs.keys()
    for name, rates in theirs.items():
        assert ours[name] == pytest.approx(rates, rel=1e-12), name
    assert len({rate for rate, _ in ours.values()}) == {"resnet18": 10, "resnet50": 18}[backbone]


@pytest.mark.parametrize(
    ("build", "timm_name"),
    [
        (lambda: shapes_only("vit_b_16"), "vit_base_patch16_224"),
        (lambda: build_classifier("regnet_y_400mf", num_classes=10), "regnety_004"),  # needs values to be built
    ],
)
def test_layer_decay_equals_timms_by_shape(build, timm_name):
    """Other names for the same tensors: as many of each shape have each rate and weight decay."""
    classifier = build()
    rates = rates_of(classifier, groups_of(classifier, head_lr_factor=1, layer_decay=0.7))
    shapes = {name: tuple(each.shape) for name, each in classifier.network.named_parameters()}
    ours = Counter((shapes[name], round(rate, 12), decay) for name, (rate, decay) in rates.items())
    theirs = Counter(
        (shape, round(rate, 12), decay) for (_, shape), (rate, decay) in timm_rates(timm_name).items()
    )
    assert ours == theirs


def test_without_layer_decay_the_backbone_learns_at_lr_and_the_head_ten_times_as_fast():
    classifier = small_classifier()
    groups = groups_of(classifier, lr=0.02)
    assert [group["name"] for group in groups] == [
        "backbone decay",
        "backbone no_decay",
        "head decay",
        "head no_decay",
    ]
    assert [group["lr"] for group in groups] == pytest.approx([0.02, 0.02, 0.2, 0.2])
    assert [group["initial_lr"] for group in groups] == [group["lr"] for group in groups]
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0, 0.05, 0.0]


def test_every_trained_parameter_is_in_one_group_and_no_frozen_one_is():
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 2}))
    for layer_decay in (None, 0.8):
        groups = groups_of(classifier, layer_decay=layer_decay)
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(grouped) == sorted(id(each) for each in classifier.parameters() if each.requires_grad)
        assert all(group["params"] for group in groups)


def test_frozen_layers_count_as_depth():
    classifier = small_classifier()
    before = rates_of(classifier, groups_of(classifier, layer_decay=0.5))
    freeze(classifier, frozenset({0, 1, 2}))
    after = rates_of(classifier, groups_of(classifier, layer_decay=0.5))
    assert 0 < len(after) < len(before)
    assert all(before[name] == rates for name, rates in after.items())


def test_blocks_of_a_stage_are_layers():
    layers = [name for name, _ in backbone_layers(small_classifier())]
    assert layers[:6] == ["conv1", "stage2.0", "stage2.1", "stage2.2", "stage2.3", "stage3.0"]
    assert layers[-1] == "conv5"


def test_what_follows_the_blocks_of_a_stage_goes_with_the_last():
    layers = dict(backbone_layers(shapes_only("densenet121")))
    assert len(layers) == 1 + 6 + 12 + 24 + 16
    last_of_first = [name for name, named in layers.items() if any("transition1" in path for path, _ in named)]
    assert len(last_of_first) == 1
    assert last_of_first[0].endswith("denselayer6")


@pytest.mark.parametrize("backbone", ["densenet121", "squeezenet1_1", "vgg11_bn", "convnext_tiny", "swin_t"])
def test_layers_hold_every_backbone_parameter_once(backbone):
    classifier = shapes_only(backbone)
    named = [name for _, layer in backbone_layers(classifier) for name, _ in layer]
    head = {name for name, _ in classifier.head_parameters()}
    assert len(named) == len(set(named))
    assert set(named) == {name for name, _ in classifier.network.named_parameters()} - head


@pytest.mark.parametrize(
    ("backbone", "ending", "decayed"),
    [
        ("convnext_tiny", "layer_scale", False),
        ("convnext_tiny", "block.0.weight", True),
        ("swin_t", "relative_position_bias_table", False),
        ("swin_t", "attn.qkv.weight", True),
        ("mobilenet_v2", "features.0.0.weight", True),
        ("mobilenet_v2", "features.0.1.weight", False),
    ],
)
def test_what_is_decayed(backbone, ending, decayed):
    classifier = shapes_only(backbone)
    rates = rates_of(classifier, groups_of(classifier))
    found = {decay for name, (_, decay) in rates.items() if name.endswith(ending)}
    assert found == {0.05 if decayed else 0.0}


def test_optimizers_are_torchs_with_the_groups_rates():
    groups = groups_of(small_classifier(), lr=0.01)
    sgd = build_optimizer(groups, optimizer="sgd", momentum=0.8)
    assert type(sgd) is torch.optim.SGD
    assert {group["momentum"] for group in sgd.param_groups} == {0.8}
    adamw = build_optimizer(groups_of(small_classifier(), lr=0.01), optimizer="adamw", momentum=0.8)
    assert type(adamw) is torch.optim.AdamW
    assert [group["lr"] for group in adamw.param_groups] == pytest.approx([0.01, 0.01, 0.1, 0.1])
