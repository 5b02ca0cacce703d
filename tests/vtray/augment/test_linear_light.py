import numpy as np
import pytest

from vtray.augment.linear_light import LIGHT, encode, light_table


def test_known_points_of_the_srgb_curve():
    # IEC 61966-2-1: half the light is level 0.7354; the linear foot ends at 0.04045 = 12.92 * 0.0031308
    assert encode(0.5) == pytest.approx(0.7354 * 255, abs=0.02)
    assert encode(0.001) == pytest.approx(0.01292 * 255)
    assert LIGHT[[0, 255]].tolist() == [0, 1]
    assert LIGHT[188] == pytest.approx(0.503, abs=0.001)


def test_encoding_undoes_the_light_of_every_level():
    np.testing.assert_allclose(encode(LIGHT), np.arange(256), atol=1e-3)
    assert np.all(np.diff(LIGHT) > 0)


def test_gain_one_changes_no_level_and_light_is_cut():
    np.testing.assert_array_equal(light_table(1.0)[:, 0], np.arange(256))
    assert encode([-1, 2]) == pytest.approx([0, 255])


def test_a_table_per_channel():
    table = light_table([0.5, 1, 4])
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert table[255].tolist() == [188, 255, 255]
    assert table[200, 0] < table[200, 1] < table[200, 2]
