"""A strategy as phases: which stages are frozen for how many epochs, and what the optimizer does meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vtray.classify.freezing import frozen_stages, window_stages

Strategy = Literal["full", "frozen", "linear_probe", "lp_ft", "scratch"]
NEW_HEAD_FACTOR = 10.0  # the lecture's: a new head learns ten times as fast as the backbone


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a training with one set of frozen stages. first_epoch counts from 0 over all phases."""

    name: str
    first_epoch: int
    epochs: int
    frozen: frozenset[int]
    head_lr_factor: float

    @property
    def last_epoch(self) -> int:
        return self.first_epoch + self.epochs - 1


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """What the phases are made from. freeze, window: as in `freezing`; a window goes before freeze."""

    strategy: Strategy
    epochs: int
    probe_epochs: int = 0
    freeze: int | str = "none"
    window: tuple[int | str, int | str] | None = None
    head_lr_factor: float | None = None
    head_is_new: bool = True

    def phases(self, stage_names: Sequence[str]) -> tuple[Phase, ...]:
        """One phase, or two for lp_ft. Raises: ConfigError for a stage that is not there."""
        everything = frozenset(range(len(stage_names)))
        frozen = (
            frozen_stages(stage_names, self.freeze)
            if self.window is None
            else window_stages(stage_names, self.window)
        )
        if self.strategy == "lp_ft":
            probe = self._phase("probe", 0, self.probe_epochs, everything, head_is_new=self.head_is_new)
            tuned = self.epochs - self.probe_epochs
            return probe, self._phase("tune", self.probe_epochs, tuned, frozen, head_is_new=False)
        frozen = everything if self.strategy == "linear_probe" else frozen
        is_new = self.head_is_new and self.strategy != "scratch"  # from scratch everything is new
        return (self._phase(self.strategy, 0, self.epochs, frozen, head_is_new=is_new),)

    def _phase(self, name: str, first: int, epochs: int, frozen: frozenset[int], *, head_is_new: bool) -> Phase:
        factor = self.head_lr_factor
        if factor is None:
            factor = NEW_HEAD_FACTOR if head_is_new else 1.0
        return Phase(name=name, first_epoch=first, epochs=epochs, frozen=frozen, head_lr_factor=factor)
