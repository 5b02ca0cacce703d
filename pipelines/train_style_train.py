"""What a worker of train-style does: its training, with its crops loaded ahead of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.row_stream import Row, rows_here, rows_on_ray
from pipelines.train_group import Place, only_place, place_of
from vtray.classify.batches import channels_first
from vtray.classify.sampling import Sampling
from vtray.manifest import sha256
from vtray.steps.load_crops import LoadCropRows, LoadCrops
from vtray.steps.worker import prepare_worker
from vtray.storage import Storage, open_storage
from vtray.style.fast.task import FastTask
from vtray.style.fast.training import FastTraining

ROWS_PER_STREAM = 2048  # batches in one Ray Data execution; starting one takes seconds
BROKEN = "broken"  # folder of the images that others stood in for


@dataclass(frozen=True, kw_only=True, eq=False)
class CropStream:
    """The crops of one worker. here: load in a thread of this process. storage, folder: where faults are noted."""

    load: LoadCrops
    sampling: Sampling
    steps: int
    rank: int
    size: int
    loaders: int
    storage: Storage
    folder: str
    here: bool = False

    def __call__(self, first: int) -> Iterator[torch.Tensor]:
        """uint8 (b, 3, H, W) of step `first` and of all that follow."""
        for start in range(first, self.steps, ROWS_PER_STREAM):
            rows = [self._row(step) for step in range(start, min(start + ROWS_PER_STREAM, self.steps))]
            yield from map(self._crops, rows_here(rows, LoadCropRows(self.load)) if self.here else self._ray(rows))

    def _row(self, step: int) -> Row:
        epoch, within = divmod(step, self.sampling.steps_per_epoch)
        indexes = self.sampling.rank_batch(epoch, within, rank=self.rank, size=self.size)
        return {"step": step, "first": self.rank * len(indexes), "indexes": list(indexes)}

    def _ray(self, rows: list[Row]) -> Iterator[Row]:
        return rows_on_ray(rows, LoadCropRows, {"load": self.load}, loaders=self.loaders)

    def _crops(self, row: Row) -> torch.Tensor:
        for fault in row["faults"]:
            self.storage.create(f"{self.folder}/{BROKEN}/{sha256(fault.encode())[:16]}.json", fault.encode())
        return channels_first(torch.from_numpy(np.array(row["images"])))  # Ray's memory is read-only


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleJob:
    """What is sent to every worker."""

    task: FastTask
    load: LoadCrops
    sampling: Sampling
    loaders: int

    def alone(self) -> None:
        """In the only worker, which sees its own GPU: train to the end."""
        prepare_worker()
        self._train(only_place(self.task))

    def in_group(self) -> None:
        """In a worker of Ray Train: train to the end."""
        prepare_worker()
        self._train(place_of(self.task))

    def here(self) -> None:
        """In this process, without Ray."""
        self._train(only_place(self.task), here=True)

    def _train(self, place: Place, *, here: bool = False) -> None:
        FastTraining(
            task=self.task,
            ranks=place.ranks,
            device=place.device,
            wrap=place.wrap,
            open_stream=self.stream(place.ranks.rank, place.ranks.size, here=here),
        ).run()

    def stream(self, rank: int, size: int, *, here: bool = False) -> CropStream:
        """What loads the crops of one worker."""
        return CropStream(
            load=self.load,
            sampling=self.sampling,
            steps=self.task.steps.steps,
            rank=rank,
            size=size,
            loaders=self.loaders,
            storage=open_storage(self.task.output_uri),
            folder=self.task.folder,
            here=here,
        )
