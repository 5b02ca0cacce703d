"""Strategies as phases."""

import pytest

from vtray.classify.phases import PhasePlan
from vtray.errors import ConfigError

STAGES = ("stem", "layer1", "layer2", "layer3")
ALL = frozenset(range(4))


def phases(strategy, **options):
    return PhasePlan(strategy=strategy, **{"epochs": 6} | options).phases(STAGES)


@pytest.mark.parametrize(
    ("strategy", "options", "frozen", "factor"),
    [
        ("full", {}, set(), 10),
        ("frozen", {"freeze": "layer1"}, {0, 1}, 10),
        ("frozen", {"freeze": 3}, {0, 1, 2}, 10),
        ("frozen", {"window": (1, "layer2")}, {0, 3}, 10),
        ("linear_probe", {}, set(ALL), 10),
        ("scratch", {}, set(), 1),
        ("full", {"head_is_new": False}, set(), 1),
        ("full", {"head_lr_factor": 3.0}, set(), 3),
    ],
)
def test_strategies_of_one_phase(strategy, options, frozen, factor):
    (phase,) = phases(strategy, **options)
    assert phase.frozen == frozen
    assert phase.head_lr_factor == factor
    assert (phase.first_epoch, phase.epochs, phase.last_epoch) == (0, 6, 5)


def test_lp_ft_trains_the_head_first_and_then_the_rest():
    probe, tune = phases("lp_ft", probe_epochs=2, freeze=1)
    assert probe.frozen == ALL
    assert tune.frozen == {0}
    assert (probe.first_epoch, probe.last_epoch, tune.first_epoch, tune.last_epoch) == (0, 1, 2, 5)
    assert (probe.head_lr_factor, tune.head_lr_factor) == (10, 1)


def test_an_unknown_stage_is_refused_with_the_list():
    with pytest.raises(ConfigError, match=r"'layer9' is not a stage.*stem, layer1, layer2, layer3"):
        phases("frozen", freeze="layer9")
