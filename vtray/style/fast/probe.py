"""Which precision and layout trains a fast network fastest here, and what one step takes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from statistics import median

import torch

from vtray.style.fast.task import FastTask
from vtray.style.fast.trainer import FastTrainer
from vtray.style.work import Layout, Precision

ROUNDS = 2
LOSS_TOLERANCE = 0.02  # relative, of the first step's loss against that of fp32 nchw


@dataclass(frozen=True, kw_only=True)
class StepNumerics:
    """How steps are computed, network and features alike; seconds of one step of all that was tried, by name."""

    precision: Precision
    layout: Layout
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.precision} {self.layout}"

    @property
    def step_s(self) -> float:
        return self.seconds[self.name]


def with_numerics(task: FastTask, precision: Precision, layout: Layout) -> FastTask:
    """The same task computed in another way."""
    features = replace(task.features, precision=precision, layout=layout)
    return replace(task, precision=precision, layout=layout, features=features)


def choose_step(
    task: FastTask, *, precision: Precision | None = None, layout: Layout | None = None, crop_px: int
) -> StepNumerics:
    """The fastest of the allowed ways whose first loss agrees with fp32's; tried in turns on drawn crops.

    precision, layout: fixed by the user, or None to try both kinds. Raises: ConfigError, WeightsError.
    """
    torch.set_num_threads(task.threads)
    crops = _drawn_crops(task.steps.batch_size, crop_px)
    precisions: Sequence[Precision] = (precision,) if precision else ("fp32", "bf16")
    layouts: Sequence[Layout] = (layout,) if layout else ("nchw", "nhwc")
    ways: list[tuple[Precision, Layout]] = list(product(precisions, layouts))
    trainers = [FastTrainer(task=with_numerics(task, *way), device=task.device) for way in ways]
    losses = [float(trainer.step(crops)[0]) for trainer in trainers]  # the first step also warms up
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for trainer, taken in zip(trainers, seconds, strict=True):
            started = time.perf_counter()
            trainer.step(crops).tolist()
            taken.append(time.perf_counter() - started)
    found = {f"{way[0]} {way[1]}": median(taken) for way, taken in zip(ways, seconds, strict=True)}
    agreeing = [way for way, loss in zip(ways, losses, strict=True) if abs(loss / losses[0] - 1) <= LOSS_TOLERANCE]
    best = min(agreeing, key=lambda way: found[f"{way[0]} {way[1]}"])
    return StepNumerics(precision=best[0], layout=best[1], seconds=found)


def _drawn_crops(count: int, side: int) -> torch.Tensor:
    """Waves and grain, uint8 (count, 3, side, side)."""
    random = torch.Generator().manual_seed(0)
    grain = torch.randint(0, 40, (count, 3, side, side), generator=random)
    waves = 100 + 80 * torch.sin(torch.arange(side) / 7)
    return (waves + grain).to(torch.uint8)
