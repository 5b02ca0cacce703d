"""All that the training of a fast network depends on, as plain values that travel to the workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vtray.classify.checkpoint import Checkpoints
from vtray.classify.schedule import learning_rate_factor
from vtray.storage import Storage
from vtray.style.fast.keys import FastEngine
from vtray.style.work import FeatureSpec, Image, Layout, LossSpec, Precision, StyleImage


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """The network. width: channels at full size. filters, num_blocks: of `msgnet`."""

    engine: FastEngine = "feedforward"
    width: int = 16
    filters: int = 32
    num_blocks: int = 4


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """The steps of a training, and every how many of them something is written.

    batch_size: crops in a step, of all workers together. log_every: a record of the mean losses; preview_every: a
    sheet and the losses of the unseen images; checkpoint_every: a multiple of log_every.
    """

    steps: int
    batch_size: int
    lr: float
    warmup_steps: int = 0
    log_every: int = 10
    preview_every: int = 250
    checkpoint_every: int = 100

    def factor(self, step: int) -> float:
        """What the learning rate of a step, counted from 0, is multiplied by."""
        warmup = min(self.warmup_steps, self.steps - 1)
        return learning_rate_factor(step, warmup_steps=warmup, num_steps=self.steps)

    def is_due(self, every: int, done: int) -> bool:
        """Whether something is due after so many steps; everything is after the last."""
        return done % every == 0 or done == self.steps

    def num_records(self, done: int) -> int:
        """Records that are written after so many steps."""
        return -(-done // self.log_every) if done == self.steps else done // self.log_every


@dataclass(frozen=True, kw_only=True, eq=False)
class FastTask:
    """The same task gives the same weights. folder: of the training's state in the output.

    style_px: longer sides that a style image takes in turn, the usual one first. unseen: images that are never
    trained on, uint8 (H, W, 3), by name. precision, layout: of the network; those of the features are their own.
    """

    output_uri: str
    folder: str
    fingerprint: str
    network: NetworkSpec
    styles: tuple[StyleImage, ...]
    style_px: tuple[int, ...]
    features: FeatureSpec
    loss: LossSpec
    steps: StepSpec
    unseen: Mapping[str, Image]
    precision: Precision = "fp32"
    layout: Layout = "nchw"
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1

    def checkpoints(self, storage: Storage) -> Checkpoints:
        """The checkpoints of this training; an epoch is a step there."""
        return Checkpoints(
            storage=storage,
            fingerprint=self.fingerprint,
            folder=f"{self.folder}/checkpoints",
            keep_best=0,
        )


State = dict[str, Any]
