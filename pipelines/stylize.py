"""Stylize: a catalog of images in, the same catalog in the style of a painting out.

open_source, units -> styles, weights -> plan -> [one row = one unit: StylizeUnit on a worker] -> receipts -> books
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pipelines import batch, cluster
from pipelines.cluster import WorkerNeeds
from pipelines.machine import gpu_here
from pipelines.stylize_config import StylizeConfig
from pipelines.stylize_preview import Shown, preview
from pipelines.stylize_report import StylizeReport
from pipelines.stylize_work import JOB, read_masks, with_layers, with_numerics, work_of
from vtray.manifest import PLAN, Json, Ledger, Plan, Receipt, canonical, sha256
from vtray.report.records import encode_records
from vtray.sources import Source, Unit
from vtray.steps.file_names import FileNames
from vtray.steps.stylize_unit import Device, StylizeUnit, load_engine
from vtray.storage import absolute_uri, join_uri, open_storage
from vtray.style.work import StyleWork
from vtray.weights import TORCHVISION

RECORDS = "_vtray/records.parquet"
LIBRARIES = (*batch.CODECS, "torch")
PROCESS_BYTES = 700_000_000  # Python with Ray and torch before an image is read (measured; partly shared)
ONE_GPU = WorkerNeeds(gpus=1)  # its threads wait for the GPU, so it takes one CPU


@dataclass(frozen=True, kw_only=True)
class StylizeJob:
    """A config and its input, ready to run by `batch.run`."""

    config: StylizeConfig
    source: Source
    units: tuple[Unit, ...]
    step: StylizeUnit
    plan: Plan

    @property
    def work(self) -> StyleWork:
        return self.step.work

    @property
    def output_uri(self) -> str:
        return self.step.output_uri

    @property
    def num_images(self) -> int:
        return len(self.source.refs)

    @property
    def needs(self) -> WorkerNeeds:
        """On a CPU with the memory of the largest image that is worked on whole; this loads the network."""
        if self.step.device == "cuda":
            return ONE_GPU
        return WorkerNeeds(cpus=self.work.threads, memory_bytes=PROCESS_BYTES + _working_bytes(self.work))

    @property
    def places(self) -> tuple[str, ...]:
        folders = [mask.uri for mask in self.step.masks if mask and mask.image is None]
        weights = [uri for uri in (self.work.features.weights_uri,) if not uri.startswith(TORCHVISION)]
        return (self.source.uri, self.output_uri, *weights, *folders)

    @property
    def facts(self) -> Json:
        return {"classes": list(self.source.classes)}

    def report(self, manifest: Json, receipts: Sequence[Receipt], *, seconds: float) -> StylizeReport:
        return StylizeReport.of(manifest, receipts, output=self.output_uri, seconds=seconds)

    def records(self, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """One row per stylized image."""
        return {RECORDS: encode_records(record for receipt in receipts for record in receipt.records)}

    def preview(self, report: StylizeReport, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """The contact sheets and the page that shows them: file name -> bytes."""
        shown = Shown(
            units=self.units,
            records=[record for receipt in receipts for record in receipt.records],
            work=self.work,
            plan=self.plan,
            output_uri=self.output_uri,
            max_pixels=self.config.max_pixels,
            command=f"vtray stylize --config {join_uri(self.output_uri, batch.CONFIG)}",
        )
        return preview(shown, report)


def prepare(config: StylizeConfig, *, has_gpu: Callable[[], bool]) -> StylizeJob:
    """List the catalog, read the styles, make everything definite and check it, before anything is written.

    has_gpu is asked only if neither the config nor an output that was begun says where to compute.
    Raises: InputError, ConfigError, WeightsError, StorageError.
    """
    source = batch.open_input(config)
    ledger = Ledger(open_storage(absolute_uri(config.output.uri)))
    plan = ledger.read_json(PLAN)
    if plan is None:
        ledger.refuse_foreign()
    work, device = _definite(config, plan, has_gpu)
    ids = (ref.image_id for ref in source.refs)
    step = StylizeUnit(
        work=work,
        device=device,
        masks=read_masks(config.style),
        names=FileNames.of(ids, input_format=source.format, output_format=config.output.format),
        output_uri=ledger.storage.uri,
        quality=config.output.quality,
        colour=config.colour,
        max_pixels=config.max_pixels,
    )
    units = tuple(source.units(max_bytes=config.units.max_bytes, max_images=_images_per_unit(config, source)))
    return StylizeJob(
        config=config, source=source, units=units, step=step, plan=_plan(config, source, units, step)
    )


def _images_per_unit(config: StylizeConfig, source: Source) -> int:
    return config.units.bound_for(len(source.refs), batch=config.engine.batch)


def _definite(config: StylizeConfig, plan: Json | None, has_gpu: Callable[[], bool]) -> tuple[StyleWork, Device]:
    """The work with nothing left open, and where it is computed.

    An output that was begun keeps what `auto` became then; if the network is the same, it is not even loaded.
    """
    work, definite = work_of(config, plan)
    if not definite:
        work = with_layers(work, config.features)
        load_engine(work, "cpu")  # what is wrong is told before a cluster starts
    device = _device(config, plan) or ("cuda" if has_gpu() else "cpu")
    return work if definite else _measured(work, config, device), device


def _working_bytes(work: StyleWork) -> int:
    """What a worker on CPUs holds at most while it works on a square image."""
    side = work.optimize.size_px
    engine = load_engine(work, "cpu")
    return engine.bytes_for(side, side) * engine.batch


def _device(config: StylizeConfig, plan: Json | None) -> Device | None:
    """Where the config or the begun output says to compute: the last bits of pixels depend on it."""
    if config.use_gpu is not None:
        return "cuda" if config.use_gpu else "cpu"
    if plan is None or plan["job"] != JOB:
        return None
    return "cuda" if plan["work"]["device"] == "cuda" else "cpu"


def _measured(work: StyleWork, config: StylizeConfig, device: Device) -> StyleWork:
    """The work with what `auto` stands for, measured here, or on a node with a GPU if there is none here."""
    if not config.features.is_open:
        return work
    measure = partial(with_numerics, work, config.features, device=device)
    if device == "cpu" or gpu_here():
        return measure()
    return cluster.call_on_a_worker(measure, cluster.connect(config.cluster), ONE_GPU)


def _plan(config: StylizeConfig, source: Source, units: Sequence[Unit], step: StylizeUnit) -> Plan:
    """What decides the output's bytes goes into `work`; workers, tracking and limits on failures do not."""
    work = step.work.describe()
    del work["features"]["weights_uri"]  # the hash says which weights, wherever they are
    work |= {
        "device": step.device,
        "masks": [mask and mask.version for mask in step.masks],
        "output": {"format": config.output.format, "quality": config.output.quality},
        "colour": config.colour,
        "max_pixels": config.max_pixels,
        "input": {
            "uri": source.uri,
            "version": source.version,
            "images": len(source.refs),
            "units": config.units.model_dump() | {"max_images": _images_per_unit(config, source)},
        },
    }
    return Plan(
        job=JOB,
        work=work,
        config=config.without_secrets().model_dump(mode="json"),
        versions=batch.library_versions(LIBRARIES),
        units={unit.unit_id: _unit_digest(unit, step.names) for unit in units},
    )


def _unit_digest(unit: Unit, names: FileNames) -> str:
    """The unit's objects, and the names of those results that other images of the input decide with."""
    instead = {ref.image_id: names.instead[ref.image_id] for ref in unit.refs if ref.image_id in names.instead}
    return sha256(canonical([unit.digest, instead])) if instead else unit.digest


def run(config: StylizeConfig) -> StylizeReport:
    """Do what is not done yet and finish the output, see `batch.run`. Raises: VtrayError."""
    started = time.monotonic()
    batch.require_apart(config)
    job = prepare(config, has_gpu=lambda: cluster.connect(config.cluster).num_gpus >= 1)
    return batch.run(job, started=started)
