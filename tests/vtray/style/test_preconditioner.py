import pytest
import torch

from vtray.style.preconditioner import coarse_to_fine

SIZES = [(4, 4), (5, 5), (8, 11), (17, 32), (33, 9), (64, 64)]


def random_gradient(*size, seed=0, batch=2):
    return torch.randn(batch, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix_of(height, width, **options):
    """The preconditioner of one channel as a matrix, (H*W, H*W)."""
    basis = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width).expand(-1, 3, -1, -1)
    return coarse_to_fine(basis, **options)[:, 0].flatten(1)


@pytest.mark.parametrize("size", SIZES)
def test_it_keeps_shape_and_type_and_leaves_the_gradient_alone(size):
    gradient = random_gradient(*size).float()
    before = gradient.clone()
    smooth = coarse_to_fine(gradient)
    assert (smooth.shape, smooth.dtype) == (gradient.shape, torch.float32)
    assert torch.equal(gradient, before)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_linear(size):
    one, other = random_gradient(*size), random_gradient(*size, seed=1)
    torch.testing.assert_close(
        coarse_to_fine(2 * one - 3 * other), 2 * coarse_to_fine(one) - 3 * coarse_to_fine(other)
    )


@pytest.mark.parametrize("size", SIZES)
def test_it_is_symmetric_and_positive(size):
    one, other = random_gradient(*size), random_gradient(*size, seed=1)
    torch.testing.assert_close((one * coarse_to_fine(other)).sum(), (coarse_to_fine(one) * other).sum())
    assert (one * coarse_to_fine(one)).sum() >= one.square().sum()  # the gradient plus positive parts


@pytest.mark.parametrize("size", [(6, 7), (9, 8)])
def test_no_eigenvalue_is_below_one(size):
    matrix = matrix_of(*size)
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() >= 1 - 1e-12


@pytest.mark.parametrize(("levels", "sum_of_gains"), [(1, 3), (2, 7), (3, 15)])
def test_a_flat_gradient_grows_by_hand(levels, sum_of_gains):
    """To shrink keeps a constant, to enlarge spreads it to a quarter, so each level adds 2 times the next."""
    grown = coarse_to_fine(torch.ones(1, 3, 64, 64), levels=levels, gain=2)
    torch.testing.assert_close(grown[..., 30:34, 30:34], torch.full((1, 3, 4, 4), float(sum_of_gains)))


def test_a_checkerboard_stays_as_it_is():
    """Neighbours of opposite sign cancel in the binomial filter: 1 - 3 + 3 - 1; near the edge one is missing."""
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = (1.0 - 2 * ((rows + columns) % 2)).expand(1, 3, 32, 32)
    torch.testing.assert_close(coarse_to_fine(board, levels=1)[..., 4:-4, 4:-4], board[..., 4:-4, 4:-4])


def test_without_levels_and_on_the_smallest_images_nothing_happens():
    gradient = random_gradient(16, 16)
    assert coarse_to_fine(gradient, levels=0) is gradient
    narrow = random_gradient(3, 16)
    assert coarse_to_fine(narrow) is narrow


def test_images_and_channels_never_mix():
    gradient = torch.zeros(2, 3, 16, 16)
    gradient[1, 2] = 1
    smooth = coarse_to_fine(gradient)
    assert smooth[0].abs().max() == 0
    assert smooth[1, :2].abs().max() == 0
    torch.testing.assert_close(smooth[1, 2], coarse_to_fine(gradient[1:])[0, 2])
