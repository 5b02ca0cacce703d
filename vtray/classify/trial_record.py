"""What became of one trial of a search: its values, its curve, and how good it was."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from vtray.classify.search_space import Values
from vtray.classify.training import BEST_BY, best_epoch
from vtray.manifest import Json

Status = Literal["complete", "stopped", "failed"]
Metric = Literal["val_top1", "val_loss"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial that is over. digest: names its work. stopped: by the scheduler, before its last epoch.

    epochs: their records. attempts: how often it was begun. reason: of a failure, one line. finished: Unix time.
    """

    number: int
    digest: str
    values: Values
    frozen: int
    status: Status
    reason: str = ""
    attempts: int = 1
    epochs: tuple[Json, ...] = ()
    finished: float = 0.0
    keep: Literal["best", "last"] = field(default="best")

    @property
    def name(self) -> str:
        return trial_name(self.number)

    @property
    def kept(self) -> Json:
        """The record of the epoch that a training would keep; empty if there is none."""
        if not self.epochs or self.status == "failed":
            return {}
        return self.epochs[best_epoch(list(self.epochs)) if self.keep == "best" else -1]

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return sum(float(epoch["seconds"]) for epoch in self.epochs)

    def rank(self, metric: Metric) -> tuple[float, ...]:
        """Larger is better; of equal trials the earlier number, and so the default, comes first."""
        kept = self.kept
        return (*quality(kept, metric), -self.number) if kept else (-math.inf, -math.inf, -self.number)

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "epochs": tuple(values["epochs"])})


def trial_name(number: int) -> str:
    """0003"""
    return f"{number:04}"


def score(record: Mapping[str, Any], metric: Metric) -> float:
    """An epoch as one number, higher is better."""
    return float(record[BEST_BY]) if metric == BEST_BY else -float(record["val_loss"])


def quality(record: Mapping[str, Any], metric: Metric) -> tuple[float, float]:
    """An epoch by the metric and, where that is equal, by the other one; what is not finite is worst."""
    other: Metric = "val_loss" if metric == BEST_BY else "val_top1"
    first, second = (_finite(score(record, each)) for each in (metric, other))
    return first, second


def ranked(records: Sequence[TrialRecord], metric: Metric) -> list[TrialRecord]:
    """The trials that did not fail, the best first."""
    sound = [record for record in records if record.kept]
    return sorted(sound, key=lambda record: record.rank(metric), reverse=True)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
