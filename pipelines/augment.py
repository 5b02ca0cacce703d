"""Augment: labelled images in, shards of augmented images with their provenance out.

open_source -> units -> plan -> ledger -> [one row = one unit: AugmentUnit on a worker] -> receipts -> manifest
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from pipelines import batch
from pipelines.cluster import ONE_CPU, WorkerNeeds
from pipelines.config import JobConfig, OutputConfig
from pipelines.preview import SHEETS, preview_sheets
from pipelines.report import AugmentReport
from vtray.augment.recipe import Recipe
from vtray.augment.variants import AugmentWork, Colour
from vtray.errors import ConfigError, ImageError, StorageError
from vtray.images import MAX_PIXELS
from vtray.manifest import Json, Plan, Receipt
from vtray.report.page import Preview, preview_page
from vtray.shards import OutputFormat
from vtray.sources import Source, Unit
from vtray.steps.augment_unit import AugmentUnit
from vtray.storage import absolute_uri, join_uri

log = logging.getLogger(__name__)


class ShardsConfig(OutputConfig):
    """Where shards go, and of which kind they are."""

    format: OutputFormat = Field("parquet", description="kind of the data files")


class AugmentConfig(JobConfig, Recipe):
    """`vtray augment`: the keys of every job, and those of a recipe."""

    output: ShardsConfig
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
    """A config and its input, ready to run by `batch.run`."""

    config: AugmentConfig
    source: Source
    units: tuple[Unit, ...]
    step: AugmentUnit
    plan: Plan

    @property
    def needs(self) -> WorkerNeeds:
        return ONE_CPU

    @property
    def output_uri(self) -> str:
        return self.step.output_uri

    @property
    def places(self) -> tuple[str, ...]:
        return self.source.uri, self.output_uri

    @property
    def num_images(self) -> int:
        return len(self.source.refs)

    @property
    def num_rows(self) -> int:
        """Rows that will be written if no image fails."""
        return sum(len(self.step.work.variants(ref.split)) for ref in self.source.refs)

    @property
    def facts(self) -> Json:
        return {"classes": list(self.source.classes), "recipe_digest": self.step.work.recipe.digest}

    def report(self, manifest: Json, receipts: Sequence[Receipt], *, seconds: float) -> AugmentReport:
        return AugmentReport.of(manifest, receipts, output=self.output_uri, seconds=seconds)

    def records(self, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """None: the provenance is in the shards."""
        return {}

    def preview(self, report: AugmentReport, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """The contact sheets and the page that shows them: file name -> bytes."""
        try:
            sheets = preview_sheets(self.units, self.step)
        except (ImageError, StorageError, ValueError) as error:
            log.warning("no contact sheets: %s", error)
            sheets = {}
        return sheets | {"index.html": preview_page(_page(self, report)).encode()}


def prepare(config: AugmentConfig) -> AugmentJob:
    """List the input, cut it into units and make the plan. Raises: InputError, ConfigError, StorageError."""
    source = batch.open_input(config)
    _require_known_split(source, config)
    units = tuple(_cut(source, config))
    step = AugmentUnit(
        work=work_of(config),
        classes=source.classes,
        output_uri=absolute_uri(config.output.uri),
        output_format=config.output.format,
    )
    return AugmentJob(config=config, source=source, units=units, step=step, plan=_plan(config, source, units))


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
        config=config.without_secrets().model_dump(mode="json"),
        versions=batch.library_versions(),
        units={unit.unit_id: unit.digest for unit in units},
    )


def run(config: AugmentConfig) -> AugmentReport:
    """Do what is not done yet and finish the output, see `batch.run`. Raises: VtrayError."""
    started = time.monotonic()
    batch.require_apart(config)
    return batch.run(prepare(config), started=started)


def _page(job: AugmentJob, report: AugmentReport) -> Preview:
    """What the page of a finished run tells."""
    return Preview(
        job=job.plan.job,
        output=report.output,
        status=report.status,
        totals={"images": report.images, "failed": report.failed, "rows": report.rows, "bytes": report.bytes},
        command=f"vtray augment --config {join_uri(report.output, batch.CONFIG)}",
        fingerprint=job.plan.fingerprint,
        rows_by_class=report.rows_by_class,
        failures=report.failures,
        examples=report.examples,
        seconds=report.phase_seconds,
        sheets=SHEETS,
        versions=job.plan.versions,
    )
