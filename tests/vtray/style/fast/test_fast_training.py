"""A whole fast training: what it leaves in storage, and a kill at any step that changes nothing."""

import json
from dataclasses import replace

import pytest
import torch
from fast_training import crops_of, task_of

from vtray.classify.checkpoint import Checkpoints
from vtray.classify.training import FAILURE, read_epochs
from vtray.errors import TrainingDiverged
from vtray.storage import open_storage
from vtray.style.fast.task import StepSpec
from vtray.style.fast.training import FastTraining, sheet_key


class Killed(Exception):
    """Stands for SIGKILL."""


def stream_until(end=None):
    def stream(first):
        step = first
        while True:
            if step == end:
                raise Killed
            yield crops_of(step)
            step += 1

    return stream


def train(task, *, until=None):
    FastTraining(task=task, open_stream=stream_until(until)).run()


def final(task):
    return task.checkpoints(open_storage(task.output_uri)).newest()


@pytest.fixture(params=["feedforward", "msgnet"])
def tasks(request, tmp_path):
    """The same task in two outputs."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    return [task_of(folder, request.param) for folder in folders]


@pytest.mark.parametrize("until", [1, 3, 5])
def test_a_kill_at_any_step_leaves_the_same_weights_and_records(tasks, until):
    calm, killed = tasks
    train(calm)
    with pytest.raises(Killed):
        train(killed, until=until)
    train(killed)
    one, other = final(calm), final(killed)
    assert one.epoch == other.epoch == 6
    assert all(
        torch.equal(one.state["network"][name], other.state["network"][name]) for name in one.state["network"]
    )
    records = [read_epochs(open_storage(task.output_uri), task.folder) for task in tasks]
    for record in (each for history in records for each in history):
        del record["steps_per_s"]
    assert records[0] == records[1]


def test_records_and_sheets(tmp_path):
    task = task_of(tmp_path)
    train(task)
    storage = open_storage(task.output_uri)
    history = read_epochs(storage, task.folder)
    assert [record["step"] for record in history] == [2, 4, 6]
    assert [record.get("sheet") for record in history] == [
        None,
        sheet_key(task.folder, 4),
        sheet_key(task.folder, 6),
    ]
    assert all(storage.exists(record["sheet"]) for record in history[1:])
    assert 0 < history[-1]["unseen_style_share"] < 5
    assert {"loss", "content", "style", "tv", "lr", "steps_per_s"} <= history[0].keys()


def test_a_finished_training_is_not_trained_again(tmp_path):
    task = task_of(tmp_path)
    train(task)
    train(task, until=6)  # would raise if it asked for a step


def test_a_loss_that_is_not_finite_is_told_and_kept_out_of_checkpoints(tmp_path):
    steps = StepSpec(steps=4, batch_size=2, lr=1e30, log_every=2, preview_every=4, checkpoint_every=2)
    task = replace(task_of(tmp_path), steps=steps)
    with pytest.raises(TrainingDiverged, match="not finite between steps 1 and 2"):
        train(task)
    storage = open_storage(task.output_uri)
    note = json.loads(storage.read(f"{task.folder}/{FAILURE}"))
    assert note["type"] == "TrainingDiverged"
    assert Checkpoints(storage=storage, fingerprint="f", folder=f"{task.folder}/checkpoints").newest() is None
    train(task)  # a worker that starts again returns at once
