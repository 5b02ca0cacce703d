import numpy as np
import pytest

from vtray.augment.light_field import FIELD_PX, FieldGrid, shade, smooth_step
from vtray.seeding import rng_for


def random_image(height: int, width: int) -> np.ndarray:
    image = rng_for("image").integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def test_grid_of_a_wide_image_by_hand():
    grid = FieldGrid.over(np.zeros((100, 400, 3), np.uint8))
    assert (grid.width, grid.height) == (1, 0.25)
    assert grid.x.shape == (1, FIELD_PX)
    assert grid.y.shape == (FIELD_PX // 4, 1)
    assert grid.x[0, [0, -1]] == pytest.approx([0.5 / 128, 127.5 / 128])
    assert grid.y[[0, -1], 0] == pytest.approx([0.5 / 128, 31.5 / 128])


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3)])
def test_any_size_has_at_least_one_cell(size):
    grid = FieldGrid.over(np.zeros((*size, 3), np.uint8))
    assert grid.x.size >= 1
    assert grid.y.size >= 1


def test_distances_along_a_direction():
    grid = FieldGrid.over(np.zeros((64, 128, 3), np.uint8))
    right, down = grid.along(0, x=0.5, y=0.5), grid.along(90, x=0.5, y=0)
    assert right[0, [0, -1]] == pytest.approx([-0.5, 0.5], abs=0.01)
    assert np.ptp(right, axis=0).max() == pytest.approx(0, abs=1e-6)
    assert down[[0, -1], 7] == pytest.approx([0, 0.5], abs=0.01)
    np.testing.assert_allclose(grid.along(200, x=0.3, y=0.2), -grid.along(20, x=0.3, y=0.2), atol=1e-6)


def test_smooth_step_by_hand():
    assert smooth_step(np.array([-1, 0, 0.25, 0.5, 1, 9], np.float32)).tolist() == [0, 0, 0.15625, 0.5, 1, 1]


def test_gain_one_changes_nothing():
    image = random_image(301, 200)
    np.testing.assert_array_equal(shade(image, np.ones((5, 7), np.float32)), image)


def test_gain_by_hand_per_channel_is_rounded_and_cut():
    image = np.full((4, 4, 3), 101, np.uint8)
    shaded = shade(image, np.tile(np.float32([0.5, 1.25, 3]), (2, 2, 1)))
    assert shaded[2, 2].tolist() == [50, 126, 255]  # 50.5 to the even level, 126.25, 303
    assert np.ptp(shaded, axis=(0, 1)).max() == 0


def test_a_field_spreads_smoothly_over_a_large_image():
    gain = np.linspace(0, 1, FIELD_PX, dtype=np.float32)[None]
    shaded = shade(np.full((2, 2000, 3), 250, np.uint8), gain)[0, :, 0].astype(int)
    assert set(np.diff(shaded)) == {0, 1}  # no steps of the size of a cell
