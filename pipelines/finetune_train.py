"""Workers around a training, each with its share of every batch, replaced when they die: a group of Ray Train, one
actor where one worker is enough, or this process."""

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import torch

from pipelines.finetune_alone import fit_alone
from pipelines.finetune_stream import Stream
from vtray.classify.training import FAILURE, Training, TrainTask, read_epochs
from vtray.errors import ConfigError, InputError, ResourcesError, TrainingDiverged, VtrayError
from vtray.manifest import Json, Ledger
from vtray.steps.load_batch import LoadBatch
from vtray.steps.worker import prepare_worker
from vtray.storage import open_storage

log = logging.getLogger("vtray.finetune")

CONTROLLER_FAILURES = 2
CPU_SHARE = 0.9  # of the CPUs that a worker computes with: never every CPU, or what else Ray starts would wait
POLL_S = 0.5
UNUSED = ("DatasetsCallback", "PlacementGroupCleanerCallback")
FAULTS = {error.__name__: error for error in (ConfigError, InputError, TrainingDiverged)}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The workers of a training: how many (or a range, for an elastic group), and what each takes.

    num_workers: 0 for the driver's own process.
    """

    num_workers: int | tuple[int, int]
    cpus: int
    gpus: int
    max_restarts: int
    loaders: int


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkerJob:
    """What is sent to every worker. load: None if all rows are stored."""

    task: TrainTask
    load: LoadBatch | None
    loaders: int

    def alone(self) -> None:
        """In the only worker, which sees its own GPU: train to the end."""
        self._train(rank=0, size=1, device=self.task.device)

    def in_group(self) -> None:
        """In a worker of Ray Train: train to the end."""
        import ray.train

        context = ray.train.get_context()
        device = str(_device(self.task))
        self._train(rank=context.get_world_rank(), size=context.get_world_size(), device=device)

    def _train(self, *, rank: int, size: int, device: str) -> None:
        prepare_worker()
        Training(
            task=self.task,
            ranks=_ranks(rank, size),
            device=device,
            wrap=_distributed(device),
            open_stream=self.stream(rank, size),
        ).run()

    def stream(self, rank: int, size: int, *, here: bool = False) -> Stream | None:
        """What loads images on the way, for one worker."""
        if self.load is None:
            return None
        return Stream(
            load=self.load,
            sampling=self.task.sampling,
            rank=rank,
            size=size,
            loaders=self.loaders,
            storage=open_storage(self.task.output_uri),
            folder=self.task.folder,
            balanced=self.task.balanced,
            here=here,
        )


def train(job: WorkerJob, group: Group, *, report: Callable[[Json], None]) -> None:
    """Train on the connected cluster until it is done; `report` gets the record of every epoch, once, in order.

    Raises: TrainingDiverged and other faults of the training; ResourcesError if the workers do not come.
    """
    storage = open_storage(job.task.output_uri)
    storage.delete(f"{job.task.folder}/{FAILURE}")
    with _watched(job.task, report):
        error = fit(job, group)
    failure = Ledger(storage).read_json(f"{job.task.folder}/{FAILURE}")
    if failure is not None:
        raise FAULTS.get(failure["type"], VtrayError)(failure["message"]) from error
    if error is not None:
        raise ResourcesError(
            f"training stopped after {group.max_restarts} restarts: {_root(error)}; run the same command again "
            "to go on from the last checkpoint"
        ) from error


def fit(job: WorkerJob, group: Group) -> Exception | None:
    """Train in the group, in one worker, or here; what the training raised, if it did."""
    if group.num_workers == 0:
        return _fit_here(job)
    if group.num_workers == 1:
        return fit_alone(job, cpus=_cpu_share(group), gpus=group.gpus, max_restarts=group.max_restarts)
    return _fit_on_ray(job, group)


def _fit_here(job: WorkerJob) -> VtrayError | None:
    threads = torch.get_num_threads()
    prepare_worker()
    try:
        Training(task=job.task, device=job.task.device, open_stream=job.stream(0, 1, here=True)).run()
    except VtrayError as error:
        return error
    finally:
        torch.set_num_threads(threads)
    return None


def _fit_on_ray(job: WorkerJob, group: Group) -> Exception | None:
    """Run Ray Train; what it raised, if it did. Checkpoints are our own, so its folder is not kept."""
    import ray.train
    from ray.train.torch import TorchConfig

    storage_path = tempfile.mkdtemp(prefix="vtray-train-")
    trainer = _lean_trainer()(
        lambda: job.in_group(),  # Ray looks at the signature of a function
        torch_config=TorchConfig(backend="nccl" if group.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=group.num_workers,
            use_gpu=bool(group.gpus),
            resources_per_worker={"CPU": _cpu_share(group), **({"GPU": group.gpus} if group.gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=f"vtray-{uuid4().hex[:8]}",  # the same name again would resume Ray's own state in silence
            storage_path=storage_path,
            failure_config=ray.train.FailureConfig(
                max_failures=group.max_restarts, controller_failure_limit=CONTROLLER_FAILURES
            ),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # noqa: BLE001 - Ray raises what its controller, workers or scheduler raised
        return error
    finally:
        shutil.rmtree(storage_path, ignore_errors=True)
    return None


def _lean_trainer() -> Callable[..., Any]:
    """A TorchTrainer without two processes that take four seconds of CPU each to start: the keeper of Ray's data
    sets, of which there are none, and the one that frees CPUs if only the controller dies, after which we end too.
    """
    from ray.train.torch import TorchTrainer

    class LeanTrainer(TorchTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[object]:
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if type(callback).__name__ not in UNUSED]

    return LeanTrainer


def _cpu_share(group: Group) -> float:
    """Elastic groups get whole CPUs: Ray counts those only."""
    if isinstance(group.num_workers, tuple):
        return float(group.cpus)
    return CPU_SHARE * group.cpus


@contextmanager
def _watched(task: TrainTask, report: Callable[[Json], None]) -> Iterator[None]:
    """Report the records of epochs while they appear in storage, and those that are there at the end."""
    storage, over = open_storage(task.output_uri), threading.Event()
    known = 0

    def look() -> None:
        nonlocal known
        for record in read_epochs(storage, task.folder, known=known):
            known += 1
            report(record)

    def watch() -> None:
        while not over.wait(POLL_S):
            look()

    watcher = threading.Thread(target=watch, name="epochs", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        look()


def _root(error: BaseException) -> str:
    """The innermost message, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[-300:]


def _device(task: TrainTask) -> object:
    import ray.train.torch

    return ray.train.torch.get_device() if task.device == "cuda" else "cpu"


def _ranks(rank: int, size: int):  # type: ignore[no-untyped-def]
    """The other processes, through torch.distributed, which Ray Train has set up."""
    import torch
    import torch.distributed as distributed

    from vtray.classify.loop import Ranks

    if size == 1:
        return Ranks()

    def added(tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def least(number: int) -> int:
        numbers = torch.tensor(number)
        distributed.all_reduce(numbers, op=distributed.ReduceOp.MIN)
        return int(numbers)

    return Ranks(rank=rank, size=size, sum=added, min=least)


def _distributed(device: str):  # type: ignore[no-untyped-def]
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    def wrap(model: nn.Module) -> nn.Module:
        return DistributedDataParallel(
            model, device_ids=[device] if device != "cpu" else None, broadcast_buffers=False
        )

    return wrap
