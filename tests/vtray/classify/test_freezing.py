import pytest
import torch
from training_support import digest_of_network, noise_batches, small_classifier, spec_for, trainer_for

from vtray.classify.backbone import build_classifier
from vtray.classify.freezing import (
    boundary_of,
    freeze,
    frozen_digest,
    frozen_stages,
    frozen_tensors,
    trained_tensors,
    window_stages,
)
from vtray.errors import ConfigError

STAGES = ("stem", "layer1", "layer2", "layer3")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("none", set()), (0, set()), ("stem", {0}), (2, {0, 1}), ("layer2", {0, 1, 2}), ("all", {0, 1, 2, 3})],
)
def test_frozen_stages_are_the_first_ones(given, expected):
    assert frozen_stages(STAGES, given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "layer9",
            r"freeze: 'layer9' is not a stage; did you mean 'layer\d'\? \(allowed: none, all, a number, stem, ",
        ),
        ("some", r"freeze: 'some' is not a stage.*stem, layer1, layer2, layer3\)"),
        (5, r"freeze: 5 is not allowed; give 0 to 4 or a stage \(0 stem, 1 layer1, 2 layer2, 3 layer3\)"),
        (-1, "freeze: -1 is not allowed"),
        (True, "freeze: True is not allowed"),
    ],
)
def test_unknown_stages_are_refused_with_the_list(given, message):
    with pytest.raises(ConfigError, match=message):
        frozen_stages(STAGES, given)


@pytest.mark.parametrize(
    ("window", "expected"),
    [((1, 2), {0, 3}), (("layer1", "layer1"), {0, 2, 3}), ((2, "layer3"), {0, 1}), ((0, 3), set())],
)
def test_window_trains_from_its_first_to_its_last_stage(window, expected):
    assert window_stages(STAGES, window) == expected


def test_window_to_the_end_is_freezing_the_first_stages():
    assert all(window_stages(STAGES, (n, 3)) == frozen_stages(STAGES, n) for n in range(4))


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((2, 1), "train_stages: 2 comes after 1; give the earlier one first"),
        ((0, 4), r"train_stages: 4 is not allowed; give 0 to 3 or a name \(0 stem"),
        (("stem", "layer4"), r"train_stages: 'layer4' is not a stage; did you mean"),
    ],
)
def test_windows_that_are_none_are_refused(window, message):
    with pytest.raises(ConfigError, match=message):
        window_stages(STAGES, window)


def test_freezing_sets_gradients_and_modes():
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 1}))
    classifier.train()
    for index in range(len(classifier.stage_names)):
        assert all(p.requires_grad == (index > 1) for _, p in classifier.stage_parameters(index))
        assert all(m.training == (index > 1) for m in classifier.stage_modules(index))
    assert all(p.requires_grad for _, p in classifier.head_parameters())


def test_freezing_again_thaws_what_is_not_named():
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 1}))
    freeze(classifier, frozenset({1}))
    assert all(p.requires_grad for _, p in classifier.stage_parameters(0))
    assert all(module.training for module in classifier.stage_modules(0))
    assert not any(p.requires_grad for _, p in classifier.stage_parameters(1))


def test_boundary_counts_leading_frozen_stages_only():
    classifier = build_classifier("mobilenet_v2", num_classes=2)
    for frozen, expected in [(set(), 0), ({0, 1}, 2), ({0, 1, 5}, 2), ({3}, 0)]:
        freeze(classifier, frozenset(frozen))
        assert boundary_of(classifier) == expected


def test_boundary_of_a_wholly_frozen_backbone_is_behind_its_pooling():
    classifier = small_classifier()
    freeze(classifier, frozen_stages(classifier.stage_names, "all"))
    assert boundary_of(classifier) == classifier.last_boundary
    pixels = torch.randn(2, 3, 32, 32)
    assert classifier.eval().prefix(pixels, boundary_of(classifier)).shape == (2, classifier.num_features)


def test_frozen_and_trained_tensors_are_everything_once():
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 2}))
    frozen, trained = frozen_tensors(classifier), trained_tensors(classifier)
    assert not frozen.keys() & trained.keys()
    assert frozen.keys() | trained.keys() == classifier.network.state_dict().keys()
    assert any("running_mean" in name for name in frozen)


@pytest.mark.parametrize("name", ["weight", "running_mean", "num_batches_tracked"])
def test_digest_changes_with_every_kind_of_frozen_tensor(name):
    classifier = small_classifier()
    freeze(classifier, frozenset({0}))
    before = frozen_digest(classifier)
    with torch.no_grad():
        tensor = next(t for path, t in frozen_tensors(classifier).items() if path.endswith(name))
        tensor.view(-1)[0] += 1
    assert frozen_digest(classifier) != before


def test_digest_does_not_depend_on_layout_or_on_trained_stages():
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 1}))
    before = frozen_digest(classifier)
    classifier.to(memory_format=torch.channels_last)
    with torch.no_grad():
        classifier.head.weight.add_(1)
    assert frozen_digest(classifier) == before


@pytest.mark.parametrize("frozen", [frozenset({0, 1}), frozenset({0, 3, 4}), frozenset(range(5))])
def test_training_leaves_frozen_parameters_and_buffers_bit_identical(frozen):
    classifier = small_classifier()
    freeze(classifier, frozen)
    digest, everything = frozen_digest(classifier), digest_of_network(classifier)
    kept = {name: tensor.clone() for name, tensor in frozen_tensors(classifier).items()}
    trainer = trainer_for(classifier, spec_for(weight_decay=0.1, ema_decay=0.9, layout="nhwc"))
    for epoch in range(2):
        trainer.train_epoch(epoch, noise_batches(3))
    assert frozen_digest(classifier) == digest == frozen_digest(trainer.evaluation_model)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in frozen_tensors(classifier).items())
    assert digest_of_network(classifier) != everything


def test_without_freezing_batch_norm_statistics_do_move():
    classifier = small_classifier()
    before = {name: buffer.clone() for name, buffer in classifier.stage_buffers(0)}
    trainer_for(classifier, spec_for()).train_epoch(0, noise_batches(3))
    assert not any(torch.equal(buffer, before[name]) for name, buffer in classifier.stage_buffers(0))
