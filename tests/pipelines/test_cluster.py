import pytest

from pipelines.cluster import (
    ONE_CPU,
    UNBOUNDED,
    Cluster,
    Node,
    WorkerNeeds,
    Workers,
    call_on_a_worker,
    workers_for,
)
from vtray.errors import ResourcesError


def with_cpus(num_cpus):
    return Cluster(nodes=(Node(num_cpus=num_cpus),))


def test_a_given_number_of_workers_is_kept():
    assert workers_for(with_cpus(4), 3) == Workers(least=3, most=3)


def test_without_a_number_nodes_that_join_later_get_work_too():
    assert workers_for(with_cpus(2), None) == Workers(least=2, most=UNBOUNDED)


@pytest.mark.parametrize("num_workers", [None, 1])
def test_a_cluster_without_a_cpu_is_refused(num_workers):
    with pytest.raises(ResourcesError, match="no CPU for work"):
        workers_for(with_cpus(0.0), num_workers)


def test_workers_of_several_cpus_fit_in_one_node_each():
    """Three nodes of 4, 4 and 3 CPUs hold one worker of 3 CPUs each, though 11 CPUs would be enough for three."""
    mixed = Cluster(nodes=(Node(num_cpus=4), Node(num_cpus=4), Node(num_cpus=3)))
    assert workers_for(mixed, None, WorkerNeeds(cpus=3)).least == 3
    assert workers_for(mixed, None, WorkerNeeds(cpus=4)).least == 2
    with pytest.raises(ResourcesError, match="11 CPUs and each worker needs 4 CPUs; use at most 2"):
        workers_for(mixed, 3, WorkerNeeds(cpus=4))
    with pytest.raises(ResourcesError, match=r"needs 5 CPUs; no node .* the largest has 4 CPUs, 0 GPUs; ask"):
        workers_for(mixed, None, WorkerNeeds(cpus=5))


def test_workers_on_gpus_are_as_many_as_gpus():
    mixed = Cluster(nodes=(Node(num_cpus=16, num_gpus=2), Node(num_cpus=8)))
    needs = WorkerNeeds(gpus=1)
    assert workers_for(mixed, None, needs) == Workers(least=2, most=UNBOUNDED, needs=needs)
    with pytest.raises(ResourcesError, match="2 GPUs and each worker needs 1 CPU and 1 GPU; use at most 2"):
        workers_for(mixed, 3, needs)
    with pytest.raises(ResourcesError, match="the largest has 8 CPUs, 0 GPUs"):
        workers_for(Cluster(nodes=(Node(num_cpus=8),)), None, needs)


def test_workers_share_the_memory_of_their_node():
    """16 CPUs and 10 GB hold three workers of 3 GB; a number that the user gives is taken as tried."""
    small = Cluster(nodes=(Node(num_cpus=16, memory_bytes=10e9),))
    needs = WorkerNeeds(memory_bytes=3_000_000_000)
    assert workers_for(small, None, needs) == Workers(least=3, most=UNBOUNDED, needs=needs)
    assert workers_for(small, 5, needs) == Workers(least=5, most=5, needs=ONE_CPU)
    with pytest.raises(ResourcesError, match=r"needs 1 CPU and 11\.0 GB; .* 16 CPUs, 0 GPUs and 10\.0 GB"):
        workers_for(small, None, WorkerNeeds(memory_bytes=11_000_000_000))


def test_nothing_waits_for_a_worker_that_never_comes():
    with pytest.raises(ResourcesError, match="each worker needs 1 CPU and 1 GPU"):
        call_on_a_worker(lambda: 1, with_cpus(2), WorkerNeeds(gpus=1))


def test_a_function_runs_on_a_worker(ray_cluster):
    assert call_on_a_worker(lambda: 6 * 7, with_cpus(2), ONE_CPU) == 42
