"""What a predict or evaluate run will cost, from its plan and a probe of a few images; nothing is written."""

import time
from dataclasses import dataclass, replace

from pipelines.classify import ClassifyJob
from vtray.report.numbers import seconds_text
from vtray.seeding import digest_of
from vtray.steps.worker import prepare_worker

PROBE_IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The plan in numbers; seconds are of one worker and include reading, not the start of a cluster.

    passes: classifications under conditions, besides one of each image.
    """

    images: int
    units: int
    classes: int
    passes: int
    probed: int
    probe_failed: int
    seconds: float

    def table(self) -> str:
        """For the terminal."""
        more = f", and {self.passes:,} times under conditions" if self.passes else ""
        lines = {
            "images": f"{self.images:,} in {self.units:,} units, {self.classes} classes{more}",
            "cost": f"about {seconds_text(self.seconds)} of one worker (from {self.probed} images)",
            "failing": f"{self.probe_failed} of the {self.probed} probed images",
        }
        return "\n".join(f"  {name:<9}{value}" for name, value in lines.items())


def estimate(job: ClassifyJob) -> Estimate:
    """Run the step in this process on a few images spread over the input, without conditions."""
    prepare_worker()
    refs = sorted(job.source.refs, key=lambda ref: digest_of("probe", ref.image_id))[:PROBE_IMAGES]
    unit = replace(job.units[0], refs=tuple(sorted(refs, key=lambda ref: ref.image_id)))
    step = replace(job.step, checks=None)
    step.make(replace(unit, refs=unit.refs[:1]))  # loads the model
    start = time.perf_counter()
    made = step.make(unit)
    seconds = (time.perf_counter() - start) / len(refs)
    checks = job.step.checks
    passes = len(checks.sample) * len(checks.conditions) * len(checks.severities) if checks else 0
    once = made.clock.seconds().get("classify", 0.0) / len(refs)
    return Estimate(
        images=len(job.source.refs),
        units=len(job.units),
        classes=len(job.model.classes),
        passes=passes,
        probed=len(refs),
        probe_failed=len(made.quarantine),
        seconds=seconds * len(job.source.refs) + once * passes,
    )
