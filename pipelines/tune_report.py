"""What a finished search says of itself: as a table, as JSON and for MLflow."""

from dataclasses import asdict, dataclass

from vtray.manifest import Json
from vtray.report.numbers import seconds_text


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """The model of a search and how it was found.

    best: name of the winning trial, with its values. trial_top1: of that trial on val; default_top1: of trial 0,
    None if it failed. val_top1, val_loss: of the model, trained in full. members: trials in the soup, or the one.
    cost: see SearchCost. seconds: of this run, on the clock; search_s: those of them for caches and trials.
    """

    status: str
    output: str
    model: str
    backbone: str
    classes: int
    images: int
    failed: int
    examples: tuple[str, ...]
    trials: int
    stopped: int
    trials_failed: int
    best: str
    values: Json
    trial_top1: float
    default_top1: float | None
    refits: tuple[str, ...]
    members: tuple[int, ...]
    val_top1: float
    val_loss: float
    cost: Json
    command: str
    search_s: float
    seconds: float
    nothing_to_do: bool = False

    def to_json(self) -> Json:
        """The report as JSON values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """The numbers that MLflow keeps for the run as a whole."""
        names = ("trials", "stopped", "trials_failed", "trial_top1", "val_top1", "val_loss", "search_s", "seconds")
        found = {f"final_{name}": float(getattr(self, name)) for name in names}
        return found | {f"final_cost_{name}": float(value) for name, value in self.cost.items()}

    def table(self) -> str:
        """A short table for the terminal, and where to look."""
        if self.nothing_to_do:
            return f"nothing to do: {self.output} is finished; {self._result()}\nmodel: {self.model}"
        lines = {
            "best": f"{self.best}: {', '.join(f'{key} {value}' for key, value in self.values.items())}",
            "trials": f"{self.trials}, {self.stopped} stopped early, {self.trials_failed} failed",
            "search": self._cost(),
            "trained": self._trained(),
            "took": f"{seconds_text(self.seconds)}, {seconds_text(self.search_s)} of it for the search",
            "model": self.model,
            "page": f"{self.output}/report/index.html",
            "repeat": self.command,
        }
        head = f"{self.status}: {self.backbone} for {self.classes} classes, {self._result()}"
        return "\n".join([head, *(f"  {name:<10}{value}" for name, value in lines.items())])

    def _cost(self) -> str:
        cost = self.cost
        return (
            f"{seconds_text(cost['total'])} of work ({seconds_text(cost['caches'])} for caches), "
            f"{100 * cost['share']:.0f} % of the {seconds_text(cost['uncached'])} without stored rows and stopping"
        )

    def _trained(self) -> str:
        others = f" of {', '.join(self.refits)}" if len(self.refits) > 1 else ""
        if len(self.members) > 1:
            return f"the average of trials {', '.join(f'{number:04}' for number in self.members)}{others}"
        return f"{self.members[0]:04}{others}, in full: top-1 {100 * self.val_top1:.1f} % on val"

    def _result(self) -> str:
        default = "failed" if self.default_top1 is None else f"{100 * self.default_top1:.1f} %"
        return f"trial {self.best} with top-1 {100 * self.trial_top1:.1f} % on val (default: {default})"
