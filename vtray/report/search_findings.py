"""What the page of a search tells, in plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("complete", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial. lr, depth: where it lies on the map; depth is the number of frozen stages, depth_name its name.

    values: key -> value, as shown. curve: top-1 on val after each epoch, a share. top1: of the epoch that counts,
    None for a failed trial. seconds: of its epochs. reason: of a failure.
    """

    name: str
    lr: float
    depth: int
    values: Mapping[str, str]
    status: str
    curve: tuple[float, ...]
    top1: float | None
    seconds: float
    attempts: int = 1
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """A cache: name, what it holds in words, seconds of work."""

    name: str
    contents: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """A trial that was trained in full; top1: on val."""

    name: str
    top1: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchFindings:
    """Everything on the page; what is empty has no section.

    best: name of the winning trial; the first of `trials` is the default. stages: names, in order. epochs: of a
    trial that is not stopped. caches_s, trials_s, uncached_s: seconds of work. model_top1: on val, of the model;
    members: names of the trials whose weights it averages, or the only one. command: repeats the winner;
    again: repeats the search.
    """

    title: str
    output: str
    best: str
    trials: tuple[TrialRow, ...]
    stages: tuple[str, ...]
    epochs: int
    command: str
    again: str
    status: str = "complete"
    trained: tuple[TrainedRow, ...] = ()
    members: tuple[str, ...] = ()
    model_top1: float | None = None
    caches: tuple[CostRow, ...] = ()
    caches_s: float = 0.0
    trials_s: float = 0.0
    uncached_s: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def winner(self) -> TrialRow:
        return next(trial for trial in self.trials if trial.name == self.best)
