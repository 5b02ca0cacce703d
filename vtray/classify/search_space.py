"""What a search tries: the values of some keys of a training's config, drawn or enumerated as pure functions."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vtray.seeding import rng_for

Values = dict[str, Any]  # dotted key of the config -> value


class LogRange(BaseModel):
    """Numbers from low to high, both included, evenly spread on a logarithmic scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(gt=0, description="smallest value, above 0")
    high: float = Field(gt=0, description="largest value, above low")
    points: int = Field(4, ge=2, description="how many values a grid takes from the range")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    def at(self, share: float) -> float:
        """The value at `share` of the way, 0 to 1, to four significant digits: what is run is what is shown."""
        exact = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return min(self.high, max(self.low, float(f"{exact:.4g}")))

    def grid(self) -> tuple[float, ...]:
        """`points` values with equal ratios."""
        return tuple(self.at(place / (self.points - 1)) for place in range(self.points))


Axis = LogRange | tuple[Any, ...]
Space = Mapping[str, Axis]


def drawn(space: Space, *, seed: int, number: int) -> Values:
    """The values of trial `number`: a function of seed, number and key, whatever else is drawn."""
    return {key: _draw(axis, seed, number, key) for key, axis in space.items()}


def _draw(axis: Axis, seed: int, number: int, key: str) -> Any:
    rng = rng_for(seed, "trial", number, key)
    if isinstance(axis, LogRange):
        return axis.at(float(rng.uniform()))
    return axis[int(rng.integers(len(axis)))]


def grid(space: Space, *, seed: int) -> list[Values]:
    """Every combination, in an order shuffled by the seed, so that a part of the grid is spread over all of it."""
    axes = [axis.grid() if isinstance(axis, LogRange) else axis for axis in space.values()]
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
    return [every[place] for place in rng_for(seed, "grid").permutation(len(every)).tolist()]


def choices(space: Space, key: str) -> Sequence[Any]:
    """All values that a key can take, if there are finitely many."""
    axis = space.get(key, ())
    return () if isinstance(axis, LogRange) else axis
