"""A learning rate from one short sweep: train with ever larger ones and see where the loss falls fastest.

Each loss is compared with that of the first weights on the same batch, which takes out how hard a batch is. What
the sweep changes is put back: weights, buffers, optimizer, averages, random generators.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from vtray.classify.loop import Batch, Trainer
from vtray.errors import ConfigError
from vtray.seeding import seed_for

LOST = 0.5  # the sweep ends when the loss has risen by this share of what it was
RECENT = 3  # single losses are noisy: so many are looked at together
SMOOTHING = 0.04  # width of the smoothing, as a share of the sweep
NOTICEABLE = 0.01  # a fall by less than this share of the loss is none

Group = list[Batch]  # the batches of one optimizer step
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Of each step the backbone's learning rate, the loss before it, and its change since the first weights.

    suggestion: the rate to train with.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    changes: tuple[float, ...]
    suggestion: float


def find_learning_rate(
    trainer: Trainer, batches: Iterable[Batch], *, lowest: float = 1e-6, highest: float = 1.0, num_steps: int = 60
) -> Sweep:
    """The learning rate at which the loss falls fastest, of num_steps from lowest to highest in equal ratios.

    Takes num_steps * accumulate batches, holds them in memory, and leaves the trainer as it was. The same batches
    and seed give the same answer, on all ranks. The spec's own lr does not matter; head and layers keep their
    factors. Raises: ConfigError if the loss falls nowhere; ValueError if there are fewer batches.
    Source: range test, Smith 2017; instead of the eye, the steepest point of the smoothed change against log(lr).
    """
    groups = _groups(batches, num_steps, trainer.spec.accumulate)
    rates = np.geomspace(lowest, highest, num_steps)
    state, mode = trainer.state_dict(), trainer.classifier.training
    with torch.random.fork_rng(devices=[trainer.device] if trainer.device.type == "cuda" else []):
        try:
            trainer.classifier.train()
            first = [_loss(trainer, group, number, rate=None) for number, group in enumerate(groups)]
            losses = list(_sweep(trainer, groups, rates, first))
        finally:
            trainer.load_state_dict(state)
            trainer.classifier.train(mode)
    changes = np.subtract(losses, first[: len(losses)])
    width = max(1.0, SMOOTHING * num_steps)
    return Sweep(
        learning_rates=tuple(rates[: len(losses)].tolist()),
        losses=tuple(losses),
        changes=tuple(changes.tolist()),
        suggestion=steepest(rates, changes, width=width, noticeable=NOTICEABLE * float(np.mean(first))),
    )


def steepest(rates: Floats, changes: Floats, *, width: float, noticeable: float = 0.0) -> float:
    """The rate where the smoothed change of the loss falls fastest per factor of the rate, before its minimum.

    changes: may be fewer than rates, if the sweep ended early. width: standard deviation of the Gaussian
    smoothing, in steps. Raises: ConfigError if the loss falls by no more than `noticeable`.
    """
    smoothed = smooth(changes, width)
    end = int(smoothed.argmin()) if len(smoothed) else 0
    if end == 0 or smoothed[0] - smoothed[end] <= noticeable:
        raise ConfigError(
            f"lr: no learning rate from {rates[0]:.1e} on makes the loss fall; "
            "give lr as a number, or check labels and weights"
        )
    slopes = np.gradient(smoothed, np.log(rates[: len(changes)]))[: end + 1]
    return float(rates[int(slopes.argmin())])


def smooth(values: Floats, width: float) -> Floats:
    """Means under a Gaussian window that is cut off at the ends."""
    places = np.arange(len(values))
    weights = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2)
    means: Floats = weights @ values / weights.sum(1)
    return means


def _groups(batches: Iterable[Batch], num_steps: int, accumulate: int) -> list[Group]:
    taken = list(islice(batches, num_steps * accumulate))
    if len(taken) < num_steps * accumulate:
        raise ValueError(f"{len(taken)} batches for a sweep of {num_steps} x {accumulate}; give more batches")
    return [taken[first : first + accumulate] for first in range(0, len(taken), accumulate)]


def _sweep(trainer: Trainer, groups: Sequence[Group], rates: Floats, first: Sequence[float]) -> Iterator[float]:
    """The loss of one step after the other, until it is out of hand."""
    risen: list[float] = []
    for number, (group, rate) in enumerate(zip(groups, rates, strict=True)):
        loss = _loss(trainer, group, number, rate=float(rate))
        risen.append(loss / first[number] - 1)
        if not np.isfinite(loss) or np.mean(risen[-RECENT:]) > LOST:
            return
        yield loss


def _loss(trainer: Trainer, group: Group, number: int, *, rate: float | None) -> float:
    """The global loss before step `number`; trains at that rate, if any. Dropout and mixing are of the number."""
    torch.manual_seed(seed_for(trainer.spec.seed, "sweep", number, trainer.ranks.rank))
    place = (-1, number * trainer.spec.accumulate)
    if rate is None:
        sums = trainer.evaluate_step(group, place=place)
    else:
        sums = trainer.train_step(group, factor=rate / trainer.spec.lr, place=place)
    loss, weight = trainer.ranks.sum(sums)[:2].tolist()
    return float(loss / weight)
