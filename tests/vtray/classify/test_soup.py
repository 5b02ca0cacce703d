"""Averaged weights, by hand."""

import torch

from vtray.classify.soup import averaged, greedy_soup


def state(value, count=0):
    return {"weight": torch.tensor([float(value)]), "batches": torch.tensor(count)}


def near(target):
    return lambda mixed: (-abs(float(mixed["weight"][0]) - target),)


def test_the_mean_of_floating_tensors_and_the_first_of_others():
    mixed = averaged([state(1, 5), state(4, 9)])
    assert mixed["weight"].tolist() == [2.5]
    assert mixed["batches"] == 5
    assert mixed["weight"].dtype == torch.float32


def test_a_state_joins_only_if_the_mean_is_as_good():
    """The target is 3: the best is 2; with 4 the mean is 3, with 9 it would be 5."""
    soup = greedy_soup([state(9), state(2), state(4.5), state(4)], near(3))
    assert soup.members == (1, 3)  # 4 is as far as 2, 4.5 farther: 2 comes first, then 4
    assert soup.state["weight"].tolist() == [3.0]
    assert soup.score == (0.0,)


def test_the_best_alone_if_no_mean_helps():
    soup = greedy_soup([state(0), state(3)], near(3))
    assert soup.members == (1,)
    assert soup.state["weight"].tolist() == [3.0]


def test_of_equal_states_the_earlier_comes_first():
    assert greedy_soup([state(2), state(2)], near(3)).members == (0, 1)
