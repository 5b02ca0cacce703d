import numpy as np
import pytest

from vtray.augment.bands import BAND_PIXELS, row_bands


@pytest.mark.parametrize(("height", "width"), [(1, 1), (224, 224), (3, 2 * BAND_PIXELS), (1000, 640), (2000, 3)])
def test_bands_cover_each_row_once_in_order(height, width):
    rows = np.arange(height)
    bands = [rows[band] for band in row_bands(height, width)]
    np.testing.assert_array_equal(np.concatenate(bands), rows)
    assert all(len(band) == 1 or len(band) * width <= BAND_PIXELS for band in bands)


def test_two_bands_by_hand(monkeypatch):
    monkeypatch.setattr("vtray.augment.bands.BAND_PIXELS", 20)
    assert list(row_bands(6, 5)) == [slice(0, 4), slice(4, 6)]
