"""What every batch job does around its own step: books, cluster, progress, tracking, and the verdict at the end.

begin -> pending units -> [one row = one unit: the step, on a worker] -> receipts -> manifest -> books -> _SUCCESS
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Protocol, TypeVar

import yaml

from pipelines import cluster
from pipelines.cluster import WorkerNeeds
from pipelines.config import JobConfig
from pipelines.progress import Progress
from pipelines.units import UnitFailure, UnitStep, run_units
from vtray import __version__
from vtray.errors import ConfigError, TooManyFailures, UnfinishedUnits
from vtray.manifest import MANIFEST, Json, Ledger, Plan, Receipt, canonical
from vtray.sources import Source, Unit, encode_units, open_source
from vtray.storage import absolute_uri, open_storage
from vtray.tracking import Tracker, TrackingTarget

log = logging.getLogger(__name__)

REPORT, CONFIG = "_vtray/report.json", "_vtray/config.yaml"


class Report(Protocol):
    """What a finished job says of itself."""

    @property
    def status(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def examples(self) -> tuple[str, ...]: ...

    def table(self) -> str: ...
    def to_json(self) -> Json: ...
    def metrics(self) -> dict[str, float]: ...


R = TypeVar("R", bound=Report)
CODECS = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg")  # they make the bytes


class Job(Protocol[R]):
    """A job that is ready to run: its input, plan and step, and what it makes of its receipts.

    Everything is known, nothing is started or written.
    """

    @property
    def config(self) -> JobConfig: ...
    @property
    def source(self) -> Source: ...
    @property
    def units(self) -> tuple[Unit, ...]: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def step(self) -> UnitStep: ...
    @property
    def output_uri(self) -> str: ...
    @property
    def places(self) -> tuple[str, ...]:
        """Every address that workers open."""

    @property
    def needs(self) -> WorkerNeeds:
        """What one worker of this job takes from the cluster."""

    @property
    def facts(self) -> Json:
        """What the manifest says besides files and totals."""

    def report(self, manifest: Json, receipts: Sequence[Receipt], *, seconds: float) -> R:
        """The report of a finished run; no receipts: it was finished before."""

    def records(self, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """Files of the job's own beside the manifest: key in the output -> bytes."""

    def preview(self, report: R, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """Pictures and the page that shows them: file name -> bytes."""


def open_input(config: JobConfig) -> Source:
    """List the input and say what was passed over. Raises: InputError, ConfigError, StorageError."""
    source = open_source(absolute_uri(config.input.uri), format=config.input.format, layout=config.input.layout)
    if source.skipped:
        log.warning("%s: %s files are no images, such as %s", source.uri, source.skipped, source.skipped_example)
    return source


def require_apart(config: JobConfig) -> None:
    """Raises: ConfigError if the output would lie inside the input, where the next run would read it."""
    source, output = absolute_uri(config.input.uri), absolute_uri(config.output.uri)
    if f"{output}/".startswith(f"{source}/"):
        raise ConfigError(f"output.uri: {output} is inside the input {source}; choose a place outside")


def library_versions(names: Sequence[str] = CODECS) -> dict[str, str]:
    """Whose code makes the output's bytes: library -> installed version."""
    return {name: version(name) for name in names} | {"vtray": __version__}


def allowed_failures(config: JobConfig, num_images: int) -> int:
    """How many images may fail; exact also where the product is a little below a whole number (0.29 of 100)."""
    return math.floor(config.max_failed * num_images + 1e-9)


def run(job: Job[R], *, started: float) -> R:
    """Do what is not done yet, finish the output and report; a finished output is left untouched.

    started: time.monotonic() of the command. Raises: VtrayError; TooManyFailures and UnfinishedUnits after all
    other units are done.
    """
    ledger = Ledger(open_storage(job.output_uri))
    ledger.begin(job.plan, lambda: encode_units(job.units), replan=job.config.replan)
    done = ledger.done()
    pending = [unit for unit in job.units if unit.unit_id not in done]
    if not pending and ledger.is_complete():
        manifest = ledger.read_json(MANIFEST) or {}
        return job.report(manifest, (), seconds=time.monotonic() - started)
    if pending and len(pending) < len(job.units):
        ledger.require_versions(job.plan)
    ledger.log({"event": "start", "time": time.time(), "units": len(job.units), "pending": len(pending)})
    with tracked(job.config, job.plan, ledger) as tracker:
        failures = _work(job, pending, tracker) if pending else []
        report, preview = _finish(job, ledger, failures, started=started)
        tracker.log_metrics(report.metrics(), step=report.images)
        books = {"manifest.json": ledger.storage.read(MANIFEST), "config.yaml": config_yaml(job.config)}
        tracker.log_artifacts(books | preview)
        if report.status != "complete":
            log.warning("%s", report.table())
        _judge(report, job)
    return report


@contextmanager
def tracked(config: JobConfig, plan: Plan, ledger: Ledger, *, under: Tracker | None = None) -> Iterator[Tracker]:
    """The MLflow run of a job; its status says how the block ended. under: the tracker of the run above it."""
    target = TrackingTarget(
        uri=config.tracking.uri, experiment=config.tracking.experiment, run_name=config.run_name or plan.job
    )
    tracker = Tracker(target, ledger, plan.config | {"fingerprint": plan.fingerprint}, under=under)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


def _work(job: Job[R], pending: Sequence[Unit], tracker: Tracker) -> list[UnitFailure]:
    """Send the pending units to the cluster and count what comes back."""
    connected = cluster.connect(job.config.cluster)
    workers = cluster.workers_for(connected, job.config.num_workers, job.needs)
    cluster.require_shared_paths(connected, job.places, shared=job.config.shared_paths)
    failures: list[UnitFailure] = []
    digests = {unit.unit_id: job.plan.unit_digest(unit.unit_id) for unit in pending}
    num_images = len(job.source.refs)
    done = num_images - sum(unit.num_images for unit in pending)
    with Progress(total=num_images, done=done) as progress:
        for outcome in run_units(pending, job.step, digests, workers=workers):
            if isinstance(outcome, UnitFailure):
                failures.append(outcome)
                continue
            if progress.advance(images=outcome.num_images, failed=outcome.num_failed):
                metrics = {"images_per_s": progress.rate, "failed": float(progress.failed)}
                tracker.log_metrics(metrics, step=progress.done)
    return failures


def _finish(
    job: Job[R], ledger: Ledger, failures: Sequence[UnitFailure], *, started: float
) -> tuple[R, dict[str, bytes]]:
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
    allowed = allowed_failures(job.config, len(job.source.refs))
    manifest = ledger.finish(job.plan, job.facts, complete=num_failed <= allowed)
    report = job.report(manifest, receipts, seconds=time.monotonic() - started)
    ledger.storage.put(REPORT, canonical(report.to_json()))
    for key, content in job.records(receipts).items():
        ledger.storage.put(key, content)
    preview = job.preview(report, receipts)
    for name, content in preview.items():
        ledger.storage.put(f"preview/{name}", content)
    ledger.storage.put(CONFIG, config_yaml(job.config))
    if manifest["status"] == "complete":
        ledger.mark_complete()
    ledger.log({"event": manifest["status"], "time": time.time(), "totals": manifest["totals"]})
    return report, preview


def config_yaml(config: JobConfig) -> bytes:
    """What `--config` reads to repeat the run from any folder."""
    return yaml.safe_dump(config.from_anywhere(), sort_keys=False, allow_unicode=True).encode()


def _judge(report: R, job: Job[R]) -> None:
    if report.status != "complete":
        raise TooManyFailures(
            f"{report.failed} of {report.images} images failed, max_failed={job.config.max_failed} allows "
            f"{allowed_failures(job.config, report.images)}; such as {'; '.join(report.examples[:3])}; "
            f"see {job.output_uri}/quarantine, then raise max_failed, or mend the input and use --set replan=true"
        )
