"""Batches for training and validation out of rows that are on disk already: activations, or prepared crops.

B batch, C channels, H W height and width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtray.classify.activations import Activations
from vtray.classify.loop import Batch
from vtray.classify.sampling import Sampling, eval_rows

EVAL_BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRows:
    """The rows of one split. views: augmented views of each image, 0 for the plain ones alone."""

    rows: Activations
    views: int = 0

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.rows.labels

    def batches(self, sampling: Sampling, epoch: int, *, rank: int, size: int) -> Iterator[Batch]:
        """The training batches of one rank in one epoch; epochs take turns at the views."""
        view = 1 + epoch % self.views if self.views else 0
        for indexes in sampling.rank_batches(epoch, rank=rank, size=size):
            yield self.batch(indexes, view=view)

    def batch(self, indexes: Sequence[int] | range, *, view: int = 0) -> Batch:
        """The rows of these images."""
        places = np.asarray(indexes, np.int64)
        return Batch(
            inputs=channels_first(self.rows.rows(places, view)),
            labels=torch.from_numpy(self.rows.labels[places]),
            image_ids=tuple(self.rows.image_ids[index] for index in indexes),
        )

    def evaluation(self, *, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """The plain rows of one rank, each row on exactly one rank."""
        share = eval_rows(len(self.rows), rank=rank, size=size)
        for first in range(share.start, share.stop, EVAL_BATCH):
            yield self.batch(range(first, min(first + EVAL_BATCH, share.stop)))


def channels_first(rows: Tensor) -> Tensor:
    """Crops (B, H, W, 3) as (B, 3, H, W), without moving a byte; activations as they are."""
    return rows.permute(0, 3, 1, 2) if rows.dtype == torch.uint8 else rows
