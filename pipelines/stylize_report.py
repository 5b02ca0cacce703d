"""What a finished stylize run says of itself: losses and cost, as a table, as JSON and for MLflow."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from vtray.manifest import Json, Receipt
from vtray.report.numbers import number_text, seconds_text
from vtray.report.records import TERMS, Record, kinds_of_warnings, relative_loss

PERCENTILES = {"p10": 10, "p50": 50, "p90": 90}


@dataclass(frozen=True, kw_only=True)
class StylizeReport:
    """Totals of an output, and what this run took.

    steps: of all images. loss: mean and percentiles of the total loss, after / before; style_loss: the same of the
    style term. losses: term -> median before and after. seconds_per_image: mean and p90 of the engine's time.
    hours_per_1000: worker-hours for 1,000 images, with all that is done around the engine; None if no image was
    stylized. warnings: kind -> images. phase_seconds: added up over all workers and earlier runs. Without receipts
    only the totals are known.
    """

    status: str
    output: str
    images: int
    failed: int
    bytes: int
    steps: int
    loss: dict[str, float]
    style_loss: dict[str, float]
    losses: dict[str, dict[str, float]]
    seconds_per_image: dict[str, float]
    hours_per_1000: float | None
    warnings: dict[str, int]
    failures: dict[str, int]
    examples: tuple[str, ...]
    phase_seconds: dict[str, float]
    seconds: float
    nothing_to_do: bool

    @classmethod
    def of(cls, manifest: Json, receipts: Sequence[Receipt], *, output: str, seconds: float) -> Self:
        """From the manifest and the receipts of a run; no receipts: it was finished before."""
        totals = manifest["totals"]
        records = [record for receipt in receipts for record in receipt.records]
        phases = _added(receipt.seconds for receipt in receipts)
        return cls(
            status=manifest["status"],
            output=output,
            images=totals["images"],
            failed=totals["failed"],
            bytes=totals["bytes"],
            steps=sum(record["steps"] for record in records),
            loss=spread(relative_loss(record) for record in records),
            style_loss=spread(relative_loss(record, "style") for record in records),
            losses=_medians(records),
            seconds_per_image=spread((record["seconds"] for record in records), {"p90": 90}),
            hours_per_1000=round(sum(phases.values()) / 3600 / len(records) * 1000, 6) if records else None,
            warnings=count_warnings(records),
            failures=manifest["failures"],
            examples=tuple(example for receipt in receipts for example in receipt.examples),
            phase_seconds={name: round(value, 3) for name, value in phases.items()},
            seconds=round(seconds, 3),
            nothing_to_do=not receipts,
        )

    def to_json(self) -> Json:
        """The report as JSON values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """The numbers that MLflow keeps."""
        totals = {"images": self.images, "failed": self.failed, "bytes": self.bytes, "steps": self.steps}
        found = {name: float(value) for name, value in totals.items()} | {"seconds": self.seconds}
        found |= {f"loss_{name}": value for name, value in self.loss.items()}
        found |= {f"style_loss_{name}": value for name, value in self.style_loss.items()}
        found |= {f"seconds_per_image_{name}": value for name, value in self.seconds_per_image.items()}
        found |= {f"seconds_{name}": value for name, value in self.phase_seconds.items()}
        found["warnings"] = float(sum(self.warnings.values()))
        return found if self.hours_per_1000 is None else found | {"hours_per_1000_images": self.hours_per_1000}

    def table(self) -> str:
        """A short table for the terminal, and where to look."""
        lines = [
            ("status", f"{self.status}, nothing to do" if self.nothing_to_do else self.status),
            ("images", f"{self.images:,} ({self.failed:,} failed)"),
            *self._measured(),
            ("time", seconds_text(self.seconds)),
            *(("warned", f"{count:,}: {kind}") for kind, count in self.warnings.items()),
            *((f"failed: {reason}", f"{count:,}") for reason, count in self.failures.items()),
            ("results", f"{self.output}/data"),
            ("look at", f"{self.output}/preview/index.html"),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)

    def _measured(self) -> list[tuple[str, str]]:
        """Loss and cost; nothing where no image was stylized."""
        lines = []
        if self.loss:
            low, middle, high = (number_text(self.loss[name]) for name in PERCENTILES)
            lines.append(("loss", f"{middle} of what it was (8 of 10 images: {low} to {high})"))
        if self.seconds_per_image and self.hours_per_1000 is not None:
            mean, p90 = (seconds_text(self.seconds_per_image[name]) for name in ("mean", "p90"))
            hours = number_text(self.hours_per_1000)
            lines.append(("cost", f"{mean} an image (p90 {p90}); {hours} worker-hours for 1,000 images"))
        return lines


def spread(values: Iterable[float], percentiles: Mapping[str, int] = PERCENTILES) -> dict[str, float]:
    """mean and percentiles of the finite values, to six decimals; empty if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return {}
    found = {"mean": float(np.mean(finite))}
    found |= {name: float(np.percentile(finite, percent)) for name, percent in percentiles.items()}
    return {name: round(value, 6) for name, value in found.items()}


def count_warnings(records: Iterable[Record]) -> dict[str, int]:
    """Images by kind of warning, sorted by kind."""
    kinds = Counter(kind for record in records for kind in kinds_of_warnings(record))
    return dict(sorted(kinds.items()))


def _medians(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Median losses, in significant digits: terms differ by orders of magnitude."""
    if not records:
        return {}
    return {
        term: {when: _median([record[f"{term}_{when}"] for record in records]) for when in ("before", "after")}
        for term in TERMS
    }


def _median(values: Sequence[float]) -> float:
    return float(f"{float(np.median(values)):.6g}")


def _added(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    added: Counter[str] = Counter()  # adds floats as well
    for count in counts:
        added.update(count)
    return dict(added)
