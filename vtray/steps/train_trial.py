"""What a worker does with one trial of a search: a short training on stored rows that writes nothing.

One process, no other ranks, no checkpoints: a trial that dies is begun again, which is cheap on stored rows.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from vtray.classify.activations import Activations
from vtray.classify.batches import StoredRows
from vtray.classify.freezing import freeze
from vtray.classify.loop import Ranks, Trainer
from vtray.classify.sampling import Sampling
from vtray.classify.training import PhaseRows, TrainTask, epoch_record, is_over, validate
from vtray.manifest import Json
from vtray.steps.worker import prepare_worker


def train_trial(task: TrainTask) -> Iterator[Json]:
    """The record of each epoch as soon as it is done, as a training would book it; the last one has `done`.

    Raises: VtrayError, such as TrainingDiverged.
    """
    prepare_worker()
    torch.set_num_threads(task.threads)
    classifier = task.build()
    history: list[Json] = []
    for number, phase in enumerate(task.phases):
        freeze(classifier, phase.frozen)
        trainer = Trainer(classifier, task.spec_of(number), preprocessing=task.preprocessing, device=task.device)
        train, val = _rows(task.rows[number])
        for epoch in range(phase.first_epoch, phase.last_epoch + 1):
            started = time.perf_counter()
            batches = train.batches(_sampling(task, train), epoch, rank=0, size=1)
            trained = trainer.train_epoch(epoch - phase.first_epoch, batches)
            record = epoch_record(task, (epoch, number), trainer, trained) | validate(trainer, val, Ranks())
            history.append(record)
            done = is_over(history, task)
            yield record | {"seconds": time.perf_counter() - started, "done": done}
            if done:
                return


def _rows(rows: PhaseRows) -> tuple[StoredRows, StoredRows]:
    """Training and validation rows of a phase; each phase may have a boundary of its own."""
    assert rows.train is not None, "trials train on stored rows"
    train = StoredRows(rows=Activations.load(rows.train, "train"), views=rows.views)
    return train, StoredRows(rows=Activations.load(rows.val, "val"))


def _sampling(task: TrainTask, train: StoredRows) -> Sampling:
    if not task.balanced:
        return task.sampling
    return replace(task.sampling, balanced_labels=tuple(train.labels.tolist()))
