"""What a search tries: draws that depend on nothing but seed, number and key; grids; and what Optuna adds."""

import itertools

import pytest
from pydantic import ValidationError

from vtray.classify import proposals as module
from vtray.classify.proposals import Ground, Optuna, drawn_trials, grid_trials, proposals
from vtray.classify.search_space import LogRange, choices, drawn, grid
from vtray.errors import ConfigError

SPACE = {"lr": LogRange(low=1e-4, high=1e-2, points=3), "freeze": (0, 6, 19)}
DEFAULT = {"lr": 1e-3, "freeze": 0}


def ground(space=SPACE, **values):
    return Ground(**({"space": space, "default": DEFAULT, "seed": 7, "num_trials": 5} | values))


def test_a_grid_of_a_log_range_has_equal_ratios():
    assert LogRange(low=1e-4, high=1e-2, points=3).grid() == (1e-4, 1e-3, 1e-2)
    assert LogRange(low=0.2, high=5, points=2).grid() == (0.2, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"low": 0, "high": 1}, "greater than 0"), ({"low": 2, "high": 1}, "low 2 must be below high 1")],
)
def test_a_range_that_is_none(values, message):
    with pytest.raises(ValidationError, match=message):
        LogRange(**values)


def test_a_draw_depends_on_seed_number_and_key_alone():
    alone = drawn({"lr": SPACE["lr"]}, seed=7, number=3)
    assert alone["lr"] == drawn(SPACE, seed=7, number=3)["lr"]
    assert drawn(SPACE, seed=7, number=3) == drawn(SPACE, seed=7, number=3)
    assert drawn(SPACE, seed=8, number=3)["lr"] != alone["lr"]


def test_draws_fill_the_range_evenly_on_a_log_scale():
    rates = [drawn(SPACE, seed=0, number=number)["lr"] for number in range(400)]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / 400 < 0.6  # half of the decades, a tenth of the range
    frozen = [drawn(SPACE, seed=0, number=number)["freeze"] for number in range(400)]
    assert all(frozen.count(depth) > 90 for depth in SPACE["freeze"])


def test_a_grid_is_every_combination_once():
    every = grid(SPACE, seed=1)
    assert sorted((values["lr"], values["freeze"]) for values in every) == sorted(
        itertools.product((1e-4, 1e-3, 1e-2), (0, 6, 19))
    )
    assert grid(SPACE, seed=1) == every
    assert grid(SPACE, seed=2) != every


def test_choices_of_a_key():
    assert choices(SPACE, "freeze") == (0, 6, 19)
    assert choices(SPACE, "lr") == choices(SPACE, "recipe") == ()


def test_the_default_is_trial_0_and_stands_in_a_grid_once():
    assert drawn_trials(ground()).values(0) == DEFAULT
    listed = grid_trials(ground(num_trials=None)).listed
    assert listed[0] == DEFAULT
    assert len(listed) == 9  # it is one of the nine combinations
    assert len(grid_trials(ground(num_trials=None, default={"lr": 0.5, "freeze": 0})).listed) == 10
    assert len(grid_trials(ground(num_trials=4)).listed) == 4


def test_more_trials_begin_with_the_same_ones():
    few, many = drawn_trials(ground(num_trials=5)).listed, drawn_trials(ground(num_trials=50)).listed
    assert many[:5] == few


class TestOptuna:
    def told(self, upto):
        """A searcher that was told trials 0 to `upto` - 1, of which the one with the largest lr was best."""
        found = proposals("optuna", ground())
        for number in range(upto):
            values = found.values(number)
            found.tell(number, values, [values["lr"]], stopped=number % 3 == 2)
        return found

    def test_the_default_comes_first_and_all_values_are_of_the_space(self):
        found = self.told(0)
        assert found.values(0) == DEFAULT
        for number in range(1, 20):
            values = found.values(number)
            assert 1e-4 <= values["lr"] <= 1e-2
            assert values["freeze"] in (0, 6, 19)
            found.tell(number, values, [values["lr"]], stopped=False)

    def test_after_a_crash_the_same_values_follow_from_the_same_trials(self):
        whole = self.told(12)
        again = proposals("optuna", ground())
        first = self.told(0)
        for number in range(12):
            values = first.values(number)
            first.tell(number, values, [values["lr"]], stopped=number % 3 == 2)
            again.tell(number, values, [values["lr"]], stopped=number % 3 == 2)
        assert again.values(12) == whole.values(12)

    def test_it_learns(self):
        """What is proposed after many trials is larger than at first, since a large lr was good."""
        found = proposals("optuna", ground(num_trials=60))
        rates = []
        for number in range(60):
            values = found.values(number)
            rates.append(values["lr"])
            found.tell(number, values, [values["lr"]], stopped=False)
        assert sum(rates[-20:]) > 1.5 * sum(rates[1:21])

    def test_a_default_outside_of_the_space_and_failed_trials_are_taken(self):
        found = Optuna(ground(default={"lr": 0.5, "freeze": 3}))
        found.tell(0, found.values(0), [0.9], stopped=False)
        found.tell(1, found.values(1), [], stopped=False)
        assert found.values(2)["freeze"] in (0, 6, 19)

    def test_without_it_the_error_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(module.__dict__, "_import_optuna", module._import_optuna)
        monkeypatch.setitem(__import__("sys").modules, "optuna", None)
        with pytest.raises(ConfigError, match=r"pip install 'vtray\[optuna\]', or use random or grid"):
            proposals("optuna", ground())
