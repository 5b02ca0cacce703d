"""What a finished evaluation says of itself: accuracy, calibration and robustness, for people and for programs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Self

from pipelines.classify import added
from vtray.manifest import Json, Receipt
from vtray.report.numbers import seconds_text

METRICS = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class EvaluateReport:
    """Totals of an output, what was measured, and what this run took.

    evaluated: images that were counted: all but those in quarantine. measured: the content of metrics.json, see
    `measures`. phase_seconds: added up over all workers and earlier runs.
    """

    status: str
    output: str
    images: int
    failed: int
    evaluated: int
    split: str
    measured: Json
    failures: dict[str, int]
    examples: tuple[str, ...]
    phase_seconds: dict[str, float]
    seconds: float
    nothing_to_do: bool

    @classmethod
    def of(cls, manifest: Json, receipts: Sequence[Receipt], *, output: str, seconds: float) -> Self:
        """From the manifest, with the measures as `measured`, and the receipts; none: it was finished before."""
        totals, measured = manifest["totals"], manifest["measured"]
        return cls(
            status=manifest["status"],
            output=output,
            images=totals["images"],
            failed=totals["failed"],
            evaluated=measured["evaluated"],
            split=manifest["split"],
            measured=measured,
            failures=manifest["failures"],
            examples=tuple(example for receipt in receipts for example in receipt.examples),
            phase_seconds=added([receipt.seconds for receipt in receipts]),
            seconds=round(seconds, 3),
            nothing_to_do=not receipts,
        )

    @property
    def top1(self) -> float:
        """Share of images whose first guess is right, 0 to 1; NaN of no images."""
        share = self.measured["top1"]
        return math.nan if share is None else float(share)

    def to_json(self) -> Json:
        """The report as JSON values; the measures are in metrics.json."""
        values = asdict(self)
        del values["measured"]
        return values | {name: self.measured[name] for name in ("top1", "top5", "nll", "ece", "calibrated")}

    def metrics(self) -> dict[str, float]:
        """The numbers that MLflow keeps."""
        found = {name: self.measured[name] for name in ("top1", "top5", "nll", "ece")}
        found |= {f"{name}_calibrated": value for name, value in self.measured["calibrated"].items()}
        found = {name: float(value) for name, value in found.items() if value is not None}
        found |= {f"top1_{name}": fmean(scores.values()) for name, scores in self._robustness().items()}
        totals = {"images": self.images, "failed": self.failed, "evaluated": self.evaluated}
        found |= {name: float(value) for name, value in totals.items()} | {"seconds": self.seconds}
        return found | {f"seconds_{name}": value for name, value in self.phase_seconds.items()}

    def _robustness(self) -> Mapping[str, Mapping[str, float]]:
        robustness: Mapping[str, Mapping[str, float]] = self.measured["robustness"]["top1"]
        return robustness

    def table(self) -> str:
        """A short table for the terminal, and where to look."""
        lines = [
            ("status", f"{self.status}, nothing to do" if self.nothing_to_do else self.status),
            (
                "evaluated",
                f"{self.evaluated:,} of {self.images:,} images of split {self.split}; {self.failed:,} failed",
            ),
            *self._measured(),
            ("time", seconds_text(self.seconds)),
            *((f"failed: {reason}", f"{count:,}") for reason, count in self.failures.items()),
            ("rows", f"{self.output}/data"),
            ("look at", f"{self.output}/preview/index.html"),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)

    def _measured(self) -> list[tuple[str, str]]:
        """Accuracy and calibration; nothing where no image could be read."""
        if not self.evaluated:
            return []
        measured, calibrated = self.measured, self.measured["calibrated"]
        lines = [("top-1", f"{100 * self.top1:.1f} %   top-5 {100 * measured['top5']:.1f} %")]
        ece = f"{measured['ece']:.3f}, {calibrated['ece']:.3f} at temperature {measured['temperature']:.2f}"
        lines.append(("calibration", f"ECE {ece}"))
        conditions = {name: fmean(scores.values()) for name, scores in self._robustness().items()}
        if conditions:
            worst = min(conditions, key=lambda name: conditions[name])
            mean = f"top-1 {100 * fmean(conditions.values()):.1f} % in bad light and worse images"
            lines.append(("robustness", f"{mean}; least under {worst}: {100 * conditions[worst]:.1f} %"))
        return lines
