"""Minimizing an objective over the pixels of a batch, keeping the best 8-bit image that was met.

B images, H rows, W columns; pixels are float32 (B, 3, H, W) in 0 to 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vtray.style.objective import Objective
from vtray.style.optimizers import PixelOptimizer
from vtray.style.pixels import rounded

Report = Callable[[Tensor, Tensor], None]  # told the best 8-bit pixels and the steps of each image, at every check
CHECK_EVERY = 10  # evaluations between looks at the 8-bit image; each look costs a third of an evaluation


@dataclass(frozen=True, kw_only=True, eq=False)
class Minimum:
    """The best pixels of each image, on 256 levels where `steps` ended in a check, and evaluations spent, (B,)."""

    pixels: Tensor
    steps: Tensor


def minimize(
    objective: Objective,
    start: Tensor,
    optimizer: PixelOptimizer,
    *,
    steps: int,
    tolerance: float,
    report: Report | None = None,
) -> Minimum:
    """At most `steps` evaluations; an image ends when from one check to the next its 8-bit loss falls by
    less than the fraction `tolerance`."""
    best = _Best.of(objective, start)
    pixels, here = start, objective
    for step in range(1, steps + 1):
        loss, gradient = here.evaluate(pixels)
        best.see(pixels, loss)
        if step % CHECK_EVERY == 0 or step == steps:
            going = best.check(here, step=step, tolerance=tolerance)
            if report is not None:
                report(best.pixels, best.steps)
            if not going.any():
                break
            if not going.all():
                here = here.select(going)
                optimizer.select(going)
                pixels, loss, gradient = pixels[going], loss[going], gradient[going]
        pixels = optimizer.update(pixels, loss, gradient)
    return Minimum(pixels=best.pixels, steps=best.steps)


@dataclass(kw_only=True, eq=False)
class _Best:
    """The best 8-bit image of each, and the best float pixels so far of those still going."""

    pixels: Tensor
    loss: Tensor
    steps: Tensor
    going: Tensor  # indices into the batch
    candidate: Tensor
    candidate_loss: Tensor

    @classmethod
    def of(cls, objective: Objective, start: Tensor) -> "_Best":
        first = rounded(start)
        loss = objective.measure(first).total
        return cls(
            pixels=first,
            loss=loss,
            steps=torch.zeros(len(start), dtype=torch.int64),
            going=torch.arange(len(start), device=start.device),
            candidate=start.clone(),
            candidate_loss=torch.full_like(loss, torch.inf),
        )

    def see(self, pixels: Tensor, loss: Tensor) -> None:
        better = loss < self.candidate_loss
        self.candidate = torch.where(better.view(-1, 1, 1, 1), pixels, self.candidate)
        self.candidate_loss = torch.where(better, loss, self.candidate_loss)

    def check(self, objective: Objective, *, step: int, tolerance: float) -> Tensor:
        """Measure the candidates as 8-bit images, keep those that are better; which of them go on."""
        image = rounded(self.candidate)
        loss = objective.measure(image).total
        earlier = self.loss[self.going]
        better = loss < earlier
        self.pixels[self.going[better]] = image[better]
        self.loss[self.going[better]] = loss[better]
        self.steps[self.going.cpu()] = step
        goes_on = (earlier - loss) > tolerance * earlier
        self.going = self.going[goes_on]
        self.candidate, self.candidate_loss = self.candidate[goes_on], self.candidate_loss[goes_on]
        return goes_on
