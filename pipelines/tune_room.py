"""How many trials run at a time, and the proof that the cluster has everything back when they are over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.cluster import Cluster, WorkerNeeds
from pipelines.finetune_rows import stored_bytes
from pipelines.prefix_cache import PROCESS_BYTES
from pipelines.tune_rows import SharedRows
from pipelines.tune_work import TuneWork
from vtray.classify.activations import IN_MEMORY_BYTES
from vtray.classify.memory import image_bytes, weight_bytes
from vtray.classify.search_space import Values
from vtray.errors import ResourcesError

RETURN_S = 60  # for processes that end and placement groups that are removed
POLL_S = 0.2


def trial_needs(work: TuneWork, rows: SharedRows, trials: list[Values]) -> WorkerNeeds:
    """What the largest of these trials takes; on a GPU its memory is not ours to count."""
    search, classifier = work.config.search, rows.classifier
    stored = [
        stored_bytes(trial, store, classifier)
        for trial in map(work.training, trials)
        for store, _ in rows.stores(trial)
    ]
    held = max((each for each in stored if each < IN_MEMORY_BYTES), default=0)  # larger ones are mapped, not held
    batch = work.base.sampling(1).batch_size * image_bytes(classifier, work.base.preprocessing)
    on_gpu = work.base.device == "cuda"
    return WorkerNeeds(
        cpus=search.cpus_per_trial,
        gpus=1 if on_gpu else 0,
        memory_bytes=PROCESS_BYTES + held + (0 if on_gpu else batch + weight_bytes(classifier)),
    )


def concurrency_of(found: Cluster, needs: WorkerNeeds, wanted: int | None) -> int:
    """How many trials run at a time: what there is room for, or what was asked for.

    Raises: ResourcesError with the numbers if one trial, or as many as are wanted, cannot fit.
    """
    room = sum(needs.fit_in(node) for node in found.nodes)
    if room < 1:
        largest = max(found.nodes, key=lambda node: (node.num_gpus, node.num_cpus, node.memory_bytes))
        raise ResourcesError(
            f"a trial needs {needs}; no node of the cluster has that: the largest has {largest}; freeze more "
            "stages, choose a smaller loop.batch_size or search.cpus_per_trial, or add a larger node"
        )
    if wanted is not None and wanted > room:
        raise ResourcesError(
            f"search.concurrency={wanted}: each trial needs {needs} and the cluster has room for {room}; "
            f"use at most {room}"
        )
    return wanted or room


@dataclass(frozen=True, kw_only=True)
class Free:
    """What a cluster has free, and the placement groups that hold the rest."""

    cpus: float
    gpus: float
    groups: frozenset[str]

    @classmethod
    def now(cls) -> "Free":
        import ray
        from ray.util import placement_group_table

        free = ray.available_resources()
        groups = {name for name, about in placement_group_table().items() if about["state"] != "REMOVED"}
        return cls(cpus=free.get("CPU", 0.0), gpus=free.get("GPU", 0.0), groups=frozenset(groups))

    def lacks(self, before: "Free") -> list[str]:
        """What was free before and is not now, in words."""
        faults = [
            f"{there - here:g} {name}"
            for name, there, here in (("CPUs", before.cpus, self.cpus), ("GPUs", before.gpus, self.gpus))
            if here < there - 1e-6
        ]
        new = sorted(self.groups - before.groups)
        return faults + ([f"{len(new)} placement groups ({', '.join(new[:3])})"] if new else [])


@contextmanager
def everything_returned(*, within_s: float = RETURN_S) -> Iterator[None]:
    """Raises: ResourcesError if after the block less of the cluster is free than before it."""
    before = Free.now()
    yield
    deadline = time.monotonic() + within_s
    while missing := Free.now().lacks(before):
        if time.monotonic() > deadline:
            raise ResourcesError(
                f"after the search the cluster has not got back {' and '.join(missing)}: a leak, or another job "
                "that started meanwhile; all trials are booked: the same command goes on behind them"
            )
        time.sleep(POLL_S)
