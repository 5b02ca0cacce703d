"""A trial on stored rows is the same training as `vtray finetune` on the same rows."""

import pytest
from finetune_support import config_of, history_of, write_backbone, write_images

from pipelines import finetune
from vtray.classify.training import TrainTask
from vtray.steps.train_trial import train_trial

SAME = ("epoch", "phase", "step", "loss", "accuracy", "lr", "images", "val_loss", "val_top1", "val_images")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Run a training; gives its task and its history."""
    images, weights = write_images(tmp_path / "images"), write_backbone(tmp_path / "weights.safetensors")

    def run(**values):
        tasks = []
        real = finetune.train
        monkeypatch.setattr(
            finetune, "train", lambda job, group, report: (tasks.append(job.task), real(job, group, report=report))
        )
        finetune.run(config_of(images, tmp_path / "out", weights, **values))
        (task,) = tasks
        assert isinstance(task, TrainTask)
        return task, history_of(tmp_path / "out")

    return run


@pytest.mark.parametrize(
    "values",
    [
        {"strategy": "frozen", "freeze": 2},
        {"strategy": "lp_ft", "loop": {"probe_epochs": 1}},
        {"loop": {"epochs": 6, "patience": 1, "sampling": "balanced"}},
    ],
    ids=["frozen", "two phases", "patience"],
)
def test_a_trial_is_the_training(trained, values):
    task, history = trained(**values)
    records = list(train_trial(task))
    assert [{key: record[key] for key in SAME} for record in records] == [
        {key: record[key] for key in SAME} for record in history
    ]
    assert [record["done"] for record in records] == [False] * (len(records) - 1) + [True]
    assert all(record["seconds"] > 0 for record in records)
