import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torchvision.transforms import v2

from vtray.classify.mixing import AnyMix, CutMix, MixUp, mix_batch
from vtray.seeding import rng_for

LABELS = torch.tensor([0, 2, 1, 2, 0])
TARGETS = torch.nn.functional.one_hot(LABELS, 3).float()


def rng():
    return rng_for(3, "mix")


@pytest.fixture
def pixels():
    return torch.randn(5, 3, 20, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def images():
    return torch.randint(256, (5, 3, 20, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_mixup_worked_example():
    draws = rng_for("x")
    draws.random()
    kept = draws.beta(1.0, 1.0)
    mixed, targets = MixUp(alpha=1.0)(torch.tensor([[10.0], [20.0]]), torch.eye(2), rng_for("x"))
    assert mixed.flatten().tolist() == pytest.approx([10 * kept + 20 * (1 - kept), 20 * kept + 10 * (1 - kept)])
    assert targets.flatten().tolist() == pytest.approx([kept, 1 - kept, 1 - kept, kept])


def test_mixup_equals_torchvision(pixels):
    draws = rng()
    draws.random()
    params = {"labels": LABELS, "batch_size": 5, "lam": float(draws.beta(0.4, 0.4))}
    reference = v2.MixUp(num_classes=3)
    mixed, targets = MixUp(alpha=0.4)(pixels, TARGETS, rng())
    torch.testing.assert_close(mixed, reference.transform(pixels, params))
    torch.testing.assert_close(targets, reference.transform(LABELS, params))


@pytest.mark.parametrize("number", range(4))
def test_cutmix_equals_torchvision(pixels, number):
    mixed, targets = CutMix()(pixels, TARGETS, rng_for(number))
    changed = (mixed != pixels).any(0).any(0)
    rows, columns = changed.any(1).nonzero().flatten().tolist(), changed.any(0).nonzero().flatten().tolist()
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    assert changed[top:bottom, left:right].all()  # one rectangle, and nothing outside of it
    assert int(changed.sum()) == (bottom - top) * (right - left)
    kept = 1 - (bottom - top) * (right - left) / (20 * 12)
    params = {"labels": LABELS, "batch_size": 5, "box": (left, top, right, bottom), "lam_adjusted": kept}
    reference = v2.CutMix(num_classes=3)
    assert torch.equal(mixed, reference.transform(pixels, params))
    torch.testing.assert_close(targets, reference.transform(LABELS, params))


@pytest.mark.parametrize("mix", [MixUp(), CutMix()])
def test_bytes_mix_as_floats_do(images, mix):
    mixed, targets = mix(images, TARGETS, rng())
    exact, exact_targets = mix(images.float(), TARGETS, rng())
    assert mixed.dtype == torch.uint8
    assert (mixed.float() - exact).abs().max() <= 0.5
    assert torch.equal(targets, exact_targets)


@pytest.mark.parametrize("mix", [MixUp(alpha=0.4), CutMix()])
def test_targets_stay_shares_and_classes_keep_their_total(pixels, mix):
    for number in range(10):
        _, targets = mix(pixels, TARGETS, rng_for(number))
        torch.testing.assert_close(targets.sum(1), torch.ones(5))
        torch.testing.assert_close(targets.sum(0), TARGETS.sum(0))


@pytest.mark.parametrize("mix", [MixUp(), CutMix()])
def test_same_rng_same_bits_and_the_inputs_stay(pixels, mix):
    before = pixels.clone()
    first, second = mix(pixels, TARGETS, rng()), mix(pixels, TARGETS, rng())
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(pixels, before)
    assert not torch.equal(first[0], pixels)


def test_p_is_how_often(pixels):
    assert MixUp(p=0)(pixels, TARGETS, rng())[0] is pixels
    mixed = sum(MixUp(p=0.3)(pixels, TARGETS, rng_for(n))[0] is not pixels for n in range(400))
    assert 90 < mixed < 150  # 120 expected, standard deviation 9


def test_mixup_of_activations_keeps_their_type():
    activations = torch.randn(4, 10, dtype=torch.bfloat16)
    assert MixUp()(activations, TARGETS[:4], rng())[0].dtype == torch.bfloat16


def test_cutmix_needs_images():
    with pytest.raises(ValueError, match=r"cutmix of inputs \(4, 10\); it needs images"):
        CutMix()(torch.randn(4, 10), TARGETS[:4], rng())


def test_at_most_one_mix_per_batch(pixels):
    mixes = (MixUp(p=0.5), CutMix(p=1))
    blended = 0
    for number in range(40):
        mixed, _ = mix_batch(pixels, TARGETS, mixes, rng_for(number))
        pasted = ((mixed == pixels) | (mixed == pixels.roll(1, 0))).all()
        blended += not pasted
        assert not torch.equal(mixed, pixels) or pasted
    assert 10 < blended < 30
    assert mix_batch(pixels, TARGETS, (), rng())[0] is pixels


@pytest.mark.parametrize("mix", [MixUp(alpha=0.3, p=0.5), CutMix(alpha=2.0)])
def test_round_trip_through_yaml(mix):
    text = yaml.safe_dump(mix.model_dump(mode="json"))
    assert TypeAdapter(AnyMix).validate_python(yaml.safe_load(text)) == mix


@pytest.mark.parametrize("bad", [{"alpha": 0}, {"alpha": np.inf}, {"p": 1.5}, {"strength": 1}])
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        MixUp(**bad)


def test_a_config_with_mixes_needs_no_torch():
    code = "import sys, vtray.classify.mixing; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
