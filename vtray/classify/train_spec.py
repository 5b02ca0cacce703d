"""What the training loop is told: the spec of a training, its batches, and the processes that train together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vtray.classify.mixing import CutMix, MixUp
from vtray.classify.numerics import Layout, Precision
from vtray.classify.parameters import OptimizerName
from vtray.classify.schedule import learning_rate_factor


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """The same spec, weights and batches give the same training.

    steps_per_epoch: batches per epoch, the same on each rank. batch_size: images in a batch, over all ranks.
    accumulate: batches per optimizer step. start: the boundary of the inputs, 0 for pixels. class_weights: one per
    class, above 0. warmup_epochs: may be a fraction. ema_decay, clip_norm, layer_decay: None for none.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    lr: float
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    head_lr_factor: float = 10.0
    layer_decay: float | None = None
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    mixes: tuple[MixUp | CutMix, ...] = ()
    clip_norm: float | None = None
    accumulate: int = 1
    ema_decay: float | None = None
    class_weights: tuple[float, ...] | None = None
    precision: Precision = "fp32"
    layout: Layout = "nchw"
    seed: int = 0
    start: int = 0

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps in one epoch; the last one may have fewer batches than `accumulate`."""
        return -(-self.steps_per_epoch // self.accumulate)

    def factor(self, update: int) -> float:
        """What the learning rates of optimizer step `update` (from 0) are multiplied by."""
        num_steps = self.epochs * self.updates_per_epoch
        warmup = min(round(self.warmup_epochs * self.updates_per_epoch), num_steps - 1)
        return learning_rate_factor(update, warmup_steps=warmup, num_steps=num_steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One rank's part of a batch of B images.

    inputs: uint8 (B, 3, H, W), or activations (B, ...) of any floating type. labels: int64 (B,).
    """

    inputs: Tensor
    labels: Tensor
    image_ids: tuple[str, ...]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that train together; a lone one needs nothing.

    sum: over all ranks, of a tensor on the device of the training. min: of a number. All ranks call them in the
    same order.
    """

    rank: int = 0
    size: int = 1
    sum: Callable[[Tensor], Tensor] = _same
    min: Callable[[int], int] = _same


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Means over the images of all ranks.

    loss: the one that was minimized: smoothed, weighted, mixed. accuracy: how many had their largest logit at the
    label from before any mixing, 0 to 1. lr: the backbone's, in the last step. images: seen, on all ranks.
    """

    loss: float
    accuracy: float
    lr: float
    images: int
    seconds: float
