from dataclasses import dataclass, field

import pytest
import torch

from vtray.style.engines.minimize import CHECK_EVERY, minimize
from vtray.style.optimizers import ProjectedAdam, ProjectedLbfgs
from vtray.style.pixels import rounded

SHAPE = (3, 8, 8)


@dataclass
class Total:
    total: torch.Tensor


@dataclass
class Distance:
    """The squared distance of each image to `lowest`, (B, 3, H, W), plus `floor`; counts its evaluations."""

    lowest: torch.Tensor
    floor: float = 0.0
    batches: list[int] = field(default_factory=list)

    def evaluate(self, pixels):
        self.batches.append(len(pixels))
        return self.measure(pixels).total, 2 * (pixels - self.lowest)

    def measure(self, pixels):
        return Total((pixels - self.lowest).square().flatten(1).sum(1) + self.floor)

    def select(self, kept):
        return Distance(self.lowest[kept], self.floor, self.batches)


@dataclass
class Script:
    """An optimizer that goes to given grey levels, one after the other, whatever the loss is there."""

    levels: list[float]
    selected: list[list[bool]] = field(default_factory=list)

    def update(self, pixels, loss, gradient):
        return torch.full_like(pixels, self.levels.pop(0) if self.levels else 0.5)

    def select(self, kept):
        self.selected.append(kept.tolist())


def grey(*levels):
    return torch.stack([torch.full(SHAPE, float(level)) for level in levels])


def levels_of(pixels):
    return [round(image.mean().item(), 3) for image in pixels]


def test_the_best_point_on_the_way_is_kept():
    levels = [0.2, 0.4, 0.7, 0.5, 0.9, 0.1]
    found = minimize(Distance(grey(0.69)), grey(0), Script(levels), steps=7, tolerance=0)
    assert levels_of(found.pixels) == [round(round(0.7 * 255) / 255, 3)]
    assert found.steps.tolist() == [7]


def test_never_worse_than_the_start():
    found = minimize(Distance(grey(0.2)), grey(0.2), Script([0.5, 0.9, 0.3]), steps=4, tolerance=0)
    assert torch.equal(found.pixels, rounded(grey(0.2)))


def test_pixels_are_those_of_an_8_bit_image():
    lowest = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = minimize(Distance(lowest), grey(0.5, 0.5), ProjectedLbfgs(), steps=25, tolerance=0)
    assert torch.equal(found.pixels, rounded(found.pixels))
    assert (found.pixels - lowest).abs().max() < 1.01 / 255


def test_the_8_bit_loss_decides_and_not_the_one_that_was_promised():
    """100.45 of 255 promises less than 100.6, but becomes 100 where that becomes 101, the lowest point."""

    class Promise(Distance):
        def evaluate(self, pixels):
            loss, gradient = super().evaluate(pixels)
            return loss - 1000 * (pixels.mean() == grey(100.45 / 255).mean()), gradient

    objective = Promise(grey(101 / 255))
    found = minimize(objective, grey(101 / 255), Script([100.45 / 255, 100.6 / 255]), steps=3, tolerance=0)
    assert torch.equal(found.pixels, rounded(grey(101 / 255)))


def test_no_steps_give_the_start():
    objective = Distance(grey(1.0))
    found = minimize(objective, grey(0.3), Script([]), steps=0, tolerance=0)
    assert torch.equal(found.pixels, rounded(grey(0.3)))
    assert (found.steps.tolist(), objective.batches) == ([0], [])


@pytest.mark.parametrize("steps", [1, 9, 10, 11, 20, 23])
def test_no_more_evaluations_than_steps(steps):
    objective = Distance(grey(0.2, 0.9), floor=1.0)
    adam = ProjectedAdam(steps=1000, first_rate=0.001, last_rate=0.001)  # slow: it never comes to rest
    found = minimize(objective, grey(0.5, 0.5), adam, steps=steps, tolerance=0)
    assert objective.batches == [2] * steps
    assert found.steps.tolist() == [steps, steps]


def test_an_image_that_gains_too_little_ends_and_the_others_go_on():
    """The first is there already; the second gains over 10 % every ten steps for longer."""
    objective = Distance(grey(0.5, 0.95), floor=0.01)
    optimizer = ProjectedAdam(steps=60, first_rate=0.01, last_rate=0.01)
    found = minimize(objective, grey(0.5, 0.2), optimizer, steps=60, tolerance=0.1)
    assert found.steps[0] == CHECK_EVERY
    assert 2 * CHECK_EVERY < found.steps[1] <= 60
    assert objective.batches == [2] * CHECK_EVERY + [1] * (int(found.steps[1]) - CHECK_EVERY)
    assert torch.equal(found.pixels[:1], rounded(grey(0.5)))
    assert levels_of(found.pixels)[1] > 0.7


@pytest.mark.parametrize(("tolerance", "steps"), [(0.06, 10), (0.04, 20)])
def test_the_gain_is_relative_to_the_loss_at_the_last_check(tolerance, steps):
    """51 levels over 0 are a loss of 192 (51 / 255)^2 = 7.68, 30 levels are 2.66: 5 % less of 100 in ten steps."""
    objective = Distance(grey(0), floor=100 - 7.68)
    found = minimize(objective, grey(51 / 255), Script([30 / 255] * 30), steps=30, tolerance=tolerance)
    assert found.steps.item() == steps


def test_a_batch_is_its_images_one_by_one_also_after_some_have_ended():
    lowest = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    start = grey(0.5, 0.1, 0.9)
    start[0] = lowest[0]

    def run(numbers):
        objective = Distance(lowest[numbers], floor=0.1)
        return minimize(objective, start[numbers], ProjectedLbfgs(), steps=40, tolerance=0.01)

    together = run([0, 1, 2])
    for number in range(3):
        alone = run([number])
        assert torch.equal(alone.pixels[0], together.pixels[number])
        assert alone.steps[0] == together.steps[number]


def test_an_image_that_is_not_a_number_ends_as_it_began():
    lowest = grey(0.5, 0.7)
    lowest[0] = torch.nan
    found = minimize(Distance(lowest), grey(0.2, 0.2), ProjectedLbfgs(), steps=30, tolerance=0)
    assert torch.equal(found.pixels[:1], rounded(grey(0.2)))
    assert found.steps[0] == CHECK_EVERY
    assert levels_of(found.pixels)[1] == pytest.approx(0.7, abs=0.003)


def test_it_reports_the_best_so_far_at_every_check():
    told = []

    def report(pixels, steps):
        told.append((levels_of(pixels), steps.tolist()))

    adam = ProjectedAdam(steps=25, first_rate=0.01, last_rate=0.01)
    found = minimize(Distance(grey(0.9)), grey(0.5), adam, steps=25, tolerance=0, report=report)
    assert [steps for _, steps in told] == [[10], [20], [25]]
    assert told == sorted(told)  # nearer to white each time
    assert told[-1] == (levels_of(found.pixels), found.steps.tolist())
