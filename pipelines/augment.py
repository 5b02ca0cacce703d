"""Augment: labelled images in, shards of augmented images with their provenance out.

open_source -> units -> plan -> ledger -> [one row = one unit: AugmentUnit on a worker] -> receipts -> manifest
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from pydantic import Field

from pipelines import cluster
from pipelines.config import JobConfig
from pipelines.preview import SHEETS, preview_sheets
from pipelines.progress import Progress
from pipelines.report import AugmentReport
from pipelines.units import UnitFailure, run_units
from vtray import __version__, settings
from vtray.augment.recipe import Recipe
from vtray.augment.variants import AugmentWork, Colour
from vtray.errors import ConfigError, TooManyFailures, UnfinishedUnits
from vtray.images import MAX_PIXELS
from vtray.manifest import MANIFEST, Json, Ledger, Plan, canonical
from vtray.report.page import Preview, preview_page
from vtray.sources import Source, Unit, encode_units, open_source
from vtray.steps.augment_unit import AugmentUnit
from vtray.storage import absolute_uri, join_uri, open_storage
from vtray.tracking import Tracker, TrackingTarget

REPORT, CONFIG = "_vtray/report.json", "_vtray/config.yaml"
CODECS = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg")  # they make the bytes


class AugmentConfig(JobConfig, Recipe):
    """`vtray augment`: the keys of every job, and those of a recipe."""

    augment_splits: tuple[str, ...] = Field(
        ("train",), description="splits that get variants; others keep their originals only; no split: all do"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are quarantined unread")
    background: Colour = Field((255, 255, 255), description="RGB shown through transparent pixels")

    @property
    def recipe(self) -> Recipe:
        """The part that decides the pixels."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})


@dataclass(frozen=True, kw_only=True)
class AugmentJob:
    """A config and its input, ready to run: everything is known, nothing is started or written."""

    config: AugmentConfig
    source: Source
    units: tuple[Unit, ...]
    step: AugmentUnit
    plan: Plan

    @property
    def num_images(self) -> int:
        return len(self.source.refs)

    @property
    def num_rows(self) -> int:
        """Rows that will be written if no image fails."""
        return sum(len(self.step.work.variants(ref.split)) for ref in self.source.refs)


def prepare(config: AugmentConfig) -> AugmentJob:
    """List the input, cut it into units and make the plan. Raises: InputError, ConfigError, StorageError."""
    _require_apart(config)
    source = open_source(absolute_uri(config.input.uri), format=config.input.format, layout=config.input.layout)
    units = tuple(_cut(source, config))
    step = AugmentUnit(
        work=work_of(config),
        classes=source.classes,
        output_uri=absolute_uri(config.output.uri),
        output_format=config.output.format,
    )
    return AugmentJob(config=config, source=source, units=units, step=step, plan=_plan(config, source, units))


def _require_apart(config: AugmentConfig) -> None:
    """Raises: ConfigError if the output would lie inside the input, where the next run would read it."""
    source, output = absolute_uri(config.input.uri), absolute_uri(config.output.uri)
    if f"{output}/".startswith(f"{source}/"):
        raise ConfigError(f"output.uri: {output} is inside the input {source}; choose a place outside")


def work_of(config: AugmentConfig) -> AugmentWork:
    """What is made of every image."""
    return AugmentWork(
        recipe=config.recipe,
        seed=config.seed,
        augment_splits=config.augment_splits,
        max_pixels=config.max_pixels,
        background=config.background,
    )


def _cut(source: Source, config: AugmentConfig) -> Sequence[Unit]:
    return source.units(max_bytes=config.units.max_bytes, max_images=config.units.images_for(len(source.refs)))


def _plan(config: AugmentConfig, source: Source, units: Sequence[Unit]) -> Plan:
    """What decides the output's bytes goes into `work`; workers, tracking and limits on failures do not."""
    keys = {
        "seed",
        "operators",
        "variants",
        "keep_original",
        "image",
        "augment_splits",
        "max_pixels",
        "background",
    }
    work = config.model_dump(mode="json", include=keys) | {
        "input": {
            "uri": source.uri,
            "version": source.version,
            "images": len(source.refs),
            "units": config.units.model_dump() | {"max_images": config.units.images_for(len(source.refs))},
        },
        "classes": list(source.classes),
        "output_format": config.output.format,
    }
    return Plan(
        job="augment",
        work=work,
        config=config.model_dump(mode="json"),
        versions={name: version(name) for name in CODECS} | {"vtray": __version__},
        units={unit.unit_id: unit.digest for unit in units},
    )


def run(config: AugmentConfig) -> AugmentReport:
    """Do what is not done yet, finish the output and report; a finished output is left untouched.

    Raises: VtrayError; TooManyFailures and UnfinishedUnits after all other units are done.
    """
    started = time.monotonic()
    job = prepare(config)
    ledger = Ledger(open_storage(job.step.output_uri))
    ledger.begin(job.plan, lambda: encode_units(job.units), replan=config.replan)
    done = ledger.done()
    pending = [unit for unit in job.units if unit.unit_id not in done]
    if not pending and ledger.is_complete():
        manifest = ledger.read_json(MANIFEST) or {}
        return AugmentReport.of(manifest, (), output=job.step.output_uri, seconds=time.monotonic() - started)
    if pending and len(pending) < len(job.units):
        ledger.require_versions(job.plan)
    ledger.log({"event": "start", "time": time.time(), "units": len(job.units), "pending": len(pending)})
    with _tracked(job, ledger) as tracker:
        failures = _work(job, pending, tracker) if pending else []
        report, preview = _finish(job, ledger, failures, seconds=time.monotonic() - started)
        tracker.log_metrics(report.metrics(), step=report.images)
        books = {"manifest.json": ledger.storage.read(MANIFEST), "config.yaml": settings.dump(config).encode()}
        tracker.log_artifacts(books | preview)
        _judge(report, config)
    return report


@contextmanager
def _tracked(job: AugmentJob, ledger: Ledger) -> Iterator[Tracker]:
    """The MLflow run of this job; its status says how the block ended."""
    config = job.config
    target = TrackingTarget(
        uri=config.tracking.uri, experiment=config.tracking.experiment, run_name=config.run_name or "augment"
    )
    tracker = Tracker(target, ledger, job.plan.config | {"fingerprint": job.plan.fingerprint})
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


def _work(job: AugmentJob, pending: Sequence[Unit], tracker: Tracker) -> list[UnitFailure]:
    """Send the pending units to the cluster and count what comes back."""
    connected = cluster.connect(job.config.cluster)
    workers = cluster.workers_for(connected, job.config.num_workers)
    cluster.require_shared_paths(connected, [job.source.uri, job.step.output_uri], shared=job.config.shared_paths)
    failures: list[UnitFailure] = []
    digests = {unit.unit_id: job.plan.unit_digest(unit.unit_id) for unit in pending}
    done = job.num_images - sum(unit.num_images for unit in pending)
    with Progress(total=job.num_images, done=done) as progress:
        for outcome in run_units(pending, job.step, digests, workers=workers):
            if isinstance(outcome, UnitFailure):
                failures.append(outcome)
                continue
            if progress.advance(images=outcome.num_images, failed=outcome.num_failed):
                metrics = {"images_per_s": progress.rate, "failed": float(progress.failed)}
                tracker.log_metrics(metrics, step=progress.done)
    return failures


def _finish(
    job: AugmentJob, ledger: Ledger, failures: Sequence[UnitFailure], *, seconds: float
) -> tuple[AugmentReport, dict[str, bytes]]:
    """Write manifest, report and preview; returns the report and the files of the preview.

    Raises: UnfinishedUnits if units have no receipt.
    """
    if failures:
        raise UnfinishedUnits(
            f"{len(failures)} of {len(job.units)} units are not done, such as {failures[0].unit}: "
            f"{failures[0].message}; run the same command again"
        )
    receipts = ledger.receipts(sorted(job.plan.units))
    num_failed = sum(receipt.num_failed for receipt in receipts)
    facts: Json = {"classes": list(job.source.classes), "recipe_digest": job.step.work.recipe.digest}
    manifest = ledger.finish(job.plan, facts, complete=num_failed <= job.config.max_failed * job.num_images)
    report = AugmentReport.of(manifest, receipts, output=job.step.output_uri, seconds=seconds)
    ledger.storage.put(REPORT, canonical(report.to_json()))
    preview = _preview(job, report)
    for name, content in preview.items():
        ledger.storage.put(f"preview/{name}", content)
    ledger.storage.put(CONFIG, settings.dump(job.config).encode())
    ledger.log({"event": manifest["status"], "time": time.time(), "totals": manifest["totals"]})
    return report, preview


def _preview(job: AugmentJob, report: AugmentReport) -> dict[str, bytes]:
    """The contact sheets and the page that shows them: file name -> bytes."""
    page = Preview(
        job="augment",
        output=report.output,
        status=report.status,
        totals={"images": report.images, "failed": report.failed, "rows": report.rows, "bytes": report.bytes},
        command=f"vtray augment --config {join_uri(report.output, CONFIG)}",
        fingerprint=job.plan.fingerprint,
        rows_by_class=report.rows_by_class,
        failures=report.failures,
        examples=report.examples,
        seconds=report.phase_seconds,
        sheets=SHEETS,
        versions=job.plan.versions,
    )
    return preview_sheets(job.units, job.step) | {"index.html": preview_page(page).encode()}


def _judge(report: AugmentReport, config: AugmentConfig) -> None:
    if report.status != "complete":
        raise TooManyFailures(
            f"{report.failed} of {report.images} images failed, max_failed={config.max_failed} allows "
            f"{int(config.max_failed * report.images)}; such as {'; '.join(report.examples[:3])}; "
            f"see {report.output}/quarantine, then mend the input or raise max_failed and run again"
        )
