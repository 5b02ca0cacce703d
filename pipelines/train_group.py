"""Workers around any training, replaced when they die, and faults told as what they are: a group of Ray Train, one
actor where one worker is enough, or this process.

The training keeps its state in the output: checkpoints, records that the driver reads, and FAILURE for its faults.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from uuid import uuid4

import torch

from pipelines import cluster
from pipelines.cluster import Cluster, WorkerNeeds
from pipelines.finetune_alone import fit_alone
from pipelines.machine import this_machine
from vtray.classify.train_spec import Ranks
from vtray.classify.training import FAILURE, read_epochs
from vtray.errors import ConfigError, InputError, ResourcesError, TrainingDiverged, VtrayError
from vtray.manifest import Json, Ledger
from vtray.steps.worker import prepare_worker
from vtray.storage import open_storage

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


class GroupConfig(Protocol):
    """The keys of a config that say how many workers there are. num_workers: 0 for none but this process."""

    @property
    def num_workers(self) -> int | tuple[int, int] | None: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def max_restarts(self) -> int: ...
    @property
    def loaders(self) -> int: ...


class Task(Protocol):
    """Where a training keeps its state, and where it computes."""

    @property
    def output_uri(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def device(self) -> Literal["cpu", "cuda"]: ...


class Job(Protocol):
    """A training that can be sent to workers."""

    @property
    def task(self) -> Task: ...
    def alone(self) -> None:
        """Train as the only worker."""

    def in_group(self) -> None:
        """Train as one worker of Ray Train."""

    def here(self) -> None:
        """Train in this process. Raises: VtrayError."""


def group_for(config: GroupConfig, found: Cluster, *, device: Literal["cpu", "cuda"]) -> Group:
    """How many workers train and what each takes: one per GPU, or one per node with all its CPUs.

    Raises: ResourcesError with the numbers if the cluster has no room for them.
    """
    if config.num_workers == 0:
        cpus = config.threads or int(this_machine().num_cpus)
        return Group(num_workers=0, cpus=cpus, gpus=0, max_restarts=0, loaders=1)
    gpus = 1 if device == "cuda" else 0
    nodes = [node for node in found.nodes if (node.num_gpus if gpus else node.num_cpus) >= 1]
    default = int(found.num_gpus) if gpus else len(nodes)
    wanted = config.num_workers or max(1, default)
    least, most = (wanted, wanted) if isinstance(wanted, int) else wanted
    largest = max((int(node.num_cpus) for node in nodes), default=1)
    cpus = config.threads or max(1, largest * max(1, len(nodes)) // most if most > len(nodes) else largest)
    cluster.workers_for(found, least, WorkerNeeds(cpus=cpus, gpus=gpus))
    return Group(
        num_workers=wanted if isinstance(wanted, int) else (least, most),
        cpus=cpus,
        gpus=gpus,
        max_restarts=config.max_restarts,
        loaders=config.loaders,
    )


def train(job: Job, group: Group, *, report: Callable[[Json], None]) -> None:
    """Train on the connected cluster until it is done; `report` gets every record, once, in order.

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


def fit(job: Job, group: Group) -> Exception | None:
    """Train in the group, in one worker, or here; what the training raised, if it did."""
    if group.num_workers == 0:
        return _fit_here(job)
    if group.num_workers == 1:
        return fit_alone(job, cpus=_cpu_share(group), gpus=group.gpus, max_restarts=group.max_restarts)
    return _fit_on_ray(job, group)


def _fit_here(job: Job) -> VtrayError | None:
    threads = torch.get_num_threads()
    prepare_worker()
    try:
        job.here()
    except VtrayError as error:
        return error
    finally:
        torch.set_num_threads(threads)
    return None


def _fit_on_ray(job: Job, group: Group) -> Exception | None:
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
def _watched(task: Task, report: Callable[[Json], None]) -> Iterator[None]:
    """Report the records while they appear in storage, and those that are there at the end."""
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


@dataclass(frozen=True, kw_only=True)
class Place:
    """A worker among those that train together: the others, its device, what makes a model distributed."""

    ranks: Ranks
    device: str
    wrap: Callable[[torch.nn.Module], torch.nn.Module] = lambda model: model


def only_place(task: Task) -> Place:
    """Where the only worker stands, or this process."""
    return Place(ranks=Ranks(), device=task.device)


def place_of(task: Task) -> Place:
    """Where this worker of Ray Train stands."""
    import ray.train

    context = ray.train.get_context()
    device = str(_device(task))
    ranks = _ranks(context.get_world_rank(), context.get_world_size())
    return Place(ranks=ranks, device=device, wrap=_distributed(device))


def _device(task: Task) -> object:
    import ray.train.torch

    return ray.train.torch.get_device() if task.device == "cuda" else "cpu"


def _ranks(rank: int, size: int) -> Ranks:
    """The other processes, through torch.distributed, which Ray Train has set up."""
    import torch.distributed as distributed

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


def _distributed(device: str) -> Callable[[torch.nn.Module], torch.nn.Module]:
    from torch.nn.parallel import DistributedDataParallel

    def wrap(model: torch.nn.Module) -> torch.nn.Module:
        return DistributedDataParallel(
            model, device_ids=[device] if device != "cpu" else None, broadcast_buffers=False
        )

    return wrap
