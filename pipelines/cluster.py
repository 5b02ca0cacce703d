"""The Ray cluster of a run: found or started, measured, and checked before work is sent to it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from vtray.errors import ConfigError, ResourcesError
from vtray.storage import is_local

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 256 << 20  # units and receipts only; pixels never travel through it
UNBOUNDED = 2**31  # tasks without a CPU wait, which is what makes an autoscaler add nodes


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
        _initialize(address)
    resources = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return Cluster(num_cpus=resources.get("CPU", 0.0), num_gpus=resources.get("GPU", 0.0), num_nodes=len(nodes))


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


def workers_for(cluster: Cluster, num_workers: int | None) -> int:
    """How many one-CPU tasks may run at once; by default all that have a CPU, now or on a node that joins later.

    Raises: ResourcesError if the cluster has not that many CPUs, or none at all.
    """
    available = int(cluster.num_cpus)
    if available < 1:
        raise ResourcesError("the cluster has no CPU for work; add a worker node or use --set cluster=local")
    if num_workers is not None and num_workers > available:
        raise ResourcesError(
            f"num_workers={num_workers}: the cluster has {available} CPUs and each worker needs 1; "
            f"use at most {available}"
        )
    return num_workers or UNBOUNDED


def require_shared_paths(cluster: Cluster, uris: Sequence[str], *, shared: bool) -> None:
    """Raises: ConfigError if several nodes would each look for a local path on their own disk."""
    local = [uri for uri in uris if is_local(uri)]
    if local and cluster.num_nodes > 1 and not shared:
        raise ConfigError(
            f"{', '.join(local)}: a local path on a cluster of {cluster.num_nodes} nodes; "
            "use s3://, or --set shared_paths=true if every node mounts the same folder there"
        )
