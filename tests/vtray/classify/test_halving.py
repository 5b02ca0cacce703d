"""Rungs and the expected length of trials, by hand."""

import pytest

from vtray.classify.halving import expected_epochs, rungs


def test_rungs_by_hand():
    assert rungs(grace_epochs=1, reduction_factor=3, epochs=6) == (1, 3)
    assert rungs(grace_epochs=1, reduction_factor=3, epochs=9) == (1, 3)  # at epoch 9 all end anyway
    assert rungs(grace_epochs=2, reduction_factor=2, epochs=20) == (2, 4, 8, 16)
    assert rungs(grace_epochs=6, reduction_factor=3, epochs=6) == ()


def test_expected_epochs_by_hand():
    """All do epoch 1; a third does epochs 2 and 3; a ninth does 4 to 6."""
    assert expected_epochs(grace_epochs=1, reduction_factor=3, epochs=6) == pytest.approx(1 + 2 / 3 + 3 / 9)
    assert expected_epochs(grace_epochs=6, reduction_factor=3, epochs=6) == 6
