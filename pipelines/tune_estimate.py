"""What a search will cost, before it starts: caches, their bytes, trials, and minutes from a short probe here."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch.nn import functional

from pipelines.cluster import Cluster, WorkerNeeds
from pipelines.finetune_rows import Store, stored_bytes
from pipelines.finetune_work import Device, FinetuneWork
from pipelines.machine import memory_bytes, this_machine
from pipelines.tune_config import TuneConfig
from pipelines.tune_room import concurrency_of, trial_needs
from pipelines.tune_rows import SharedRows, all_boundaries
from pipelines.tune_work import TuneWork
from vtray.classify.backbone import Classifier
from vtray.classify.freezing import freeze
from vtray.classify.halving import expected_epochs
from vtray.classify.prefix import cached_boundary
from vtray.classify.preprocessing import decode_for
from vtray.classify.search_space import LogRange
from vtray.report.numbers import bytes_text, count_text
from vtray.report.search_page import depth_name
from vtray.sources import Unit, read_unit
from vtray.steps.results import encoded_of

PROBED = 8  # images
LONG_S = 1.0  # a first try that took so long is no slower than the second


@dataclass(frozen=True, kw_only=True)
class CacheEstimate:
    """One cache and the trials that read it. Seconds are of one process: to build it, and of one trial's epoch.

    uncached_s: of an epoch in which every image is decoded and run through the frozen stages.
    """

    name: str
    rows: int
    bytes: int
    build_s: float
    trials: float
    epoch_s: float
    uncached_s: float

    def __str__(self) -> str:
        return (
            f"  {self.name:28} {count_text(self.rows)} rows, {bytes_text(self.bytes)}, "
            f"{self.build_s / 60:.1f} min; {self.trials:g} trials, {self.epoch_s:.1f} s an epoch"
        )


@dataclass(frozen=True, kw_only=True)
class TuneEstimate:
    """A search that has not begun. epochs: of a whole trial; expected: of an average one, by the scheduler."""

    images: str
    space: str
    trials: int
    epochs: int
    expected: float
    scheduler: str
    concurrency: int
    needs: WorkerNeeds
    caches: tuple[CacheEstimate, ...]
    refits: int
    refit_s: float

    @property
    def build_min(self) -> float:
        return sum(cache.build_s for cache in self.caches) / self.concurrency / 60

    def trials_min(self, epochs: float) -> float:
        """All trials with so many epochs each, side by side."""
        return epochs * sum(cache.trials * cache.epoch_s for cache in self.caches) / self.concurrency / 60

    @property
    def uncached_min(self) -> float:
        work = sum(cache.trials * cache.uncached_s for cache in self.caches)
        return self.epochs * work / self.concurrency / 60

    def table(self) -> str:
        """Lines for the terminal."""
        whole = self.build_min + self.trials_min(self.epochs)
        expected = self.build_min + self.trials_min(self.expected)
        total = sum(cache.bytes for cache in self.caches)
        return "\n".join(
            [
                f"images    {self.images}",
                f"space     {self.space}",
                f"caches    {len(self.caches)}, {bytes_text(total)}",
                *map(str, self.caches),
                f"trials    {self.trials} of {self.epochs} epochs, {self.concurrency} at a time on a machine like "
                f"this one, each with {self.needs}",
                f"search    about {expected:.1f} min with {self.scheduler}, {whole:.1f} min if nothing is stopped",
                f"          {self.uncached_min:.1f} min without stored rows and without stopping",
                f"training  {self.refits} in full, about {self.refits * self.refit_s / 60:.1f} min of steps",
                "not counted: the start of workers, and trials in a busy machine's way",
            ]
        )


def estimate(config: TuneConfig) -> TuneEstimate:
    """List the input, load the weights and time a few images here. Raises: VtrayError as the run itself would."""
    device: Device = "cuda" if config.use_gpu is not False and torch.cuda.is_available() else "cpu"
    work = TuneWork.of(config, device=device)
    found = work.proposals()
    num_trials = work.num_trials(found)
    values = all_boundaries(work, [found.values(n) for n in range(num_trials)] if found.known else None)
    rows = SharedRows(work=work, classifier=work.base.pretrained())
    work.base.with_head(rows.classifier, None)
    needs = trial_needs(work, rows, values)
    here = Cluster(nodes=(replace(this_machine(num_gpus=needs.gpus), memory_bytes=memory_bytes()),))
    shares = Counter(store for each in values for store, _ in rows.stores(work.training(each))[-1:])
    probe = _Probe.of(work, rows.classifier)
    caches = tuple(
        probe.cache(store, trials=num_trials * count / len(values))
        for store, count in sorted(shares.items(), key=lambda item: item[0].num_frozen)
    )
    search = config.search
    return TuneEstimate(
        images=_images(work.base),
        space=_space(work),
        trials=num_trials,
        epochs=work.base.epochs,
        expected=_expected(config, num_trials, work.base.epochs),
        scheduler=search.scheduler,
        concurrency=min(num_trials, concurrency_of(here, needs, search.concurrency)),
        needs=needs,
        caches=caches,
        refits=search.top_k + search.also_default,
        refit_s=work.base.epochs * probe.uncached_epoch(work.frozen(work.default)),
    )


def _expected(config: TuneConfig, num_trials: int, epochs: int) -> float:
    """Epochs of an average trial; the default is never stopped, and of the median rule nothing is known."""
    if config.search.scheduler != "asha":
        return float(epochs)
    asha = config.search.asha
    each = expected_epochs(grace_epochs=asha.grace_epochs, reduction_factor=asha.reduction_factor, epochs=epochs)
    return (epochs + (num_trials - 1) * each) / num_trials


def _images(work: FinetuneWork) -> str:
    examples = work.examples
    carved = " (val taken from train)" if examples.carved else ""
    counts = f"train {len(examples.train)}, val {len(examples.val)}, test {len(examples.test)}{carved}"
    return f"{counts}, {len(work.classes)} classes"


def _space(work: TuneWork) -> str:
    parts = []
    for key, axis in work.space.items():
        tried = f"{axis.low:g} to {axis.high:g} (log)" if isinstance(axis, LogRange) else ", ".join(map(str, axis))
        parts.append(f"{key} {tried}")
    return f"{'; '.join(parts)}; searcher {work.config.search.searcher}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probe:
    """A few real images on this machine, on as many CPUs as a trial has. decode_s: of one image."""

    work: TuneWork
    classifier: Classifier
    pixels: torch.Tensor
    decode_s: float

    @classmethod
    def of(cls, work: TuneWork, classifier: Classifier) -> "_Probe":
        torch.set_num_threads(work.config.search.cpus_per_trial)
        base = work.base
        refs = base.examples.train[:PROBED]
        unit = Unit(unit_id="probe", format=base.source.format, refs=refs)
        encoded = [encoded_of(image) for image in islice(read_unit(unit), PROBED)]
        started = time.perf_counter()
        crops = [decode_for(base.preprocessing, content, base.config.max_pixels) for content in encoded]
        decode_s = (time.perf_counter() - started) / len(crops)
        planes = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        pixels = base.preprocessing.pixels(planes).to(base.device)
        return cls(work=work, classifier=classifier.to(base.device), pixels=pixels, decode_s=decode_s)

    def cache(self, store: Store, *, trials: float) -> CacheEstimate:
        """A cache and the epochs of its trials."""
        base, frozen = self.work.base, store.num_frozen
        num_rows = len(base.examples.val) + len(base.examples.train) * (1 + store.views)
        return CacheEstimate(
            name=depth_name(frozen, base.stage_names) if frozen else "0, crops",
            rows=num_rows,
            bytes=stored_bytes(base, store, self.classifier),
            build_s=num_rows * (self.decode_s + self._prefix_s(frozen)),
            trials=trials,
            epoch_s=self._epoch(frozen),
            uncached_s=self.uncached_epoch(frozen),
        )

    def uncached_epoch(self, frozen: int) -> float:
        """An epoch in which every image is decoded and run through the frozen stages."""
        examples = self.work.base.examples
        again = self.decode_s + self._prefix_s(frozen)
        return self._epoch(frozen) + (len(examples.train) + len(examples.val)) * again

    def _epoch(self, frozen: int) -> float:
        """Seconds of an epoch on stored rows: steps, and the validation without its backward pass."""
        examples = self.work.base.examples
        return self._step_s(frozen) * (len(examples.train) + len(examples.val) / 3)

    def _prefix_s(self, frozen: int) -> float:
        """Of one image through the frozen stages."""
        if frozen == 0:
            return 0.0
        with torch.no_grad():
            stop = cached_boundary(self.classifier, frozen)
            return _seconds(lambda: self.classifier.eval().prefix(self.pixels, stop)) / len(self.pixels)

    def _step_s(self, frozen: int) -> float:
        """Of one image forward and backward behind the frozen stages."""
        start = cached_boundary(self.classifier, frozen)
        freeze(self.classifier, frozenset(range(frozen)))
        with torch.no_grad():
            inputs = self.classifier.eval().prefix(self.pixels, start) if start else self.pixels
        labels = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)

        def step() -> None:
            logits = self.classifier.train()(inputs, start=start)
            functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
            self.classifier.zero_grad(set_to_none=True)

        return _seconds(step) / len(inputs)


def _seconds(call: Callable[[], object]) -> float:
    """The shorter of two tries; one if that was long already."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
        if found[0] > LONG_S:
            break
    return min(found)
