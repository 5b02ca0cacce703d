"""What predict and evaluate share: the model opened and checked, where it is computed, and the plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines import batch, cluster
from pipelines.classify_config import ClassifyConfig
from pipelines.cluster import WorkerNeeds
from vtray.classify.model_dir import Model, load_model
from vtray.manifest import PLAN, Json, Ledger, Plan
from vtray.sources import Source, Unit
from vtray.steps.classify_unit import ClassifyUnit, Device
from vtray.storage import absolute_uri, join_uri, open_storage

LIBRARIES = (*batch.CODECS, "torch", "torchvision")
PROCESS_BYTES = 900_000_000  # Python with Ray, torch and decoded images (measured: 790 MB; partly shared)
BYTES_PER_PIXEL = 768  # of a crop: the widest maps of a network (measured: 150 squeezenet1_1 to 545 vgg11)
ONE_GPU = WorkerNeeds(gpus=1)  # its threads wait for the GPU, so it takes one CPU


@dataclass(frozen=True, kw_only=True)
class ClassifyJob:
    """A config, its model and its input, with all that `batch.run` asks of every job but the reports."""

    config: ClassifyConfig
    model: Model
    source: Source
    units: tuple[Unit, ...]
    step: ClassifyUnit
    plan: Plan

    @property
    def output_uri(self) -> str:
        return self.step.output_uri

    @property
    def places(self) -> tuple[str, ...]:
        return self.source.uri, self.output_uri, self.step.model_uri

    @property
    def needs(self) -> WorkerNeeds:
        if self.step.device == "cuda":
            return ONE_GPU
        weights = sum(tensor.nbytes for tensor in self.model.classifier.state_dict().values())
        crops = self.step.batch * self.model.preprocessing.crop_px**2 * BYTES_PER_PIXEL
        return WorkerNeeds(cpus=self.step.threads, memory_bytes=PROCESS_BYTES + 2 * weights + crops)

    @property
    def facts(self) -> Json:
        return {"classes": list(self.model.classes)}

    @property
    def command(self) -> str:
        """The line that repeats the run."""
        return f"vtray {self.plan.job} --config {join_uri(self.output_uri, batch.CONFIG)}"


def step_of(config: ClassifyConfig, model: Model, *, has_gpu: Callable[[], bool]) -> ClassifyUnit:
    """The step of a prediction. has_gpu is asked if neither the config nor a begun output says where to compute.

    Raises: InputError if the output holds what vtray did not write; StorageError.
    """
    ledger = Ledger(open_storage(absolute_uri(config.output.uri)))
    plan = ledger.read_json(PLAN)
    if plan is None:
        ledger.refuse_foreign()
    return ClassifyUnit(
        model_uri=model.uri,
        model_digest=model.digest,
        device=_device(config, plan) or ("cuda" if has_gpu() else "cpu"),
        threads=config.threads,
        batch=config.batch,
        max_pixels=config.max_pixels,
        output_uri=ledger.storage.uri,
    )


def _device(config: ClassifyConfig, plan: Json | None) -> Device | None:
    """Where the config or the begun output says to compute: the last bits of rows depend on it."""
    if config.use_gpu is not None:
        return "cuda" if config.use_gpu else "cpu"
    device = plan and plan["work"].get("device")
    return device if device in ("cpu", "cuda") else None


def open_model(config: ClassifyConfig) -> Model:
    """The model of the config, read before a cluster starts. Raises: WeightsError, ConfigError, StorageError."""
    return load_model(config.model)


def cut(source: Source, config: ClassifyConfig) -> tuple[Unit, ...]:
    """The units of an input."""
    return tuple(source.units(max_bytes=config.units.max_bytes, max_images=_images_per_unit(config, source)))


def _images_per_unit(config: ClassifyConfig, source: Source) -> int:
    return config.units.images_for(len(source.refs), 1)


def work_of(config: ClassifyConfig, model: Model, source: Source, step: ClassifyUnit) -> Json:
    """What decides the bytes of the rows; workers, tracking and limits on failures do not."""
    return {
        "model": model.describe(),
        "device": step.device,
        "threads": step.threads,
        "batch": step.batch,
        "max_pixels": step.max_pixels,
        "input": {
            "uri": source.uri,
            "version": source.version,
            "images": len(source.refs),
            "units": config.units.model_dump() | {"max_images": _images_per_unit(config, source)},
        },
    }


def plan_of(job: str, config: ClassifyConfig, *, work: Json, digests: dict[str, str]) -> Plan:
    """The plan of a job; digests: unit id -> what its images are."""
    return Plan(
        job=job,
        work=work,
        config=config.without_secrets().model_dump(mode="json"),
        versions=batch.library_versions(LIBRARIES),
        units=digests,
    )


def gpu_in_cluster(config: ClassifyConfig) -> bool:
    """Whether the cluster has a GPU; connects to it."""
    return cluster.connect(config.cluster).num_gpus >= 1


def added(counts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds per phase of all units."""
    names = sorted({name for count in counts for name in count})
    return {name: round(sum(count.get(name, 0.0) for count in counts), 3) for name in names}
