"""Optimizers of pixels inside the box 0 to 1, for several images at once that never influence each other.

Each is told the loss and the gradient at a point and answers with the next point. Pixels are float32 (B, 3, H, W),
losses (B,).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vtray.style.curvature import Curvature, dot, mean_size, wide
from vtray.style.preconditioner import coarse_to_fine


class PixelOptimizer(Protocol):
    """`update` gives the next pixels; `select` drops images that are finished."""

    def update(self, pixels: Tensor, loss: Tensor, gradient: Tensor) -> Tensor: ...

    def select(self, kept: Tensor) -> None: ...


@dataclass(kw_only=True, eq=False)
class ProjectedLbfgs:
    """L-BFGS on the free pixels, projected into the box after every step, preconditioned coarse to fine.

    Pixels that lie on the box and would leave it are held, so the curvature pairs describe the free ones
    (Bertsekas 1982). There is no line search: the first step moves pixels by `first_step` on average, later ones
    have length 1. An evaluation that is worse than `tolerated_rise` allows is taken back, and the image starts
    again from its last point with no memory and a quarter of the step.
    Source: Nocedal & Wright 2006, algorithm 7.4; the initial matrix is a multiple of `coarse_to_fine`.
    """

    memory: int = 20
    first_step: float = 0.02
    tolerated_rise: float = 0.5
    _curvature: Curvature | None = None
    _last: "_Point | None" = None

    def update(self, pixels: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        here = _Point(pixels=pixels, loss=loss, gradient=gradient, trust=torch.ones_like(loss))
        if self._curvature is None:
            self._curvature = Curvature.empty(pixels, memory=self.memory)
        if self._last is not None:
            here = self._judged(here, self._last, self._curvature)
        self._last = here
        held = _held(here.pixels, here.gradient)
        free = here.gradient.masked_fill(held, 0)
        direction = self._direction(free, self._curvature).masked_fill_(held, 0)
        return (here.pixels + direction * wide(here.trust)).clamp_(0, 1)

    def select(self, kept: Tensor) -> None:
        self._curvature = self._curvature.select(kept) if self._curvature is not None else None
        self._last = self._last.select(kept) if self._last is not None else None

    def _judged(self, here: "_Point", last: "_Point", curvature: Curvature) -> "_Point":
        """The new point where it is good, the last one where it is not; remembers the curvature between them."""
        bad = ~here.loss.isfinite() | (here.loss > last.loss + self.tolerated_rise * last.loss.abs())
        if bad.any():
            here = here.replaced(bad, last)
            curvature.forget(bad)
        curvature.remember(here.pixels - last.pixels, here.gradient - last.gradient)
        return here

    def _direction(self, free: Tensor, curvature: Curvature) -> Tensor:
        """Minus the inverse Hessian times the free gradient; a first step where that would not go down."""
        direction = -curvature.solve(free, first_step=self.first_step)
        uphill = dot(direction, free) >= 0
        if not uphill.any():
            return direction
        smooth = coarse_to_fine(free)
        first = -smooth * wide(self.first_step / mean_size(smooth))
        return torch.where(wide(uphill), first, direction)


@dataclass(kw_only=True, eq=False)
class ProjectedAdam:
    """Adam with a rate that falls as a cosine over `steps`, projected into the box after every step.

    Source: Kingma & Ba 2015. Rates and the second moment's decay are those that did best in `benchmarks/style.py`.
    """

    steps: int
    first_rate: float = 0.06
    last_rate: float = 0.006
    decay: tuple[float, float] = (0.9, 0.99)
    _step: int = 0
    _mean: Tensor | None = None
    _square: Tensor | None = None

    def update(self, pixels: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        first, second = self.decay
        if self._mean is None or self._square is None:
            self._mean, self._square = torch.zeros_like(pixels), torch.zeros_like(pixels)
        self._mean = self._mean.lerp(gradient, 1 - first)
        self._square = self._square.lerp(gradient.square(), 1 - second)
        self._step += 1
        mean = self._mean / (1 - first**self._step)
        deviation = (self._square / (1 - second**self._step)).sqrt_().clamp_min_(1e-20)
        return (pixels - self._rate() * mean / deviation).clamp_(0, 1)

    def select(self, kept: Tensor) -> None:
        if self._mean is not None and self._square is not None:
            self._mean, self._square = self._mean[kept], self._square[kept]

    def _rate(self) -> float:
        progress = min((self._step - 1) / self.steps, 1)
        return self.last_rate + (self.first_rate - self.last_rate) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Point:
    """Pixels with their loss and gradient; trust: the share of a full step that an image may take from here."""

    pixels: Tensor
    loss: Tensor
    gradient: Tensor
    trust: Tensor

    def select(self, kept: Tensor) -> "_Point":
        return _Point(
            pixels=self.pixels[kept],
            loss=self.loss[kept],
            gradient=self.gradient[kept],
            trust=self.trust[kept],
        )

    def replaced(self, where: Tensor, other: "_Point") -> "_Point":
        """This point, but the other one for the images of `where`, from which they may go a quarter as far."""
        return _Point(
            pixels=torch.where(wide(where), other.pixels, self.pixels),
            loss=torch.where(where, other.loss, self.loss),
            gradient=torch.where(wide(where), other.gradient, self.gradient),
            trust=torch.where(where, other.trust / 4, self.trust),
        )


def _held(pixels: Tensor, gradient: Tensor) -> Tensor:
    """Where a pixel lies on the box and a step against the gradient would take it out."""
    return ((pixels <= 0) & (gradient > 0)) | ((pixels >= 1) & (gradient < 0))
