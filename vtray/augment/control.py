"""Operators that choose among operators; the record shows only what was applied, not the choice.

Complete once `vtray.augment.catalogue` has been imported, which knows all operators.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from vtray.augment.fields import WholeRange
from vtray.augment.operator import Operator, Probability, Sample
from vtray.seeding import rng_for

if TYPE_CHECKING:
    from vtray.augment.catalogue import AnyOperator

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0)]


class _Control(Operator):
    """Base: child number i draws from its own generator, so later children never change its draws."""

    operators: tuple["AnyOperator", ...] = Field(min_length=1, description="the operators, in order")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Choose, then apply the chosen children in order; each appends its own record."""
        if self.p < 1 and rng.random() >= self.p:
            return sample
        key = int(rng.integers(2**63))
        for i in self.choose(rng):
            child = self.operators[i]
            sample = child(sample, rng_for(key, i, child.op))
        return sample

    def choose(self, rng: np.random.Generator) -> list[int]:
        """Numbers of the children to apply, ascending."""
        raise NotImplementedError


class Sometimes(_Control):
    """Applies all its operators, or none."""

    op: Literal["sometimes"] = "sometimes"
    p: Probability = Field(0.5, description="probability that the operators are applied")

    def choose(self, rng: np.random.Generator) -> list[int]:
        return list(range(len(self.operators)))


class OneOf(_Control):
    """Applies exactly one of its operators."""

    op: Literal["one_of"] = "one_of"
    weights: tuple[Weight, ...] | None = Field(
        None, description="how often each is chosen, relative to the others; null: equally often"
    )

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if self.weights is None:
            return self
        if len(self.weights) != len(self.operators):
            raise ValueError(f"{len(self.weights)} weights for {len(self.operators)} operators; give one for each")
        if sum(self.weights) == 0:
            raise ValueError("all weights are 0; give at least one operator a weight above 0")
        return self

    def choose(self, rng: np.random.Generator) -> list[int]:
        ends = np.cumsum(self.weights or [1.0] * len(self.operators))
        return [int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]


class SomeOf(_Control):
    """Applies some of its operators, chosen without repetition, in the order in which they are written."""

    op: Literal["some_of"] = "some_of"
    num: Number | WholeRange[Number] = Field(description="how many: one number, or fewest and most")

    @model_validator(mode="after")
    def _enough_operators(self) -> Self:
        most = self._limits()[1]
        if most > len(self.operators):
            raise ValueError(f"num {most} is above the {len(self.operators)} operators given; lower num")
        return self

    def choose(self, rng: np.random.Generator) -> list[int]:
        fewest, most = self._limits()
        num = int(rng.integers(fewest, most + 1))
        return sorted(rng.permutation(len(self.operators))[:num].tolist())

    def _limits(self) -> tuple[int, int]:
        return self.num if isinstance(self.num, tuple) else (self.num, self.num)
