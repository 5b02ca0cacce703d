import pytest
import torch

from vtray.style.curvature import Curvature, dot, mean_size, wide
from vtray.style.preconditioner import coarse_to_fine

SHAPE = (3, 5, 6)
FIRST_STEP = 0.02


def random_image(seed, *, batch=1):
    return torch.randn(batch, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs_of(number, *, batch=1, seed=0):
    """Moves and the changes of the gradient of a bowl along them: stiffness 1 to 4, so every pair is useful."""
    stiffness = 1 + 3 * torch.rand(batch, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    moves = [random_image(seed + n, batch=batch) for n in range(number)]
    return [(move, move * stiffness) for move in moves]


def remembered(pairs, *, memory=4):
    curvature = Curvature.empty(pairs[0][0], memory=memory)
    for move, change in pairs:
        curvature.remember(move, change)
    return curvature


def two_loops(pairs, gradient):
    """Algorithm 7.4 of Nocedal & Wright for one image, word by word; H0 fits the newest pair."""
    rest, factors = gradient.clone(), []
    for move, change in reversed(pairs):
        factors.append((move * rest).sum() / (move * change).sum())
        rest -= factors[-1] * change
    move, change = pairs[-1]
    result = coarse_to_fine(rest) * ((move * change).sum() / (change * coarse_to_fine(change)).sum())
    for (move, change), factor in zip(pairs, reversed(factors), strict=True):
        result += (factor - (change * result).sum() / (move * change).sum()) * move
    return result


def solve(curvature, gradient):
    return curvature.solve(gradient, first_step=FIRST_STEP)


@pytest.mark.parametrize("number", [1, 3, 4, 5, 11])
def test_it_is_the_two_loop_recursion_over_the_last_pairs(number):
    pairs, gradient = pairs_of(number), random_image(50)
    torch.testing.assert_close(solve(remembered(pairs), gradient), two_loops(pairs[-4:], gradient))


def test_the_newest_change_gives_its_move_back():
    """The secant equation, which every quasi-Newton method keeps."""
    pairs = pairs_of(6)
    move, change = pairs[-1]
    torch.testing.assert_close(solve(remembered(pairs), change), move)


def test_it_is_symmetric_and_goes_down():
    curvature, one, other = remembered(pairs_of(3)), random_image(50), random_image(51)
    torch.testing.assert_close((one * solve(curvature, other)).sum(), (solve(curvature, one) * other).sum())
    assert (one * solve(curvature, one)).sum() > 0


def test_without_a_pair_it_is_a_smooth_first_step():
    gradient = random_image(50, batch=2) * torch.tensor([1, 1000]).view(2, 1, 1, 1)
    step = solve(Curvature.empty(gradient, memory=4), gradient)
    torch.testing.assert_close(mean_size(step), torch.full((2,), FIRST_STEP, dtype=torch.float64))
    smooth = coarse_to_fine(gradient)
    torch.testing.assert_close(step, smooth * wide(FIRST_STEP / mean_size(smooth)))


@pytest.mark.parametrize(
    "useless", [lambda move: (0 * move, 0 * move), lambda move: (move, -move), lambda move: (move, 0 * move)]
)
def test_a_pair_without_positive_curvature_says_nothing(useless):
    pairs, gradient = pairs_of(2), random_image(50)
    expected = solve(remembered(pairs), gradient)
    with_it = [pairs[0], useless(random_image(60)), pairs[1], useless(random_image(61))]
    torch.testing.assert_close(solve(remembered(with_it), gradient), expected)


def test_forgetting_one_image_leaves_the_others():
    pairs, gradient = pairs_of(3, batch=2), random_image(50, batch=2)
    curvature = remembered(pairs)
    before = solve(curvature, gradient)
    curvature.forget(torch.tensor([False, True]))
    after = solve(curvature, gradient)
    assert torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1:], solve(Curvature.empty(gradient[1:], memory=4), gradient[1:]))
    new = pairs_of(1, batch=2, seed=70)[0]
    curvature.remember(*new)
    torch.testing.assert_close(solve(curvature, gradient)[1], solve(remembered([new]), gradient)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", [0, 2, 6])
def test_each_image_is_as_if_it_were_alone_exactly(dtype, number):
    pairs = [(move.to(dtype), change.to(dtype)) for move, change in pairs_of(max(number, 1), batch=3)]
    gradient = random_image(50, batch=3).to(dtype)
    curvature = remembered(pairs) if number else Curvature.empty(gradient, memory=4)
    together = solve(curvature, gradient)
    for kept in ([0], [1], [2], [0, 2]):
        assert torch.equal(solve(curvature.select(torch.tensor(kept)), gradient[kept]), together[kept])
        chosen = [(move[kept], change[kept]) for move, change in pairs]
        alone = remembered(chosen) if number else Curvature.empty(gradient[kept], memory=4)
        assert torch.equal(solve(alone, gradient[kept]), together[kept])


def test_each_image_is_as_if_it_were_alone_at_the_size_of_a_photograph():
    """A product of the whole batch sums in another order; 80 steps later the difference is 50 levels."""
    random = torch.Generator().manual_seed(0)
    moves = [torch.randn(3, 3, 97, 61, generator=random) for _ in range(5)]
    pairs = [(move, 2 * move) for move in moves]
    together = solve(remembered(pairs), moves[0].flip(3))
    alone = solve(remembered([(move[:1], change[:1]) for move, change in pairs]), moves[0][:1].flip(3))
    assert torch.equal(alone, together[:1])


def test_sums_of_each_image_by_hand():
    values = torch.tensor([[[[1.0, -2.0]]], [[[0.0, 0.0]]]])
    assert dot(values, torch.full_like(values, 3)).tolist() == [-3, 0]
    assert mean_size(values).tolist() == pytest.approx([1.5, 0])
    assert mean_size(values).min() > 0  # one divides by it
    assert wide(torch.ones(2)).shape == (2, 1, 1, 1)
