import math

import numpy as np
import pytest
import torch
from training_support import (
    digest_of_network,
    noise_batches,
    partly_frozen,
    small_classifier,
    spec_for,
    trainer_for,
)

from vtray.classify import learning_rate_finder as finder
from vtray.classify.learning_rate_finder import find_learning_rate, smooth, steepest
from vtray.classify.mixing import MixUp
from vtray.errors import ConfigError

RATES = np.geomspace(1e-6, 1.0, 61)  # ten per decade


def falling_at(rate):
    """A loss that falls from 2 to 1, fastest at `rate`, and rises again a hundred times further up."""
    places = np.log10(RATES / rate)
    return 2 - 1 / (1 + np.exp(-4 * places)) + np.exp(8 * (places - 2))


def sweep(trainer, *, num_steps=16, batch=12, **options):
    options = {"lowest": 1e-5, "highest": 0.1, "num_steps": num_steps} | options
    return find_learning_rate(trainer, noise_batches(num_steps, batch=batch), **options)


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
def test_steepest_point_of_a_known_curve(rate):
    assert steepest(RATES, falling_at(rate), width=2) == pytest.approx(rate, rel=0.01)


def test_noise_does_not_matter_much():
    noise = np.random.default_rng(0).normal(0, 0.03, len(RATES))
    found = steepest(RATES, falling_at(1e-3) + noise, width=2)
    assert abs(math.log10(found / 1e-3)) < 0.4


def test_what_comes_after_the_minimum_does_not_count():
    changes = falling_at(1e-4)
    changes[50:] = np.linspace(changes[50], 1.5, 11)  # falls faster there than anywhere, but from a bad place
    assert steepest(RATES, changes, width=2) == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize("end", [2.0, 0.995])
def test_a_loss_that_hardly_falls_is_refused(end):
    with pytest.raises(
        ConfigError, match=r"lr: no learning rate from 1.0e-06 on makes the loss fall; give lr as a number"
    ):
        steepest(RATES, np.linspace(1, end, 61), width=2, noticeable=0.01)


def test_smoothing_keeps_constants_and_lines_inside():
    assert smooth(np.ones(9), 2.0) == pytest.approx(np.ones(9))
    line = np.arange(21.0)
    assert smooth(line, 1.0)[5:-5] == pytest.approx(line[5:-5])


def test_sweep_finds_a_rate_that_trains():
    # so many steps of so many images that the fall is larger than the noise, on any CPU
    found = sweep(trainer_for(small_classifier(), spec_for(lr=123.0)), num_steps=40, batch=24)
    assert found.suggestion in found.learning_rates
    assert len(found.learning_rates) == len(found.losses) == len(found.changes) >= 8
    assert found.changes[0] == 0, "the first step is judged before anything is trained"
    classifier = small_classifier()
    trainer = trainer_for(classifier, spec_for(epochs=4, steps_per_epoch=4, lr=found.suggestion))
    losses = [trainer.train_epoch(epoch, noise_batches(4, batch=12)).loss for epoch in range(4)]
    assert losses[-1] < 0.9 * losses[0]


def test_sweep_is_deterministic():
    def run(seed):
        spec = spec_for(seed=seed, mixes=(MixUp(p=0.5),))
        return sweep(trainer_for(small_classifier(dropout=0.1), spec))

    assert run(0) == run(0)
    assert run(0).losses != run(1).losses


def test_paired_losses_differ_by_training_alone():
    """Dropout and mixing are the same for the first weights and the trained ones: at rate 0 nothing changes."""
    spec = spec_for(mixes=(MixUp(),))
    trainer = trainer_for(small_classifier("squeezenet1_1"), spec)
    with pytest.raises(ConfigError, match="no learning rate"):
        sweep(trainer, lowest=1e-30, highest=1e-29)
    groups = [[batch] for batch in noise_batches(3)]
    first = [finder._loss(trainer, group, number, rate=None) for number, group in enumerate(groups)]
    assert [finder._loss(trainer, group, number, rate=0.0) for number, group in enumerate(groups)] == first


def test_sweep_leaves_everything_as_it_was():
    batches = noise_batches(3, seed=9)

    def trained(with_sweep):
        trainer = trainer_for(partly_frozen(), spec_for(ema_decay=0.9))
        trainer.train_epoch(0, batches)
        digest, state = digest_of_network(trainer.classifier), torch.get_rng_state()
        if with_sweep:
            sweep(trainer)
            assert digest_of_network(trainer.classifier) == digest
            assert torch.equal(torch.get_rng_state(), state)
            assert trainer.updates == 3
        trainer.train_epoch(1, batches)
        return digest_of_network(trainer.classifier), digest_of_network(trainer.evaluation_model)

    assert trained(True) == trained(False)


def test_sweep_ends_when_the_loss_is_out_of_hand(monkeypatch):
    losses = []
    monkeypatch.setattr(finder, "_loss", lambda trainer, group, number, rate: planned(rate, losses))
    trainer = trainer_for(small_classifier(), spec_for())
    found = sweep(trainer, lowest=1e-4, highest=1.0)
    assert losses == [*found.losses, losses[-1]], "it ends with the first loss that is too high"
    assert len(found.losses) < 16
    assert 1e-4 < found.suggestion < 1e-2


def planned(rate, losses):
    """2 at first, then falling to 1 at a rate of 0.01 and rising fast after it; not finite from 0.3 on."""
    if rate is None:
        return 2.0
    losses.append(2 - math.log10(rate / 1e-4) / 2 if rate < 1e-2 else 200 * rate if rate < 0.3 else math.inf)
    return losses[-1]


def test_a_real_explosion_leaves_everything_as_it_was():
    trainer = trainer_for(small_classifier(), spec_for(optimizer="sgd"))
    before = digest_of_network(trainer.classifier)
    with pytest.raises(ConfigError, match=r"no learning rate from 1.0e\+05 on"):
        sweep(trainer, lowest=1e5, highest=1e9)
    assert digest_of_network(trainer.classifier) == before


def test_too_few_batches_are_refused():
    trainer = trainer_for(small_classifier(), spec_for(accumulate=2))
    with pytest.raises(ValueError, match="16 batches for a sweep of 16 x 2; give more batches"):
        sweep(trainer)
