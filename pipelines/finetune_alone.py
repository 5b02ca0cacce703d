"""A training's only worker: one actor, replaced when it dies.

Ray Train's processes around a group take half a minute to start, and one worker has nobody to meet through them.
"""

import logging
from typing import Protocol

from vtray.errors import ResourcesError, StorageError, VtrayError

log = logging.getLogger("vtray.finetune")

START_S = 360  # for a node that an autoscaler adds


class Job(Protocol):
    """What the worker does."""

    def alone(self) -> None:
        """Train to the end, as the only worker."""


class TrainWorker:
    """The worker, in a process of its own."""

    def stand(self) -> None:
        """Come back when there is a worker."""

    def train(self, job: Job) -> None:
        """Train to the end."""
        job.alone()


def fit_alone(job: Job, *, cpus: float, gpus: int, max_restarts: int) -> Exception | None:
    """Train on the connected cluster, with a new worker for each that fails; what the last one raised, if any."""
    for restart in range(1 + max_restarts):
        error = _fit_once(job, cpus=cpus, gpus=gpus)
        if error is None or _is_final(error):
            return error
        if restart < max_restarts:
            log.info("the worker failed; a new one goes on (%d of %d restarts)", restart + 1, max_restarts)
    return error


def _fit_once(job: Job, *, cpus: float, gpus: int) -> Exception | None:
    import ray

    worker = ray.remote(num_cpus=cpus, num_gpus=gpus)(TrainWorker).remote()
    try:
        if not ray.wait([worker.stand.remote()], timeout=START_S)[0]:
            return ResourcesError(f"no room for the worker in {START_S} s; other jobs may hold the cluster")
        ray.get(worker.train.remote(job))
    except Exception as error:  # noqa: BLE001 - what the training raised, or what Ray says of a dead worker
        return error
    finally:
        ray.kill(worker)  # its memory and its GPU are free now, not when Python forgets it
    return None


def _is_final(error: Exception) -> bool:
    """Whether the next worker would find the same fault."""
    return isinstance(error, VtrayError) and not isinstance(error, StorageError)
