import math

import numpy as np
import pytest

from vtray.report.axes import BOTTOM, RIGHT, TOP, Axes, room_for, round_ticks, tick_text


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 0.0003, [0, 0.0001, 0.0002, 0.0003]),
        (0.95, 0.985, [0.95, 0.96, 0.97, 0.98, 0.99]),
        (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
        (0.0, 0.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert round_ticks(low, high) == ticks


def test_ticks_hold_the_values_and_are_few():
    rng = np.random.default_rng(1)
    for _ in range(300):
        low = rng.normal() * 10.0 ** rng.integers(-8, 8)
        high = low + abs(rng.normal()) * 10.0 ** rng.integers(-6, 8)
        ticks = round_ticks(low, high)
        assert 2 <= len(ticks) <= 6
        slack = 1e-6 * (ticks[1] - ticks[0])
        assert ticks[0] - slack <= low <= high <= ticks[-1] + slack
        assert len({tick_text(tick) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize("value", [0.93, -2.0, 1e-5])
def test_equal_values_get_room(value):
    ticks = round_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


@pytest.mark.parametrize("ends", [(math.nan, 1.0), (0.0, math.inf), (2.0, 1.0)])
def test_ends_that_are_none(ends):
    with pytest.raises(ValueError, match="needs finite ends in order"):
        round_ticks(*ends)


def test_ticks_in_words():
    assert [tick_text(value) for value in (0.0, 0.00003, 1250.0, 1e-7)] == ["0", "0.00003", "1250", "1e-07"]
    assert [tick_text(value, percent=True) for value in (0.0, 0.975, 1.0)] == ["0 %", "97.5 %", "100 %"]


def test_corners_lie_at_the_edges_of_the_plot():
    axes = Axes(x=(1.0, 5.0), y=(-2.0, 2.0), width=300, height=200, left=50)
    assert [axes.across(1), axes.across(3), axes.across(5)] == [50, (50 + 300 - RIGHT) / 2, 300 - RIGHT]
    assert [axes.down(2), axes.down(0), axes.down(-2)] == [TOP, (TOP + 200 - BOTTOM) / 2, 200 - BOTTOM]


def test_labels_have_room():
    assert room_for(["100 %", "0"]) > 5 * 6
    assert room_for([]) > 0
