"""The Ray cluster of a run: found or started, measured, and checked before work is sent to it."""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

from vtray.errors import ConfigError, ResourcesError
from vtray.storage import is_local

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 256 << 20  # units and receipts only; pixels never travel through it
UNBOUNDED = 2**31  # workers without a CPU wait, which is what makes an autoscaler add nodes


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a cluster has at the start of a run."""

    num_cpus: float
    num_gpus: float
    num_nodes: int


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
    resources = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return Cluster(num_cpus=resources.get("CPU", 0.0), num_gpus=resources.get("GPU", 0.0), num_nodes=len(nodes))


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
    ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many worker processes there are from the start, and how many there may become."""

    least: int
    most: int


def workers_for(cluster: Cluster, num_workers: int | None) -> Workers:
    """By default one worker for each CPU there is, and for those of nodes that join later.

    Raises: ResourcesError if the cluster has not that many CPUs, or none at all.
    """
    available = int(cluster.num_cpus)
    if available < 1:
        raise ResourcesError("the cluster has no CPU for work; add a worker node or use --set cluster=local")
    if num_workers is None:
        return Workers(least=available, most=UNBOUNDED)
    if num_workers > available:
        raise ResourcesError(
            f"num_workers={num_workers}: the cluster has {available} CPUs and each worker needs 1; "
            f"use at most {available}"
        )
    return Workers(least=num_workers, most=num_workers)


def require_shared_paths(cluster: Cluster, uris: Sequence[str], *, shared: bool) -> None:
    """Raises: ConfigError if several nodes would each look for a local path on their own disk."""
    local = [uri for uri in uris if is_local(uri)]
    if local and cluster.num_nodes > 1 and not shared:
        raise ConfigError(
            f"{', '.join(local)}: a local path on a cluster of {cluster.num_nodes} nodes; "
            "use s3://, or --set shared_paths=true if every node mounts the same folder there"
        )
