"""A whole training of a fast network: steps, records, sheets, checkpoints, and going on after a crash.

What happens is a function of the task: killed anywhere and run again, it ends with the same bits. Every few steps
leave a record in storage, written once; the driver reads them for progress and tracking.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vtray.classify.train_spec import Ranks
from vtray.classify.training import FAILURE, epoch_key, faults_noted
from vtray.errors import TrainingDiverged
from vtray.manifest import Json, canonical
from vtray.storage import Storage, open_storage
from vtray.style.fast.task import FastTask
from vtray.style.fast.trainer import SUMS, FastTrainer, Wrap
from vtray.style.fast.unseen import paint_unseen, unseen_metrics, unseen_sheet

SHEETS = "sheets"

# step -> this worker's crops of that step and of all that follow, uint8 (b, 3, H, W)
OpenStream = Callable[[int], Iterator[Tensor]]


@dataclass(kw_only=True, eq=False)
class FastTraining:
    """One process of a training. Call `run` once."""

    task: FastTask
    open_stream: OpenStream
    ranks: Ranks = field(default_factory=Ranks)
    device: str = "cpu"
    wrap: Wrap | None = None

    def run(self) -> None:
        """Train from the newest whole checkpoint to the end; a fault of the training itself is left in FAILURE.

        Raises: VtrayError; workers that start again after it return at once.
        """
        storage = open_storage(self.task.output_uri)
        if storage.exists(f"{self.task.folder}/{FAILURE}"):
            return
        torch.set_num_threads(self.task.threads)
        with faults_noted(storage, self.task.folder):
            self._train(storage)

    def _train(self, storage: Storage) -> None:
        task, checkpoints = self.task, self.task.checkpoints(storage)
        wrap = self.wrap if self.ranks.size > 1 else None
        trainer = FastTrainer(task=task, device=self.device, wrap=wrap, rank=self.ranks.rank)
        found = checkpoints.newest()
        if found:
            trainer.load_state_dict(found.state)
        stream = self.open_stream(trainer.done)
        while trainer.done < task.steps.steps:
            record = self._some_steps(trainer, stream)
            if self.ranks.rank:
                continue
            self._write(storage, trainer, record)  # before the checkpoint: who goes on from it finds all records
            if task.steps.is_due(task.steps.checkpoint_every, trainer.done):
                checkpoints.save(trainer.done, trainer.state_dict(), metrics={})
        checkpoints.wait()

    def _some_steps(self, trainer: FastTrainer, stream: Iterator[Tensor]) -> Json:
        """Steps up to the next record, and that record. Raises: TrainingDiverged."""
        steps, started, before = self.task.steps, time.perf_counter(), trainer.done
        sums = torch.zeros(len(SUMS), dtype=torch.float64)
        while trainer.done == before or not steps.is_due(steps.log_every, trainer.done):
            sums += trainer.step(next(stream)).cpu()
        images = (trainer.done - before) * steps.batch_size
        means = (self.ranks.sum(sums.to(self.device)) / images).tolist()
        if not math.isfinite(means[0]):
            raise TrainingDiverged(
                f"the loss is not finite between steps {before + 1} and {trainer.done}; the checkpoints before "
                "are kept: choose a lower loop.lr and a new output.uri"
            )
        seconds = time.perf_counter() - started
        lr = steps.lr * steps.factor(trainer.done - 1)
        facts = {"step": trainer.done, "lr": lr, "steps_per_s": (trainer.done - before) / seconds}
        return facts | dict(zip(SUMS, means, strict=True))

    def _write(self, storage: Storage, trainer: FastTrainer, record: Json) -> None:
        """Book a record, with a sheet and the losses of the unseen images where they are due."""
        task = self.task
        if task.steps.is_due(task.steps.preview_every, trainer.done):
            painted = paint_unseen(trainer)
            key = sheet_key(task.folder, trainer.done)
            title = f"after {trainer.done} of {task.steps.steps} steps"
            storage.put(key, unseen_sheet(painted, task.unseen, task.styles, title=title))
            record = record | unseen_metrics(painted) | {"sheet": key}
        number = task.steps.num_records(trainer.done) - 1
        storage.create(epoch_key(task.folder, number), canonical(record))


def sheet_key(folder: str, done: int) -> str:
    """Where the sheet after so many steps is."""
    return f"{folder}/{SHEETS}/{done:06}.png"
