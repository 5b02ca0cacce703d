"""The Ray cluster of a run: found or started, measured, and checked before work is sent to it."""

import logging
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TypeVar

from vtray.errors import ConfigError, ResourcesError
from vtray.report.numbers import bytes_text
from vtray.storage import is_local

log = logging.getLogger(__name__)

T = TypeVar("T")

OBJECT_STORE_BYTES = 256 << 20  # units and receipts only; pixels never travel through it
UNBOUNDED = 2**31  # workers without a CPU wait, which is what makes an autoscaler add nodes


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one machine of a cluster has for work. memory_bytes: inf where it is not known."""

    num_cpus: float
    num_gpus: float = 0.0
    memory_bytes: float = math.inf

    def __str__(self) -> str:
        memory = f" and {bytes_text(int(self.memory_bytes))}" if math.isfinite(self.memory_bytes) else ""
        return f"{self.num_cpus:g} CPUs, {self.num_gpus:g} GPUs{memory}"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a cluster has at the start of a run."""

    nodes: tuple[Node, ...]

    @property
    def num_cpus(self) -> float:
        return sum(node.num_cpus for node in self.nodes)

    @property
    def num_gpus(self) -> float:
        return sum(node.num_gpus for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class WorkerNeeds:
    """What one worker takes: the CPUs that it computes with, GPUs, and memory if that may be short."""

    cpus: int = 1
    gpus: int = 0
    memory_bytes: int = 0

    def fit_in(self, node: Node) -> int:
        """How many such workers a machine has room for."""
        wanted = (self.cpus, self.gpus, self.memory_bytes)
        there = (node.num_cpus, node.num_gpus, node.memory_bytes)
        return int(min(has // takes for has, takes in zip(there, wanted, strict=True) if takes))

    def __str__(self) -> str:
        parts = [f"{self.cpus} CPU{'s' * (self.cpus > 1)}"]
        parts += [f"{self.gpus} GPU{'s' * (self.gpus > 1)}"] if self.gpus else []
        parts += [bytes_text(self.memory_bytes)] if self.memory_bytes else []
        return " and ".join(parts)


def connect(address: str = "auto") -> Cluster:
    """Join the cluster at `address` or start one on this machine; an existing connection is used as it is.

    Raises: ResourcesError if the address does not answer.
    """
    import ray

    if not ray.is_initialized():
        loading = threading.Thread(target=import_module, args=("ray.data",))  # two seconds, while Ray starts
        loading.start()
        with _without_ray_chatter(), _own_sigterm():
            _initialize(address)
        loading.join()
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Cluster(nodes=tuple(map(_node, alive)))


def _node(resources: Mapping[str, float]) -> Node:
    return Node(
        num_cpus=resources.get("CPU", 0.0),
        num_gpus=resources.get("GPU", 0.0),
        memory_bytes=resources.get("memory", math.inf),
    )


@contextmanager
def _without_ray_chatter() -> Iterator[None]:
    """Keep what Ray's C++ prints at its start (such as its own log level) off stderr, unless the start fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts its own SIGTERM handler in place, which ends the process with exit code 15 and a stack trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _initialize(address: str) -> None:
    import ray

    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address != "local":
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            if address != "auto":
                raise ResourcesError(
                    f"cluster={address}: no Ray cluster answers there ({error}); "
                    "check the address and the token, or use --set cluster=local"
                ) from error
        else:
            return
    try:
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    except Exception as error:  # Ray's own are of no type: a machine that is too busy gives a bare Exception
        raise ResourcesError(
            f"Ray did not start here: {error}; try again when the machine is less busy"
        ) from error


ONE_CPU = WorkerNeeds()


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many worker processes there are from the start, how many there may become, and what each one takes."""

    least: int
    most: int
    needs: WorkerNeeds = ONE_CPU


def workers_for(cluster: Cluster, num_workers: int | None, needs: WorkerNeeds = ONE_CPU) -> Workers:
    """By default as many as there is room for, and more on nodes that join later. A number that is given counts as
    tried: memory does not limit it.

    Raises: ResourcesError if the cluster has no room for that many, or for one.
    """
    if num_workers is not None:
        needs = replace(needs, memory_bytes=0)
    room = sum(needs.fit_in(node) for node in cluster.nodes)
    if cluster.num_cpus < 1:
        raise ResourcesError("the cluster has no CPU for work; add a worker node or use --set cluster=local")
    if room < 1:
        largest = max(cluster.nodes, key=lambda node: (node.num_gpus, node.num_cpus))
        raise ResourcesError(
            f"each worker needs {needs}; no node of the cluster has that: the largest has {largest}; "
            "ask for less, or add a larger node"
        )
    if num_workers is None:
        return Workers(least=room, most=UNBOUNDED, needs=needs)
    if num_workers > room:
        raise ResourcesError(
            f"num_workers={num_workers}: the cluster has {_total(cluster)} and each worker needs {needs}; "
            f"use at most {room}"
        )
    return Workers(least=num_workers, most=num_workers, needs=needs)


def _total(cluster: Cluster) -> str:
    gpus = f" and {cluster.num_gpus:g} GPUs" if cluster.num_gpus else ""
    return f"{cluster.num_cpus:g} CPUs{gpus}"


def require_shared_paths(cluster: Cluster, uris: Sequence[str], *, shared: bool) -> None:
    """Raises: ConfigError if several nodes would each look for a local path on their own disk."""
    local = [uri for uri in uris if is_local(uri)]
    if local and len(cluster.nodes) > 1 and not shared:
        raise ConfigError(
            f"{', '.join(local)}: a local path on a cluster of {len(cluster.nodes)} nodes; "
            "use s3://, or --set shared_paths=true if every node mounts the same folder there"
        )


def call_on_a_worker(call: Callable[[], T], cluster: Cluster, needs: WorkerNeeds) -> T:
    """What `call` returns on a node that has what a worker needs. Raises: ResourcesError if there is none."""
    import ray

    workers_for(cluster, 1, needs)
    result: T = ray.get(ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus)(call).remote())
    return result
