"""Which image is in which batch: pure functions of seed, epoch and step, the same on any number of workers.

Training sees every image at least once an epoch, in batches of one size; evaluation sees every row exactly once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vtray.errors import ConfigError, InputError
from vtray.seeding import rng_for

Order = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The batches of a training: `steps_per_epoch` of them an epoch, of `batch_size` images on all ranks together.

    An epoch is a permutation of the images; its last batch is filled from its start, so that no rank has fewer
    steps or rows than another. With `balanced_labels` (one label per image) every class gets the same share of an
    epoch, to within one draw; its images take turns, so those of a small class repeat and a large one stays
    incomplete.
    Raises: InputError without images; ConfigError for a batch size below 1 or labels of another count.
    """

    num_images: int
    batch_size: int
    seed: int
    balanced_labels: tuple[int, ...] | None = field(default=None, repr=False)
    _orders: dict[int, Order] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise InputError("no images to train on; check input.uri and the split")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size} is not allowed; it must be at least 1")
        if self.balanced_labels is not None and len(self.balanced_labels) != self.num_images:
            raise ConfigError(f"{len(self.balanced_labels)} labels for {self.num_images} images; give one each")

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show every image at least once."""
        return -(-self.num_images // self.batch_size)

    def batch(self, epoch: int, step: int) -> tuple[int, ...]:
        """Indexes of the images of one global batch, `batch_size` of them. Raises: IndexError for no such step."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of {self.steps_per_epoch}")
        rows = self._order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        return tuple(rows.tolist())

    def rank_batch(self, epoch: int, step: int, *, rank: int, size: int) -> tuple[int, ...]:
        """The part of a global batch that worker `rank` of `size` takes; parts in rank order are the batch.

        Raises: ConfigError if the batch cannot be shared out evenly.
        """
        share = self.rank_size(size)
        return self.batch(epoch, step)[rank * share : (rank + 1) * share]

    def rank_batches(self, epoch: int, *, rank: int, size: int) -> Iterator[tuple[int, ...]]:
        """The batches of one worker in one epoch, in order. Raises: as rank_batch."""
        for step in range(self.steps_per_epoch):
            yield self.rank_batch(epoch, step, rank=rank, size=size)

    def rank_size(self, size: int) -> int:
        """Images in a batch of each of `size` workers. Raises: ConfigError if they would be unequal."""
        if self.batch_size % size:
            below = self.batch_size - self.batch_size % size
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared by {size} workers; "
                f"choose a multiple of {size}, such as {below + size}, or another num_workers"
            )
        return self.batch_size // size

    def _order(self, epoch: int) -> Order:
        """Image indexes of a whole epoch, steps_per_epoch * batch_size of them; the last epoch is kept."""
        if epoch not in self._orders:
            order = self._drawn_order(epoch)
            self._orders.clear()
            self._orders[epoch] = order
        return self._orders[epoch]

    def _drawn_order(self, epoch: int) -> Order:
        rng = rng_for(self.seed, "order", epoch)
        length = self.steps_per_epoch * self.batch_size
        if self.balanced_labels is None:
            return np.resize(rng.permutation(self.num_images), length)
        return _balanced_order(np.asarray(self.balanced_labels), length, rng)


def eval_rows(num_rows: int, *, rank: int, size: int) -> range:
    """The rows that worker `rank` of `size` evaluates: all shares together are every row exactly once.

    Shares differ by at most one row and may be empty.
    """
    return range(num_rows * rank // size, num_rows * (rank + 1) // size)


def _balanced_order(labels: Order, length: int, rng: np.random.Generator) -> Order:
    """`length` image indexes: a round shows each class once, in a new order; a class deals its images in turn."""
    classes = np.unique(labels)
    rounds = -(-length // len(classes))
    turns = rng.permuted(np.tile(classes, (rounds, 1)), axis=1).ravel()[:length]
    order = np.empty(length, np.int64)
    for label in classes.tolist():
        places = np.flatnonzero(turns == label)
        order[places] = _dealt(np.flatnonzero(labels == label), len(places), rng)
    return order


def _dealt(images: Order, count: int, rng: np.random.Generator) -> Order:
    """`count` draws from a deck that is shuffled anew whenever it is used up."""
    decks = -(-count // len(images))
    return rng.permuted(np.tile(images, (decks, 1)), axis=1).ravel()[:count]
