"""Ray's schedulers as we use them: successive halving against an oracle, trial 0 is spared, the past is replayed.

No cluster is started: a scheduler is asked what it would do with curves that are there already.
"""

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.tune_config import SearchConfig
from pipelines.tune_ray import EPOCHS, SCORE, _Past, replay, scheduler_of
from vtray.classify.halving import rungs
from vtray.classify.trial_record import TrialRecord

RECORDED = json.loads((Path(__file__).parent / "recorded_curves.json").read_text())["curves"]


@dataclass
class Oracle:
    """Successive halving: at a rung a trial goes on if it is not below the best 1/factor of those before it."""

    marks: tuple[int, ...]
    factor: int
    seen: dict[int, list[float]] = field(default_factory=dict)

    def goes_on(self, epoch, value):
        if epoch not in self.marks:
            return True
        before = sorted(self.seen.setdefault(epoch, []))
        self.seen[epoch].append(value)
        return not before or value >= self.quantile(before)

    def quantile(self, ordered):
        """The value below which 1 - 1/factor of them lie, between neighbours where it falls between two."""
        place = (1 - 1 / self.factor) * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def drawn_curves(seed, *, trials=20, epochs=9):
    """Saturating curves with noise, some equal to others, as accuracies on few images are."""
    moments = random.Random(seed)
    curves = []
    for _ in range(trials):
        top, speed = moments.uniform(0.3, 1), moments.uniform(0.2, 2)
        values = [top * (1 - math.exp(-speed * (n + 1))) + moments.gauss(0, 0.05) for n in range(epochs)]
        curves.append([round(48 * max(0, min(1, value))) / 48 for value in values])
    return curves


def interleaved(curves, seed):
    """Results of two trials at a time as (trial, epoch from 1, value); is told whether the trial goes on."""
    moments, waiting = random.Random(seed), list(range(len(curves)))
    running = {waiting.pop(0): 0 for _ in range(min(2, len(curves)))}
    while running:
        trial = moments.choice(sorted(running))
        running[trial] += 1
        goes_on = yield trial, running[trial], curves[trial][running[trial] - 1]
        if not goes_on or running[trial] == len(curves[trial]):
            del running[trial]
            if waiting:
                running[waiting.pop(0)] = 0


def decisions(scheduler, curves, seed, first=1):
    """(trial, epoch) of every stop; trials are numbered from `first`, and trial 0 is none of them."""
    past = [_Past(f"t{n}", {"number": n + first}) for n in range(len(curves))]
    for trial in past:
        scheduler.on_trial_add(None, trial)
    stops, steps = [], interleaved(curves, seed)
    trial, epoch, value = next(steps)
    while True:
        done = epoch == len(curves[trial])
        result = {SCORE: value, EPOCHS: epoch, "done": done}
        action = scheduler.on_trial_result(None, past[trial], result)
        stopped = action == "STOP" and not done
        stops += [(trial, epoch)] if stopped else []
        if stopped or done:
            scheduler.on_trial_complete(None, past[trial], result)
        try:
            trial, epoch, value = steps.send(not stopped)
        except StopIteration:
            return stops


def oracle_decisions(curves, seed, *, marks, factor):
    oracle, stops, steps = Oracle(marks, factor), [], interleaved(curves, seed)
    trial, epoch, value = next(steps)
    while True:
        goes_on = oracle.goes_on(epoch, value)
        stops += [] if goes_on else [(trial, epoch)]
        try:
            trial, epoch, value = steps.send(goes_on)
        except StopIteration:
            return stops


def search(**asha):
    return SearchConfig.model_validate({"asha": asha})


@pytest.mark.parametrize(("grace", "factor"), [(1, 3), (1, 2), (2, 2), (2, 4), (3, 3)])
def test_halving_decides_as_the_oracle_on_drawn_curves(grace, factor):
    found = 0
    for seed in range(20):
        curves = drawn_curves(seed)
        marks = rungs(grace_epochs=grace, reduction_factor=factor, epochs=9)
        scheduler = scheduler_of(search(grace_epochs=grace, reduction_factor=factor), epochs=9)
        stops = decisions(scheduler, curves, seed)
        assert stops == oracle_decisions(curves, seed, marks=marks, factor=factor)
        found += len(stops)
    assert found > 100


def test_halving_decides_as_the_oracle_on_recorded_curves():
    """Top-1 of real trials by epoch, in ten orders of arrival."""
    assert len(RECORDED) >= 16
    epochs = len(RECORDED[0])
    marks = rungs(grace_epochs=1, reduction_factor=3, epochs=epochs)
    for seed in range(10):
        stops = decisions(scheduler_of(search(), epochs=epochs), RECORDED, seed)
        assert stops == oracle_decisions(RECORDED, seed, marks=marks, factor=3)
        assert len(stops) >= 4


@pytest.mark.parametrize("name", ["asha", "median"])
def test_trial_0_is_never_stopped(name):
    section = SearchConfig.model_validate({"scheduler": name})
    better = [record_of(number, [0.9] * 6) for number in range(1, 9)]
    bad = [[0.1] * 6]
    for number in (0, 9):
        scheduler = scheduler_of(section, epochs=6)
        replay(scheduler, better, "val_top1")
        assert bool(decisions(scheduler, bad, 1, first=number)) == (number == 9)


def record_of(number, curve):
    epochs = tuple(
        {"epoch": n, "val_top1": value, "val_loss": 1.0, "seconds": 1.0, "done": n + 1 == len(curve)}
        for n, value in enumerate(curve)
    )
    return TrialRecord(
        number=number, digest="", values={}, frozen=0, status="complete", epochs=epochs, finished=float(number)
    )


@pytest.mark.parametrize("name", ["asha", "median", "none"])
def test_a_new_scheduler_that_is_told_the_past_decides_as_the_old_one(name):
    section, curves = SearchConfig.model_validate({"scheduler": name}), drawn_curves(5, epochs=6)
    old, new = scheduler_of(section, epochs=6), scheduler_of(section, epochs=6)
    done = [record_of(n + 1, curve) for n, curve in enumerate(curves[:10])]
    replay(old, done, "val_top1")
    replay(new, reversed(done), "val_top1")
    ahead = [decisions(each, curves[10:], 3, first=11) for each in (old, new)] if name != "none" else [[], []]
    assert ahead[0] == ahead[1]
    fresh = decisions(scheduler_of(section, epochs=6), curves[10:], 3) if name != "none" else []
    assert name == "none" or ahead[0] != fresh  # what was told counts
