"""Several trainings of one network become one by averaging their weights, if that is better.

Source: greedy soup, Wortsman et al. 2022, "Model soups". Theirs are networks with layer norm; here statistics of
batch norms are averaged too, which is only an approximation: the score on held-out images decides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Score = tuple[float, ...]  # higher is better


@dataclass(frozen=True, kw_only=True, eq=False)
class Soup:
    """Averaged weights, which of the states are in them, and their score."""

    state: dict[str, Tensor]
    members: tuple[int, ...]
    score: Score


def averaged(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of each floating tensor; of others, such as batch counts, the first state's."""
    first = states[0]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in first.items()
    }


def greedy_soup(states: Sequence[State], score: Callable[[dict[str, Tensor]], Any]) -> Soup:
    """Begin with the best state; add each other, the best first, if the mean with it is at least as good.

    Of states with equal scores the earlier one comes first.
    """
    alone = [score(dict(state)) for state in states]
    order = sorted(range(len(states)), key=lambda number: alone[number], reverse=True)
    soup = Soup(state=dict(states[order[0]]), members=(order[0],), score=alone[order[0]])
    for number in order[1:]:
        members = (*soup.members, number)
        mixed = averaged([states[member] for member in members])
        if (found := score(mixed)) >= soup.score:
            soup = Soup(state=mixed, members=members, score=found)
    return soup
