"""What a finished predict run says of itself: images per class and cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from pipelines.classify import added
from vtray.manifest import Json, Receipt
from vtray.report.document import most_first
from vtray.report.numbers import count_text, seconds_text, share_text

MOST_CLASSES = 10  # of the table; the page shows all


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """Totals of an output, and what this run took.

    rows_by_class: predicted class -> images. phase_seconds: added up over all workers and earlier runs; without
    receipts only the totals are known.
    """

    status: str
    output: str
    images: int
    failed: int
    bytes: int
    rows_by_class: dict[str, int]
    failures: dict[str, int]
    examples: tuple[str, ...]
    phase_seconds: dict[str, float]
    seconds: float
    nothing_to_do: bool

    @classmethod
    def of(cls, manifest: Json, receipts: Sequence[Receipt], *, output: str, seconds: float) -> Self:
        """From the manifest and the receipts of a run; no receipts: it was finished before."""
        totals = manifest["totals"]
        return cls(
            status=manifest["status"],
            output=output,
            images=totals["images"],
            failed=totals["failed"],
            bytes=totals["bytes"],
            rows_by_class=manifest["rows_by_class"],
            failures=manifest["failures"],
            examples=tuple(example for receipt in receipts for example in receipt.examples),
            phase_seconds=added([receipt.seconds for receipt in receipts]),
            seconds=round(seconds, 3),
            nothing_to_do=not receipts,
        )

    def to_json(self) -> Json:
        """The report as JSON values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """The numbers that MLflow keeps."""
        totals = {"images": self.images, "failed": self.failed, "classes_found": len(self.rows_by_class)}
        phases = {f"seconds_{name}": value for name, value in self.phase_seconds.items()}
        return {name: float(value) for name, value in totals.items()} | {"seconds": self.seconds} | phases

    def table(self) -> str:
        """A short table for the terminal, and where to look."""
        lines = [
            ("status", f"{self.status}, nothing to do" if self.nothing_to_do else self.status),
            ("images", f"{self.images:,} ({self.failed:,} failed)"),
            *self._classes(),
            ("time", seconds_text(self.seconds)),
            *((f"failed: {reason}", f"{count:,}") for reason, count in self.failures.items()),
            ("rows", f"{self.output}/data"),
            ("look at", f"{self.output}/preview/index.html"),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)

    def _classes(self) -> list[tuple[str, str]]:
        """Images per predicted class, the most frequent first."""
        ordered = most_first(self.rows_by_class)
        rows = sum(self.rows_by_class.values())
        lines = [
            (f"as {name}", f"{count_text(count)}  {share_text(count, rows)}")
            for name, count in ordered[:MOST_CLASSES]
        ]
        rest = ordered[MOST_CLASSES:]
        if rest:
            lines.append((f"as {len(rest)} more", count_text(sum(count for _, count in rest))))
        return lines
