"""Augment: labelled images in, shards of augmented images with their provenance out.

open_source -> units -> plan -> ledger -> [one row = one unit: AugmentUnit on a worker] -> receipts -> manifest
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import yaml
from pydantic import Field

from pipelines import cluster
from pipelines.config import JobConfig
from pipelines.preview import SHEETS, preview_sheets
from pipelines.progress import Progress
from pipelines.report import AugmentReport
from pipelines.units import UnitFailure, run_units
from vtray import __version__
from vtray.augment.recipe import Recipe
from vtray.augment.variants import AugmentWork, Colour
from vtray.errors import ConfigError, ImageError, StorageError, TooManyFailures, UnfinishedUnits
from vtray.images import MAX_PIXELS
from vtray.manifest import MANIFEST, Json, Ledger, Plan, canonical
from vtray.report.page import Preview, preview_page
from vtray.sources import Source, Unit, encode_units, open_source
from vtray.steps.augment_unit import AugmentUnit
from vtray.storage import absolute_uri, join_uri, open_storage
from vtray.tracking import Tracker, TrackingTarget, without_password

log = logging.getLogger(__name__)

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
    source = open_source(absolute_uri(config.input.uri), format=config.input.format, layout=config.input.layout)
    _require_known_split(source, config)
    if source.skipped:
        log.warning("%s: %s files are no images, such as %s", source.uri, source.skipped, source.skipped_example)
    units = tuple(_cut(source, config))
    step = AugmentUnit(
        work=work_of(config),
        classes=source.classes,
        output_uri=absolute_uri(config.output.uri),
        output_format=config.output.format,
    )
    return AugmentJob(config=config, source=source, units=units, step=step, plan=_plan(config, source, units))


def require_apart(config: AugmentConfig) -> None:
    """Raises: ConfigError if the output would lie inside the input, where the next run would read it."""
    source, output = absolute_uri(config.input.uri), absolute_uri(config.output.uri)
    if f"{output}/".startswith(f"{source}/"):
        raise ConfigError(f"output.uri: {output} is inside the input {source}; choose a place outside")


def _require_known_split(source: Source, config: AugmentConfig) -> None:
    """Raises: ConfigError if the input has splits and none of them is to get variants."""
    splits = {ref.split for ref in source.refs}
    if config.variants and None not in splits and not splits & set(config.augment_splits):
        names = ", ".join(sorted(filter(None, splits)))
        raise ConfigError(
            f"augment_splits: {list(config.augment_splits)} names no split of the input, which has {names}; "
            "name those that get variants"
        )


def work_of(config: AugmentConfig) -> AugmentWork:
    """What is made of every image."""
    return AugmentWork(
        recipe=config.recipe,
        seed=config.seed,
        augment_splits=config.augment_splits,
        max_pixels=config.max_pixels,
        background=config.background,
    )


def _images_per_unit(source: Source, config: AugmentConfig) -> int:
    return config.units.images_for(len(source.refs), config.variants + 1)


def _without_secrets(config: AugmentConfig) -> AugmentConfig:
    """The config as it may be stored: an MLflow address without its user and password."""
    if config.tracking.uri is None:
        return config
    bare = config.tracking.model_copy(update={"uri": without_password(config.tracking.uri)})
    return config.model_copy(update={"tracking": bare})


def _config_yaml(config: AugmentConfig) -> bytes:
    """What `--config` reads to repeat the run from any folder."""
    values = _without_secrets(config).model_dump(mode="json")
    for place in ("input", "output"):
        values[place]["uri"] = absolute_uri(values[place]["uri"])
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()


def _cut(source: Source, config: AugmentConfig) -> Sequence[Unit]:
    return source.units(max_bytes=config.units.max_bytes, max_images=_images_per_unit(source, config))


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
            "units": config.units.model_dump() | {"max_images": _images_per_unit(source, config)},
        },
        "classes": list(source.classes),
        "output_format": config.output.format,
    }
    return Plan(
        job="augment",
        work=work,
        config=_without_secrets(config).model_dump(mode="json"),
        versions={name: version(name) for name in CODECS} | {"vtray": __version__},
        units={unit.unit_id: unit.digest for unit in units},
    )


def run(config: AugmentConfig) -> AugmentReport:
    """Do what is not done yet, finish the output and report; a finished output is left untouched.

    Raises: VtrayError; TooManyFailures and UnfinishedUnits after all other units are done.
    """
    started = time.monotonic()
    require_apart(config)
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
        books = {"manifest.json": ledger.storage.read(MANIFEST), "config.yaml": _config_yaml(config)}
        tracker.log_artifacts(books | preview)
        if report.status != "complete":
            log.warning("%s", report.table())
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
    manifest = ledger.finish(job.plan, facts, complete=num_failed <= allowed_failures(job))
    report = AugmentReport.of(manifest, receipts, output=job.step.output_uri, seconds=seconds)
    ledger.storage.put(REPORT, canonical(report.to_json()))
    preview = _preview(job, report)
    for name, content in preview.items():
        ledger.storage.put(f"preview/{name}", content)
    ledger.storage.put(CONFIG, _config_yaml(job.config))
    if manifest["status"] == "complete":
        ledger.mark_complete()
    ledger.log({"event": manifest["status"], "time": time.time(), "totals": manifest["totals"]})
    return report, preview


def allowed_failures(job: AugmentJob) -> int:
    """How many images may fail; exact also where the product is a little below a whole number (0.29 of 100)."""
    return math.floor(job.config.max_failed * job.num_images + 1e-9)


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
    try:
        sheets = preview_sheets(job.units, job.step)
    except (ImageError, StorageError, ValueError) as error:
        log.warning("no contact sheets: %s", error)
        sheets = {}
    return sheets | {"index.html": preview_page(page).encode()}


def _judge(report: AugmentReport, config: AugmentConfig) -> None:
    if report.status != "complete":
        raise TooManyFailures(
            f"{report.failed} of {report.images} images failed, max_failed={config.max_failed} allows "
            f"{math.floor(config.max_failed * report.images + 1e-9)}; such as {'; '.join(report.examples[:3])}; "
            f"see {report.output}/quarantine, then raise max_failed, or mend the input and use --set replan=true"
        )
