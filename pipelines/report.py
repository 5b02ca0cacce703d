"""What a finished augment run says of itself: for people as a table, for programs as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from vtray.manifest import Json, Receipt


@dataclass(frozen=True, kw_only=True)
class AugmentReport:
    """Totals of an output, and what this run took. `phase_seconds` adds up over all workers and earlier runs."""

    status: str
    output: str
    images: int
    failed: int
    rows: int
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
        phases: Counter[str] = Counter()  # adds floats as well
        for receipt in receipts:
            phases.update(receipt.seconds)
        return cls(
            status=manifest["status"],
            output=output,
            images=totals["images"],
            failed=totals["failed"],
            rows=totals["rows"],
            bytes=totals["bytes"],
            rows_by_class=manifest["rows_by_class"],
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
        totals = {"images": self.images, "failed": self.failed, "rows": self.rows, "bytes": self.bytes}
        phases = {f"seconds_{name}": value for name, value in self.phase_seconds.items()}
        return {name: float(value) for name, value in totals.items()} | {"seconds": self.seconds} | phases

    def table(self) -> str:
        """A short table for the terminal, and where to look."""
        lines = [
            ("status", f"{self.status}, nothing to do" if self.nothing_to_do else self.status),
            ("images", f"{self.images:,} ({self.failed:,} failed)"),
            ("rows", f"{self.rows:,} in {self.bytes / 1e6:,.1f} MB"),
            ("classes", str(len(self.rows_by_class)) if self.rows_by_class else "none (unlabelled)"),
            ("time", f"{self.seconds:.1f} s"),
            *((f"failed: {reason}", f"{count:,}") for reason, count in self.failures.items()),
            ("shards", f"{self.output}/data"),
            ("look at", f"{self.output}/preview/index.html"),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)
