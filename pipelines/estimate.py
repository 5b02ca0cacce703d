"""What an augment run will cost, from its plan and a probe of a few images; nothing is written or started."""

import time
from dataclasses import dataclass, replace

from pipelines.augment import AugmentJob
from vtray.report.numbers import seconds_text
from vtray.seeding import digest_of
from vtray.steps.worker import prepare_worker

PROBE_IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The plan in numbers; seconds are of one CPU and include reading, not the start of a cluster."""

    images: int
    units: int
    classes: int
    rows: int
    probed: int
    probe_failed: int
    cpu_seconds: float
    bytes: int

    def table(self) -> str:
        """For the terminal."""
        lines = {
            "images": f"{self.images:,} in {self.units:,} units, {self.classes} classes",
            "rows": f"{self.rows:,}, about {self.bytes / 1e6:,.1f} MB",
            "cost": f"about {seconds_text(self.cpu_seconds)} of one CPU (from {self.probed} images)",
            "failing": f"{self.probe_failed} of the {self.probed} probed images",
        }
        return "\n".join(f"  {name:<9}{value}" for name, value in lines.items())


def estimate(job: AugmentJob) -> Estimate:
    """Run the step in this process on a few images spread over the input."""
    prepare_worker()
    refs = sorted(job.source.refs, key=lambda ref: digest_of("probe", ref.image_id))[:PROBE_IMAGES]
    unit = replace(job.units[0], refs=tuple(sorted(refs, key=lambda ref: ref.image_id)))
    start = time.perf_counter()
    made = job.step.make(unit)
    seconds = time.perf_counter() - start
    size = sum(len(row.image) for row in made.rows)
    return Estimate(
        images=job.num_images,
        units=len(job.units),
        classes=len(job.source.classes),
        rows=job.num_rows,
        probed=len(refs),
        probe_failed=len(made.quarantine),
        cpu_seconds=seconds / len(refs) * job.num_images,
        bytes=round(size / max(len(made.rows), 1) * job.num_rows),
    )
