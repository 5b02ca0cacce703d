import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from vtray.style.optimizers import ProjectedAdam, ProjectedLbfgs

SHAPE = (3, 6, 7)
OPTIMIZERS = {"lbfgs": ProjectedLbfgs, "adam": lambda: ProjectedAdam(steps=200)}


class Bowl:
    """Half the squared distance to `lowest` (B, 3, H, W), each pixel weighed by its own stiffness."""

    def __init__(self, lowest, stiffness):
        self.lowest, self.stiffness = lowest, stiffness

    @classmethod
    def random(cls, *, batch=1, reach=0.4, seed=0):
        """Lowest points up to `reach` from the middle of the box, stiffness from 1 to 10."""
        random = torch.Generator().manual_seed(seed)
        lowest = 0.5 + (torch.rand(batch, *SHAPE, generator=random) - 0.5) * 2 * reach
        return cls(lowest, 1 + 9 * torch.rand(batch, *SHAPE, generator=random))

    def double(self):
        return Bowl(self.lowest.double(), self.stiffness.double())

    def __call__(self, pixels):
        away = pixels - self.lowest
        return (self.stiffness * away**2).flatten(1).sum(1) / 2, self.stiffness * away

    def only(self, kept):
        return Bowl(self.lowest[kept], self.stiffness[kept])


def middle(batch=1):
    return torch.full((batch, *SHAPE), 0.5)


def descend(optimizer, objective, pixels, *, steps):
    """All points, the start first."""
    points = [pixels]
    for _ in range(steps):
        loss, gradient = objective(points[-1])
        points.append(optimizer.update(points[-1], loss, gradient))
    return points


def lowest_of(points, objective):
    return min(points, key=lambda pixels: objective(pixels)[0].item())


# both optimizers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("reach", [0.4, 1.5])
def test_separable_bowls_end_at_the_lowest_point_or_on_the_box_beside_it(make, reach):
    bowl = Bowl.random(reach=reach).double()
    best = lowest_of(descend(make(), bowl, middle().double(), steps=200), bowl)
    np.testing.assert_allclose(best, bowl.lowest.clamp(0, 1), atol=1e-4)


def coupled(seed, condition):
    """A quadratic of all pixels together whose lowest point lies outside of the box: matrix, lowest point."""
    random = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(random.standard_normal((math.prod(SHAPE),) * 2))
    stiffness = np.geomspace(1, condition, math.prod(SHAPE))
    return (axes * stiffness) @ axes.T, random.uniform(-1, 2, math.prod(SHAPE))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("condition", [10, 100])
def test_coupled_bowls_end_where_scipy_s_bounded_lbfgs_does(make, condition):
    matrix, lowest = coupled(1, condition)

    def loss_of(values):
        return (values - lowest) @ matrix @ (values - lowest) / 2

    def gradient_of(values):
        return matrix @ (values - lowest)

    def objective(pixels):
        values = pixels.flatten().numpy()
        return torch.tensor([loss_of(values)]), torch.from_numpy(gradient_of(values)).view(1, *SHAPE)

    reference = minimize(
        loss_of, np.full(len(lowest), 0.5), jac=gradient_of, bounds=[(0, 1)] * len(lowest), method="L-BFGS-B"
    )
    assert 0.2 < np.mean((reference.x == 0) | (reference.x == 1)) < 0.9  # the box matters, and not everywhere
    best = lowest_of(descend(make(), objective, middle().double(), steps=200), objective)
    assert objective(best)[0].item() == pytest.approx(reference.fun, rel=1e-4)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_pixels_never_leave_the_box(make):
    def waves(pixels):  # neither convex nor bounded below by much
        return (pixels * 40).sin().flatten(1).sum(1), 40 * (pixels * 40).cos()

    start = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    points = descend(make(), waves, start, steps=40)
    assert all(pixels.min() >= 0 and pixels.max() <= 1 for pixels in points)
    assert max((one - other).abs().max() for one, other in pairwise(points)) > 0.01


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_batch_is_its_images_one_by_one_exactly(make):
    bowl = Bowl.random(batch=3, reach=0.8)
    together = descend(make(), bowl, middle(3), steps=25)
    for number in range(3):
        alone = descend(make(), bowl.only([number]), middle(), steps=25)
        assert all(torch.equal(all_[number], one[0]) for all_, one in zip(together, alone, strict=True))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_select_drops_images_and_the_others_go_on_as_before(make):
    bowl = Bowl.random(batch=3, reach=0.8)
    optimizer, kept = make(), torch.tensor([True, False, True])
    first = descend(optimizer, bowl, middle(3), steps=6)[-1]
    optimizer.select(kept)
    selected = descend(optimizer, bowl.only(kept), first[kept], steps=6)[-1]
    whole = descend(make(), bowl, middle(3), steps=12)[-1]
    assert torch.equal(selected, whole[kept])


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_nothing_moves_where_the_gradient_is_zero(make):
    optimizer = make()
    for _ in range(3):
        assert torch.equal(optimizer.update(middle(), torch.zeros(1), torch.zeros(1, *SHAPE)), middle())


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_arguments_stay_as_they_were(make):
    optimizer, pixels = make(), middle()
    for number in range(3):
        gradient = torch.full_like(pixels, 1.0 + number)
        optimizer.update(pixels, torch.ones(1), gradient)
        assert torch.equal(pixels, middle())
        assert torch.equal(gradient, torch.full_like(pixels, 1.0 + number))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_select_before_the_first_step_is_allowed(make):
    optimizer = make()
    optimizer.select(torch.tensor([True, False]))
    assert optimizer.update(middle(), torch.ones(1), torch.ones(1, *SHAPE)).shape == (1, *SHAPE)


# L-BFGS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_the_first_step_moves_pixels_by_two_percent_on_average_whatever_the_loss_is_scaled_by(scale):
    bowl = Bowl.random(reach=0.3)
    loss, gradient = bowl(middle())
    moved = ProjectedLbfgs().update(middle(), loss * scale, gradient * scale) - middle()
    assert moved.abs().mean().item() == pytest.approx(0.02, rel=1e-3)
    assert (moved * gradient).sum() < 0


def test_a_scaled_loss_takes_the_same_way():
    bowl = Bowl.random(reach=0.8)
    plain = descend(ProjectedLbfgs(), bowl, middle(), steps=15)[-1]
    scaled = descend(ProjectedLbfgs(), lambda pixels: [1024 * part for part in bowl(pixels)], middle(), steps=15)
    torch.testing.assert_close(scaled[-1], plain)


def test_lbfgs_needs_fewer_evaluations_than_adam():
    matrix, lowest = coupled(2, 100)
    matrix, lowest = torch.from_numpy(matrix).float(), torch.from_numpy(lowest).float().view(1, *SHAPE)

    def objective(pixels):
        gradient = (matrix @ (pixels - lowest).flatten()).view(1, *SHAPE)
        return ((pixels - lowest) * gradient).flatten(1).sum(1) / 2, gradient

    least = [
        objective(lowest_of(descend(make(), objective, middle(), steps=15), objective))[0].item()
        for make in (ProjectedLbfgs, lambda: ProjectedAdam(steps=15))
    ]
    assert least[0] < 0.99 * least[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.6])
def test_a_bad_evaluation_is_taken_back_and_the_step_quartered(bad):
    """The loss was 1; NaN, infinity and more than half above it are bad, as often as they come."""
    optimizer, gradient = ProjectedLbfgs(), Bowl.random(reach=0.3)(middle())[1]
    first = optimizer.update(middle(), torch.ones(1), gradient) - middle()
    for divisor in (4, 16, 64):
        wrong = torch.full((1, *SHAPE), math.nan if math.isnan(bad) else 1e6)
        again = optimizer.update(middle() + first, torch.tensor([bad]), wrong)
        torch.testing.assert_close(again - middle(), first / divisor)


def test_a_small_rise_is_kept():
    """Told of 1.4 after 1 it goes on from the new point, on what it learned between them."""
    optimizer, bowl = ProjectedLbfgs(), Bowl.random(reach=0.3)
    first = optimizer.update(middle(), torch.ones(1), bowl(middle())[1])
    second = optimizer.update(first, torch.full((1,), 1.4), bowl(first)[1])
    kept = descend(ProjectedLbfgs(), bowl, middle(), steps=2)[-1]
    assert torch.equal(second, kept)


def test_after_a_bad_evaluation_it_still_finds_the_lowest_point():
    bowl, calls = Bowl.random(reach=1.5).double(), []

    def broken_now_and_then(pixels):
        calls.append(pixels)
        loss, gradient = bowl(pixels)
        return (loss * math.nan, gradient * math.nan) if len(calls) in (2, 7, 8, 20) else (loss, gradient)

    best = lowest_of(descend(ProjectedLbfgs(), broken_now_and_then, middle().double(), steps=100), bowl)
    np.testing.assert_allclose(best, bowl.lowest.clamp(0, 1), atol=1e-4)


def test_a_broken_image_leaves_the_others_of_its_batch_alone():
    bowl = Bowl.random(batch=2, reach=0.8)

    def one_broken(pixels):
        loss, gradient = bowl(pixels)
        worth = torch.tensor([1, math.nan])
        return loss * worth, gradient * worth.view(2, 1, 1, 1)

    together = descend(ProjectedLbfgs(), one_broken, middle(2), steps=20)
    alone = descend(ProjectedLbfgs(), bowl.only([0]), middle(), steps=20)
    assert torch.equal(together[-1][:1], alone[-1])


def test_pixels_on_the_box_that_would_leave_it_are_held():
    """All are black; the loss falls further down on the left, upwards on the right: only these move."""
    pixels = torch.zeros(1, *SHAPE)
    gradient = torch.ones(1, *SHAPE)
    gradient[..., 4:] = -1
    moved = ProjectedLbfgs().update(pixels, torch.ones(1), gradient)
    assert moved[..., :4].abs().max() == 0
    assert moved[..., 4:].min() > 0


@pytest.mark.parametrize("memory", [1, 3])
def test_a_short_memory_is_enough_for_a_bowl(memory):
    bowl = Bowl.random(reach=0.8).double()
    best = lowest_of(descend(ProjectedLbfgs(memory=memory), bowl, middle().double(), steps=150), bowl)
    np.testing.assert_allclose(best, bowl.lowest.clamp(0, 1), atol=1e-3)


# Adam ------------------------------------------------------------------------------------------------------------


def test_the_rate_falls_as_half_a_cosine_by_hand():
    """Under an unchanging gradient Adam steps by its rate: 0.06, the mean of both in the middle, then 0.006."""
    optimizer, pixels, rates = ProjectedAdam(steps=8), middle(), []
    for _ in range(12):
        moved = optimizer.update(pixels, torch.ones(1), torch.full_like(pixels, 5.0))
        rates.append((pixels - moved).mean().item())
    at_quarter = 0.006 + 0.054 * (1 + math.cos(math.pi / 4)) / 2
    assert [rates[0], rates[2], rates[4]] == pytest.approx([0.06, at_quarter, 0.033], rel=1e-3)
    assert rates[8:] == pytest.approx([0.006] * 4, rel=1e-3)


def test_at_a_fixed_rate_it_is_torch_s_adam():
    bowl = Bowl.random(reach=0.3)
    theirs = middle().requires_grad_()
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=0)
    points = descend(ProjectedAdam(steps=30, first_rate=0.01, last_rate=0.01), bowl, middle(), steps=30)
    for pixels in points[1:]:
        theirs.grad = bowl(theirs.detach())[1]
        reference.step()
        torch.testing.assert_close(pixels, theirs.detach(), rtol=1e-4, atol=1e-5)
