"""The prefix cache: activations at the frozen boundary, computed once on the cluster for epochs, runs and trials.

units of train and val -> [one row = one unit: CacheUnit on a worker] -> receipts -> manifest -> _SUCCESS -> some
images compared with the direct forward pass. Nothing is tracked or reported: that is the training's.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from pipelines import batch, cluster, units
from pipelines.cluster import WorkerNeeds
from pipelines.config import JobConfig
from pipelines.prefix_cache_check import CacheCheck
from pipelines.progress import Progress
from pipelines.units import UnitFailure
from vtray.augment.recipe import Recipe
from vtray.classify.activations import Activations, DType
from vtray.classify.backbone import Classifier
from vtray.classify.prefix import (
    CacheWork,
    Precision,
    activation_shape,
    cache_key,
    cached_boundary,
    encode_prefix,
    row_bytes,
)
from vtray.classify.preprocessing import Preprocessing
from vtray.errors import ConfigError, InputError, PlanMismatch, TooManyFailures, UnfinishedUnits
from vtray.images import MAX_PIXELS
from vtray.manifest import MANIFEST, Json, Ledger, Plan, Receipt, canonical, sha256
from vtray.report.numbers import bytes_text
from vtray.sources import ImageRef, Source, Unit, encode_units
from vtray.steps.cache_unit import OVERFLOW, PREFIX, CacheUnit, Device
from vtray.storage import absolute_uri, join_uri, open_storage

log = logging.getLogger("vtray.cache")

JOB = "prefix_cache"
LIBRARIES = (*batch.CODECS, "torch", "torchvision")
PROCESS_BYTES = 700_000_000  # Python with Ray and torch before an image is read, as for stylize
FEW_CROPS = 512  # images that this process crops in less time than workers take to start
FILE_BYTES = 64 << 20  # a worker holds its file a few times over


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """What to cache and where. root: of all caches; each has a folder of its own below.

    num_frozen: leading frozen stages. recipe and views: augmented views of training images, 0 for none; `seed` of
    the config draws them. dtype: of the rows, auto is fp16 if the activations fit, else bf16. splits: of the
    images that are cached; None for those without one, which count as training images. num_workers: processes
    that compute, one per CPU by default; here: this process does. local: the folder of each
    machine to which a cache on S3 is copied; default: one below its temporary folder.
    """

    root: str
    num_frozen: int
    preprocessing: Preprocessing
    recipe: Recipe | None = None
    views: int = 0
    dtype: DType | Literal["auto"] = "auto"
    num_workers: int | None = None
    here: bool = False
    precision: Precision = "fp32"
    device: Device = "cpu"
    splits: tuple[str | None, ...] = ("train", "val", None)
    max_pixels: int = MAX_PIXELS
    local: str | None = None


@dataclass(frozen=True, kw_only=True)
class PrefixCache:
    """A finished cache that was compared with the direct forward pass.

    start: what `Classifier.forward` takes for its rows. shape: of one row. num_made: images computed by this
    build. num_failed: images in quarantine, which have no rows. num_checked, max_difference: of the comparison,
    relative to an image's largest activation.
    """

    uri: str
    start: int
    dtype: DType
    shape: tuple[int, ...]
    num_images: int
    num_failed: int
    num_made: int
    num_bytes: int
    num_checked: int
    max_difference: float
    seconds: float
    local: str | None

    def open(self, split: str | None) -> Activations:
        """The rows of one split, in memory or mapped, on the machine where this is called: `Activations.load`."""
        return Activations.load(self.uri, split, local=self.local)

    def __str__(self) -> str:
        made = f"{self.num_made} of {self.num_images} images computed in {self.seconds:.1f} s"
        return (
            f"prefix cache {self.uri}: {made}, {bytes_text(self.num_bytes)} of {self.dtype}; {self.num_checked} "
            f"images compared with the direct forward pass, largest difference {self.max_difference:.1e}"
        )


def cache_bytes(spec: CacheSpec, source: Source, classifier: Classifier) -> int:
    """What the rows of this cache take on disk; costs one forward pass. Raises: ConfigError, InputError."""
    work = _work(spec, classifier, seed=0, dtype="fp16")
    num_rows = sum(len(work.views_of(ref.split)) for ref in _cached_refs(spec, source))
    return num_rows * row_bytes(classifier, work.boundary, work.preprocessing)


def build(spec: CacheSpec, source: Source, classifier: Classifier, *, config: JobConfig) -> PrefixCache:
    """Compute what is not there yet, finish the cache and compare images of it with the direct forward pass.

    The classifier's weights up to the boundary are those of the cache; it is left as it was.
    Raises: ConfigError, InputError; TooManyFailures, UnfinishedUnits; StorageError if the comparison fails.
    """
    started = time.monotonic()
    job = _job(spec, source, classifier, config)
    try:
        manifest, num_made = _complete(job)
    except _TooLarge as error:
        if spec.dtype != "auto":
            raise
        log.info("%s: the cache is made in bf16 instead", error)
        job = _with_dtype(job, "bf16")
        manifest, num_made = _complete(job)
    num_checked, max_difference = job.check.compare(job.uri, local=spec.local)
    cache = PrefixCache(
        uri=job.uri,
        start=job.work.boundary,
        dtype=job.work.dtype,
        shape=tuple(manifest["shape"]),
        num_images=manifest["totals"]["images"],
        num_failed=manifest["totals"]["failed"],
        num_made=num_made,
        num_bytes=manifest["totals"]["bytes"],
        num_checked=num_checked,
        max_difference=max_difference,
        seconds=time.monotonic() - started,
        local=spec.local,
    )
    log.info("%s", cache)
    return cache


class _TooLarge(ConfigError):
    """fp16 cannot hold an activation."""


# what is to be done ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """A cache that is to be completed, and the classifier whose prefix it is of."""

    spec: CacheSpec
    work: CacheWork
    config: JobConfig
    source: Source
    classifier: Classifier
    refs: tuple[ImageRef, ...]

    @cached_property
    def uri(self) -> str:
        key = cache_key(self.work, input_uri=self.source.uri, splits=self.spec.splits)
        return join_uri(absolute_uri(self.spec.root), key)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return activation_shape(self.classifier, self.work.boundary, self.work.preprocessing)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Cut so that a unit's file stays within FILE_BYTES, unless one image alone is more."""
        rows = 1 + self.work.views
        image_bytes = rows * row_bytes(self.classifier, self.work.boundary, self.work.preprocessing)
        fitting = 1 << (max(1, FILE_BYTES // image_bytes).bit_length() - 1)
        max_images = min(fitting, self.config.units.images_for(len(self.refs), rows))
        cut = replace(self.source, refs=self.refs)
        return tuple(cut.units(max_bytes=self.config.units.max_bytes, max_images=max_images))

    @cached_property
    def plan(self) -> Plan:
        digests = {unit.unit_id: unit.digest for unit in self.units}
        images = {"uri": self.source.uri, "images": len(self.refs), "content": sha256(canonical(digests))}
        return Plan(
            job=JOB,
            work=self.work.describe() | {"input": images},
            config=self.config.without_secrets().model_dump(mode="json"),
            versions=batch.library_versions(LIBRARIES),
            units=digests,
        )

    @property
    def check(self) -> CacheCheck:
        unit = Unit(unit_id="drawn", format=self.source.format, refs=self.refs)
        return CacheCheck(work=self.work, classifier=self.classifier, images=unit, seed=self.config.seed)

    @property
    def needs(self) -> WorkerNeeds:
        if self.spec.device == "cuda":
            return WorkerNeeds(gpus=1)
        return WorkerNeeds(cpus=1, memory_bytes=PROCESS_BYTES + 3 * FILE_BYTES)


def _cached_refs(spec: CacheSpec, source: Source) -> tuple[ImageRef, ...]:
    refs = tuple(ref for ref in source.refs if ref.split in spec.splits)
    if not refs:
        wanted = ", ".join(map(str, spec.splits))
        raise InputError(f"{source.uri}: no image to cache; looked for those of the splits {wanted}")
    return refs


def _work(spec: CacheSpec, classifier: Classifier, *, seed: int, dtype: DType) -> CacheWork:
    boundary = cached_boundary(classifier, spec.num_frozen)
    return CacheWork(
        backbone=classifier.backbone if boundary else "",  # crops are the same for all
        boundary=boundary,
        prefix_sha256=sha256(encode_prefix(classifier, boundary)),
        preprocessing=spec.preprocessing,
        recipe=spec.recipe,
        views=spec.views,
        seed=seed,
        dtype=dtype,
        precision=spec.precision,
        max_pixels=spec.max_pixels,
    )


def _job(spec: CacheSpec, source: Source, classifier: Classifier, config: JobConfig) -> _Job:
    """The job with a definite dtype: fp16 if a sample says that it is wide enough and no earlier run otherwise."""
    dtype: DType = "fp16" if spec.dtype == "auto" else spec.dtype
    if spec.num_frozen == 0:
        dtype = "uint8"
    job = _Job(
        spec=spec,
        work=_work(spec, classifier, seed=config.seed, dtype=dtype),
        config=config,
        source=source,
        classifier=classifier,
        refs=_cached_refs(spec, source),
    )
    if dtype != "fp16" or spec.dtype != "auto":
        return job
    if open_storage(job.uri).exists(OVERFLOW) or not job.check.fits_fp16():
        return _with_dtype(job, "bf16")
    return job


def _with_dtype(job: _Job, dtype: DType) -> _Job:
    return replace(job, work=replace(job.work, dtype=dtype))


# doing it --------------------------------------------------------------------------------------------------------


def _complete(job: _Job) -> tuple[Json, int]:
    """Do what is not done yet; returns the manifest and how many images were computed now."""
    ledger = Ledger(open_storage(job.uri))
    pending = _begin(ledger, job)
    if not pending and ledger.is_complete():
        return ledger.read_json(MANIFEST) or {}, 0
    failures = _run(job, ledger, pending) if pending else []
    if failures:
        _raise_unfinished(job, ledger, failures)
    num_made = sum(unit.num_images for unit in pending)
    if ledger.is_complete():  # another driver was faster, and perhaps trains on it already
        return ledger.read_json(MANIFEST) or {}, num_made
    return _finish(job, ledger), num_made


def _begin(ledger: Ledger, job: _Job) -> list[Unit]:
    """Make this the cache's plan, keeping the units that fit it; returns those that are to be done."""
    try:
        ledger.begin(job.plan, lambda: encode_units(job.units))
        if not ledger.is_complete():
            ledger.require_versions(job.plan)
    except PlanMismatch:  # changed images, or half made by other libraries: a cache may drop what it has
        ledger.begin(job.plan, lambda: encode_units(job.units), replan=True)
    done = ledger.done()
    return [unit for unit in job.units if unit.unit_id not in done]


def _run(job: _Job, ledger: Ledger, pending: Sequence[Unit]) -> list[UnitFailure]:
    if job.work.boundary:
        ledger.storage.put(PREFIX, encode_prefix(job.classifier, job.work.boundary))
    ledger.storage.delete(OVERFLOW)
    failures: list[UnitFailure] = []
    done = len(job.refs) - sum(unit.num_images for unit in pending)
    log.info("prefix cache: %s of %s images to compute", len(job.refs) - done, len(job.refs))
    with Progress(total=len(job.refs), done=done) as progress:
        for outcome in _outcomes(job, pending):
            if isinstance(outcome, UnitFailure):
                failures.append(outcome)
            else:
                progress.advance(images=outcome.num_images, failed=outcome.num_failed)
    return failures


def _outcomes(job: _Job, pending: Sequence[Unit]) -> Iterator[Receipt | UnitFailure]:
    """Do the units: here if that was asked for or sooner done than workers would be there, else on the cluster."""
    step = CacheUnit(work=job.work, output_uri=job.uri, device=job.spec.device)
    digests = {unit.unit_id: job.plan.unit_digest(unit.unit_id) for unit in pending}
    few = job.work.boundary == 0 and sum(unit.num_images for unit in pending) <= FEW_CROPS
    if job.spec.here or few:
        return (step(unit, digests[unit.unit_id]) for unit in pending)
    connected = cluster.connect(job.config.cluster)
    workers = cluster.workers_for(connected, job.spec.num_workers, job.needs)
    places = (job.source.uri, job.uri)
    cluster.require_shared_paths(connected, places, shared=job.config.shared_paths)
    return units.run_units(pending, step, digests, workers=workers)


def _raise_unfinished(job: _Job, ledger: Ledger, failures: Sequence[UnitFailure]) -> None:
    too_large = ledger.read_json(OVERFLOW)
    if too_large is not None:
        image_id, dtype = too_large["image_id"], too_large["dtype"]
        raise _TooLarge(f"cache.dtype {dtype}: {image_id} has an activation that is too large; use bf16 or auto")
    raise UnfinishedUnits(
        f"prefix cache: {len(failures)} of {len(job.units)} units are not done, such as {failures[0].unit}: "
        f"{failures[0].message}; run the same command again"
    )


def _finish(job: _Job, ledger: Ledger) -> Json:
    """Write the manifest. Raises: TooManyFailures."""
    receipts = ledger.receipts(sorted(job.plan.units))
    num_failed = sum(receipt.num_failed for receipt in receipts)
    allowed = batch.allowed_failures(job.config, len(job.refs))
    complete = num_failed <= allowed and num_failed < len(job.refs)
    facts = {"start": job.work.boundary, "dtype": job.work.dtype, "shape": list(job.shape)}
    manifest = ledger.finish(job.plan, facts, complete=complete)
    if not complete:
        examples = [example for receipt in receipts for example in receipt.examples]
        raise TooManyFailures(
            f"prefix cache: {num_failed} of {len(job.refs)} images failed, max_failed={job.config.max_failed} "
            f"allows {allowed}; such as {'; '.join(examples[:3])}"
        )
    ledger.mark_complete()
    return manifest
