"""What a finished training says of itself: as a table, as JSON and for MLflow."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from vtray.classify.training import BEST_BY, best_epoch, plain
from vtray.manifest import Json


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """A model and how it came about. val_top1, val_loss: of the kept epoch (from 0). failed: broken images."""

    status: str
    output: str
    model: str
    backbone: str
    classes: int
    images: int
    failed: int
    examples: tuple[str, ...]
    epochs: int
    kept_epoch: int
    val_top1: float
    val_loss: float
    temperature: float
    lr: float
    precision: str
    layout: str
    images_per_s: float
    head_reused: int
    frozen_sha256: str
    seconds: float
    nothing_to_do: bool = False

    def to_json(self) -> Json:
        """The report as JSON values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """The numbers that MLflow keeps for the run as a whole."""
        names = (
            "images",
            "failed",
            "kept_epoch",
            "val_top1",
            "val_loss",
            "temperature",
            "images_per_s",
            "seconds",
        )
        return {f"final_{name}": float(getattr(self, name)) for name in names}

    def table(self) -> str:
        """A short table for the terminal, and where to look."""
        if self.nothing_to_do:
            return f"nothing to do: {self.output} is finished; {self._result()}\nmodel: {self.model}"
        return "\n".join(
            [
                f"{self.status}: {self.backbone} for {self.classes} classes, {self._result()}",
                f"  trained on  {self.images} images, {self.failed} of them broken, in {self.epochs} epochs",
                f"  arithmetic  {self.precision} {self.layout}, {self.images_per_s:.0f} images/s",
                f"  lr          {self.lr:.2e}",
                f"  took        {self.seconds:.0f} s",
                f"  model       {self.model}",
                f"  page        {self.output}/report/index.html",
            ]
        )

    def _result(self) -> str:
        kept = f"epoch {self.kept_epoch + 1} of {self.epochs}"
        return f"top-1 {100 * self.val_top1:.1f} % on the validation images ({kept})"


def training_facts(history: Sequence[Json], *, keep: str) -> Json:
    """What the epochs say: which one is kept, how good it was, how fast they were."""
    kept = best_epoch(list(history)) if keep == "best" else len(history) - 1
    speeds = sorted(plain(record).get("images_per_s", 0.0) for record in history)
    return {
        "epochs": len(history),
        "kept_epoch": kept,
        "val_top1": history[kept][BEST_BY],
        "val_loss": history[kept]["val_loss"],
        "images_per_s": speeds[len(speeds) // 2],
        "frozen_sha256": next((r["frozen_sha256"] for r in reversed(history) if "frozen_sha256" in r), ""),
    }
