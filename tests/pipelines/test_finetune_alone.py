"""The only worker of a training: replaced when it dies, and not when the fault is the training's own."""

import os

import pytest
import ray

from pipelines import finetune_alone
from pipelines.finetune_alone import fit_alone
from vtray.errors import ResourcesError, StorageError, TrainingDiverged

pytestmark = pytest.mark.ray


def job_of(folder, work):
    """Leaves a file for each start, then does `work` with the number of the start, from 0 on."""

    class Job:
        def alone(self):
            number = len(list(folder.iterdir()))
            (folder / str(number)).touch()
            work(number)

    return Job()


def num_starts(folder):
    return len(list(folder.iterdir()))


def fit(folder, work, *, cpus=0.5, max_restarts=3):
    return fit_alone(job_of(folder, work), cpus=cpus, gpus=0, max_restarts=max_restarts)


def raising(error):
    def work(number):
        raise error

    return work


def test_a_dead_worker_is_replaced(tmp_path, ray_cluster):
    assert fit(tmp_path, lambda number: os._exit(1) if number < 2 else None) is None
    assert num_starts(tmp_path) == 3


def test_the_last_worker_s_death_is_the_result(tmp_path, ray_cluster):
    error = fit(tmp_path, lambda number: os._exit(1), max_restarts=1)
    assert isinstance(error, ray.exceptions.RayActorError)
    assert num_starts(tmp_path) == 2


@pytest.mark.parametrize(
    ("error", "starts"), [(TrainingDiverged("loss is nan"), 1), (StorageError("out of reach"), 2)], ids=str
)
def test_only_faults_that_may_pass_are_tried_again(tmp_path, ray_cluster, error, starts):
    found = fit(tmp_path, raising(error), max_restarts=1)
    assert isinstance(found, type(error))
    assert str(error) in str(found)
    assert num_starts(tmp_path) == starts


def test_a_cluster_without_room_is_given_up(tmp_path, ray_cluster, monkeypatch):
    monkeypatch.setattr(finetune_alone, "START_S", 0.5)
    error = fit(tmp_path, lambda number: None, cpus=64)
    assert isinstance(error, ResourcesError)
    assert "no room for the worker" in str(error)
    assert num_starts(tmp_path) == 0
