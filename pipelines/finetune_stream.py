"""Training images on the way: Ray Data streams each worker's own batches through loaders, ahead of the training.

One row is one batch: read, decoded, augmented and cropped in one step of one loader process. Rows come back in
order, so epochs, steps and seeds decide every batch, however many loaders there are.
"""

import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from vtray.classify.batches import channels_first
from vtray.classify.loop import Batch
from vtray.classify.phases import Phase
from vtray.classify.sampling import Sampling
from vtray.manifest import Json, sha256
from vtray.steps.load_batch import LoadBatch, LoadBatches, LoadedBatch
from vtray.storage import Storage

LOADER_CPUS = 0  # loaders use what the training leaves over: workers may hold every CPU, and any share would wait
ROWS_PER_STREAM = 2048  # batches in one Ray Data execution: many short epochs share one, starting it takes seconds
AHEAD = 3  # batches that wait in this process
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
            for row in self._loaded_here(rows) if self.here else self._stream(rows):
                yield self._batch(row)

    @cached_property
    def ordered(self) -> Sampling:
        """The sampling with the labels that it may need."""
        if not self.balanced:
            return self.sampling
        return replace(self.sampling, balanced_labels=tuple(ref.label or 0 for ref in self.load.refs))

    def _rows(self, epoch: int) -> list[dict[str, Any]]:
        batches = self.ordered.rank_batches(epoch, rank=self.rank, size=self.size)
        return [{"epoch": epoch, "indexes": list(indexes)} for indexes in batches]

    def _loaded_here(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows loaded by one thread, some ahead of the training."""
        loader, waiting = LoadBatches(self.load), deque[Future[dict[str, Any]]]()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
            for row in rows:
                waiting.append(pool.submit(loader, row))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _stream(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.WARNING)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        dataset = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
            LoadBatches,
            fn_constructor_kwargs={"load": self.load},
            num_cpus=LOADER_CPUS,
            compute=ray.data.ActorPoolStrategy(size=self.loaders),
        )
        yield from dataset.iter_rows()

    def _batch(self, row: dict[str, Any]) -> Batch:
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
