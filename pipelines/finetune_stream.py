"""Training images on the way: Ray Data streams each worker's own batches through loaders, ahead of the training.

One row is one batch: read, decoded, augmented and cropped in one step of one loader process. Rows come back in
order, so epochs, steps and seeds decide every batch, however many loaders there are.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from pipelines.row_stream import Row, rows_here, rows_on_ray
from vtray.classify.batches import channels_first
from vtray.classify.loop import Batch
from vtray.classify.phases import Phase
from vtray.classify.sampling import Sampling
from vtray.manifest import Json, sha256
from vtray.steps.load_batch import LoadBatch, LoadBatches, LoadedBatch
from vtray.storage import Storage

ROWS_PER_STREAM = 2048  # batches in one Ray Data execution: many short epochs share one, starting it takes seconds
BROKEN = "broken"  # folder of the images that others stood in for


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """The training images of one worker. load: what loads a batch, the same for all workers.

    here: load in a thread of this process instead. balanced: classes take equal shares. storage, folder: where
    broken images are noted.
    """

    load: LoadBatch
    sampling: Sampling
    rank: int
    size: int
    loaders: int
    storage: Storage
    folder: str
    balanced: bool = False
    here: bool = False

    def __call__(self, phase: Phase, first: int) -> Iterator[Batch]:
        """The batches of a phase from epoch `first` on, epoch after epoch."""
        steps = self.ordered.steps_per_epoch
        epochs_at_once = max(1, ROWS_PER_STREAM // steps)
        for start in range(first, phase.last_epoch + 1, epochs_at_once):
            end = min(start + epochs_at_once, phase.last_epoch + 1)
            rows = [row for epoch in range(start, end) for row in self._rows(epoch)]
            source = rows_here(rows, LoadBatches(self.load)) if self.here else self._stream(rows)
            yield from map(self._batch, source)

    @cached_property
    def ordered(self) -> Sampling:
        """The sampling with the labels that it may need."""
        if not self.balanced:
            return self.sampling
        return replace(self.sampling, balanced_labels=tuple(ref.label or 0 for ref in self.load.refs))

    def _rows(self, epoch: int) -> list[Row]:
        batches = self.ordered.rank_batches(epoch, rank=self.rank, size=self.size)
        return [{"epoch": epoch, "indexes": list(indexes)} for indexes in batches]

    def _stream(self, rows: Sequence[Row]) -> Iterator[Row]:
        return rows_on_ray(rows, LoadBatches, {"load": self.load}, loaders=self.loaders)

    def _batch(self, row: Row) -> Batch:
        for fault in row["faults"]:
            self.storage.create(f"{self.folder}/{BROKEN}/{sha256(fault.encode())[:16]}.json", fault.encode())
        images = torch.from_numpy(np.array(row["images"]))  # Ray's memory is read-only
        labels = torch.tensor(list(row["labels"]), dtype=torch.int64)
        return Batch(inputs=channels_first(images), labels=labels, image_ids=tuple(row["image_ids"]))


def load_here(load: LoadBatch, sampling: Sampling, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch, loaded in this process: for a look at a few of them."""
    for step in range(sampling.steps_per_epoch):
        loaded: LoadedBatch = load(epoch, sampling.batch(epoch, step))
        yield Batch(
            inputs=channels_first(torch.from_numpy(loaded.images)),
            labels=torch.from_numpy(loaded.labels),
            image_ids=loaded.image_ids,
        )


def read_broken(storage: Storage, folder: str) -> list[Json]:
    """What is wrong with the images that others stood in for, by image_id."""
    notes = [json.loads(storage.read(entry.key)) for entry in storage.list(f"{folder}/{BROKEN}")]
    return sorted(notes, key=lambda note: str(note["image_id"]))
