import copy
import dataclasses
import json

import pytest
import torch
from training_support import digest_of_network, small_classifier

from vtray.classify import numerics
from vtray.classify.freezing import freeze
from vtray.classify.numerics import Numerics, autocast, choose, in_layout, set_layout

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ALL = {"fp32 nchw", "fp32 nhwc", "bf16 nchw", "bf16 nhwc"}


def quick_classifier():
    return small_classifier("squeezenet1_1")


def test_all_four_are_tried_and_a_fastest_one_is_chosen():
    found = choose(quick_classifier(), PIXELS)
    assert set(found.seconds) == ALL
    chosen = found.seconds[f"{found.precision} {found.layout}"]
    assert chosen <= min(found.seconds.values()) * numerics.WORTH
    assert found.speedup == pytest.approx(found.seconds["fp32 nchw"] / chosen)


@pytest.mark.parametrize(
    ("fixed", "tried"),
    [
        ({"precision": "fp32"}, {"fp32 nchw", "fp32 nhwc"}),
        ({"layout": "nhwc"}, {"fp32 nhwc", "bf16 nhwc"}),
        ({"precision": "bf16", "layout": "nchw"}, set()),
    ],
)
def test_what_is_given_is_kept(fixed, tried):
    found = choose(quick_classifier(), PIXELS, **fixed)
    assert set(found.seconds) == tried
    assert fixed.items() <= dataclasses.asdict(found).items()


def test_nothing_is_changed():
    classifier = small_classifier(dropout=0.5).eval()
    freeze(classifier, frozenset({0}))
    before, state = digest_of_network(classifier), torch.get_rng_state()
    strides = [parameter.stride() for parameter in classifier.parameters()]
    pixels = PIXELS.clone()
    choose(classifier, pixels)
    assert digest_of_network(classifier) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert [parameter.stride() for parameter in classifier.parameters()] == strides
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not classifier.training
    assert torch.equal(pixels, PIXELS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cached_activations_are_probed_from_their_boundary(dtype):
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 1}))
    activations = classifier.eval().prefix(PIXELS, 2).to(dtype)
    assert set(choose(classifier, activations, start=2).seconds) == ALL


def test_the_textbook_stays_unless_another_is_clearly_faster(monkeypatch):
    seconds = {"fp32 nchw": 1.0, "fp32 nhwc": 0.97, "bf16 nchw": 2.0, "bf16 nhwc": 0.96}
    monkeypatch.setattr(numerics._Contender, "step", lambda self: seconds[self.name])
    assert choose(quick_classifier(), PIXELS).speedup == 1.0
    seconds["bf16 nhwc"] = 0.5
    found = choose(quick_classifier(), PIXELS)
    assert (found.precision, found.layout, found.speedup) == ("bf16", "nhwc", 2.0)


def test_a_hopeless_choice_is_tried_once_only(monkeypatch):
    steps = []

    def step(contender):
        steps.append(contender.name)
        return 9.0 if contender.precision == "bf16" else 1.0

    monkeypatch.setattr(numerics._Contender, "step", step)
    assert choose(quick_classifier(), PIXELS).precision == "fp32"
    assert steps.count("bf16 nchw") == steps.count("bf16 nhwc") == 1
    assert steps.count("fp32 nchw") == steps.count("fp32 nhwc") == 6


def test_choice_goes_into_a_report():
    found = Numerics(precision="bf16", layout="nhwc", seconds={"bf16 nhwc": 0.5})
    assert found.speedup is None
    assert json.loads(json.dumps(dataclasses.asdict(found)))["seconds"] == {"bf16 nhwc": 0.5}


def test_layouts_move_bytes_and_keep_values():
    classifier = small_classifier().eval()
    expected = classifier(PIXELS)
    other = copy.deepcopy(classifier)
    set_layout(other, "nhwc")
    assert digest_of_network(other) == digest_of_network(classifier)
    assert in_layout(PIXELS, "nhwc").is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(other(in_layout(PIXELS, "nhwc")), expected)
    set_layout(other, "nchw")
    assert torch.equal(other(in_layout(PIXELS, "nchw")), expected)
    vectors = torch.randn(4, 5)
    assert in_layout(vectors, "nhwc") is vectors


def test_autocast_is_bf16_inside_only():
    layer, inputs = torch.nn.Linear(3, 3), torch.randn(2, 3)
    with autocast(torch.device("cpu"), "bf16"):
        assert layer(inputs).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "fp32"):
        assert layer(inputs).dtype == torch.float32
    assert layer.weight.dtype == torch.float32
