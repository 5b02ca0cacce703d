import pytest

from pipelines.cluster import UNBOUNDED, Cluster, Workers, workers_for
from vtray.errors import ResourcesError


def with_cpus(num_cpus):
    return Cluster(num_cpus=num_cpus, num_gpus=0, num_nodes=1)


def test_a_given_number_of_workers_is_kept():
    assert workers_for(with_cpus(4), 3) == Workers(least=3, most=3)


def test_without_a_number_nodes_that_join_later_get_work_too():
    assert workers_for(with_cpus(2), None) == Workers(least=2, most=UNBOUNDED)


@pytest.mark.parametrize("num_workers", [None, 1])
def test_a_cluster_without_a_cpu_is_refused(num_workers):
    with pytest.raises(ResourcesError, match="no CPU for work"):
        workers_for(with_cpus(0.0), num_workers)
