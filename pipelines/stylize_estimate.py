"""What a stylize run will cost, from image headers and a probe of one image; nothing is written or started.

Times are upper bounds as far as steps go: images end early where the loss no longer falls.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from pipelines import cluster
from pipelines.cluster import Cluster
from pipelines.machine import memory_bytes, this_machine
from pipelines.stylize import PROCESS_BYTES, StylizeJob
from pipelines.stylize_probe import Probe, Size, probe_device, probe_image
from vtray.errors import InputError
from vtray.report.numbers import bytes_text, number_text, seconds_text, share_text
from vtray.sources import ImageRef
from vtray.sources.peek import peek_sizes, sample_refs
from vtray.steps.stylize_unit import load_engine
from vtray.steps.worker import prepare_worker

if TYPE_CHECKING:  # the engine imports torch, which a rerun with nothing to do must not wait for
    from vtray.style.engines.optimize import OptimizeEngine

SAMPLED = 256
SHOWN_SIZES = 3


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What headers tell of some images. sizes: (full, working) of each that has one and is large enough.

    unreadable: images without a readable header. too_small: images that the network cannot take.
    """

    sizes: tuple[tuple[Size, Size], ...]
    unreadable: int
    too_small: int

    @property
    def number(self) -> int:
        return len(self.sizes) + self.unreadable + self.too_small

    @property
    def by_working_size(self) -> list[tuple[Size, int]]:
        """Working sizes and how many of the sampled images have each, the most frequent first."""
        counts = Counter(working for _, working in self.sizes)
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one worker at its largest image, of all workers on this machine, and those that this machine has.

    together is None where workers share no memory that is known: on other machines, and each on a GPU of its own.
    """

    worker: int
    together: int | None
    there: int
    on_gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The plan in numbers. seconds: of one worker for all images, if none of them ends early."""

    images: int
    units: int
    sample: Sample
    probe: Probe
    steps: tuple[int, ...]
    seconds: float
    workers: int
    where: str
    memory: Memory

    def table(self) -> str:
        """For the terminal."""
        lines = {
            "images": f"{self.images:,} in {self.units:,} units",
            "sizes": self._sizes(),
            "failing": self._failing(),
            "image": self._image(),
            "run": self._run(),
            "memory": self._memory(),
            "warning": self._warning(),
        }
        return "\n".join(f"  {name:<9}{value}" for name, value in lines.items() if value)

    def _sizes(self) -> str:
        sizes = self.sample.by_working_size
        shown = [f"{_times(size)} {share_text(count, self.sample.number)}" for size, count in sizes[:SHOWN_SIZES]]
        more = [f"{len(sizes) - SHOWN_SIZES} more"] if len(sizes) > SHOWN_SIZES else []
        source = "all headers" if self.sample.number == self.images else f"the headers of {self.sample.number}"
        return f"{', '.join(shown + more)} (as worked on; from {source})"

    def _failing(self) -> str:
        reasons = {"without a readable header": self.sample.unreadable, "too small": self.sample.too_small}
        found = [f"{count} {reason}" for reason, count in reasons.items() if count]
        return f"{' and '.join(found)} among {self.sample.number}" if found else ""

    def _image(self) -> str:
        steps = " + ".join(map(str, self.steps))
        step = f"{seconds_text(self.probe.step_s)} a step at {_times(self.probe.working)}"
        return f"{seconds_text(self.seconds / self.images)} on one worker: {steps} steps at most, {step} (probed)"

    def _run(self) -> str:
        hours = number_text(self.seconds / 3600)
        workers = f"{self.workers} worker{'s' * (self.workers > 1)} ({self.where})"
        return f"at most {seconds_text(self.seconds / self.workers)} on {workers}; {hours} worker-hours"

    def _memory(self) -> str:
        if self.memory.together is None:
            return f"about {bytes_text(self.memory.worker)}{' of its GPU' * self.memory.on_gpu} a worker"
        total, there = bytes_text(self.memory.together), bytes_text(self.memory.there)
        return f"about {bytes_text(self.memory.worker)} a worker, {total} in all, of {there}"

    def _warning(self) -> str:
        if self.memory.together is None or self.memory.together <= self.memory.there:
            return ""
        fitting = max(1, self.memory.there // self.memory.worker)
        return (
            f"{self.workers} workers may need more memory than there is; "
            f"use --set num_workers={fitting}, or a smaller engine.size_px or engine.batch"
        )


def estimate(job: StylizeJob) -> Estimate:
    """Look at headers, probe one image of the most frequent size and scale to the whole catalog.

    Raises: InputError if no image can be used; ConfigError, WeightsError, StorageError, ResourcesError.
    """
    prepare_worker()
    engine = load_engine(job.work, probe_device(job))
    refs = sample_refs(job.source.refs, SAMPLED)
    peeked = peek_sizes(refs)
    sample = sample_of(peeked.values(), engine)
    probe = probe_image(job, _most_frequent(refs, peeked, engine, sample)) if sample.sizes else None
    if probe is None:
        raise InputError(f"{job.source.uri}: none of the {sample.number} images looked at can be stylized")
    workers, where = _workers(job)
    good = job.num_images * len(sample.sizes) / sample.number
    return Estimate(
        images=job.num_images,
        units=len(job.units),
        sample=sample,
        probe=probe,
        steps=steps_of(engine, probe.working),
        seconds=good * mean(probe.seconds_for(*size, steps=_fine_steps(engine, size[1])) for size in sample.sizes),
        workers=workers,
        where=where,
        memory=_memory(job, engine, sample, workers=workers),
    )


def sample_of(sizes: Iterable[Size | None], engine: "OptimizeEngine") -> Sample:
    """Sampled images sorted out by what their headers say."""
    known: list[Size | None] = list(sizes)
    pairs = [(size, engine.working_size(*size)) for size in known if size is not None]
    large = [pair for pair in pairs if min(pair[1]) >= engine.extractor.min_side_px]
    return Sample(sizes=tuple(large), unreadable=known.count(None), too_small=len(pairs) - len(large))


def steps_of(engine: "OptimizeEngine", working: Size) -> tuple[int, ...]:
    """Steps at each level of the pyramid for that working size, at most; from coarse to fine."""
    spec = engine.work.optimize
    num_coarse = len(engine.level_sizes(working)) - 1
    return (*(spec.coarse_steps,) * num_coarse, spec.steps)


def _fine_steps(engine: "OptimizeEngine", working: Size) -> float:
    """All steps as steps at the working size: one at half the side costs a quarter."""
    from_fine = reversed(steps_of(engine, working))
    return sum(number * 0.25**level for level, number in enumerate(from_fine))


def _most_frequent(
    refs: Sequence[ImageRef], peeked: Mapping[str, Size | None], engine: "OptimizeEngine", sample: Sample
) -> list[ImageRef]:
    """The sampled images of the most frequent working size."""
    wanted = sample.by_working_size[0][0]
    sizes = {name: size and engine.working_size(*size) for name, size in peeked.items()}
    return [ref for ref in refs if sizes[ref.image_id] == wanted]


def _is_here(job: StylizeJob) -> bool:
    return job.config.cluster in ("auto", "local")


def _workers(job: StylizeJob) -> tuple[int, str]:
    """How many workers there will be, and where. Raises: ResourcesError as a run would."""
    import torch

    if _is_here(job):
        there, where = Cluster(nodes=(this_machine(num_gpus=torch.cuda.device_count()),)), "this machine"
    else:
        there, where = cluster.connect(job.config.cluster), f"the cluster at {job.config.cluster}"
    workers = cluster.workers_for(there, job.config.num_workers, job.needs)
    return min(workers.least, len(job.units)), where


def _memory(job: StylizeJob, engine: "OptimizeEngine", sample: Sample, *, workers: int) -> Memory:
    network = sum(part.nbytes for parameters in engine.extractor.parameters.values() for part in parameters)
    largest = max(engine.bytes_for(*full) for full, _ in sample.sizes)
    work = network + largest * engine.batch
    if job.step.device == "cuda":
        return Memory(worker=work, together=None, there=memory_bytes(), on_gpu=True)
    worker = PROCESS_BYTES + work
    return Memory(worker=worker, together=workers * worker if _is_here(job) else None, there=memory_bytes())


def _times(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
