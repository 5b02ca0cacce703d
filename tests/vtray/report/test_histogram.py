import re

import numpy as np
import pytest
from html_reader import Page

from vtray.report.histogram import BOTTOM, HEIGHT, SIDE, WIDTH, bins_of, histogram


def drawn(values, **marks):
    return Page(histogram(values, label="losses", marks=marks))


def rects(page):
    return [{key: float(value) for key, value in attrs.items()} for tag, attrs in page.tags if tag == "rect"]


def test_bins_are_round_and_hold_every_value():
    # a span of 0.5 in 23 bins or fewer: 0.02 is too narrow (25), 0.05 the next round width
    bins = bins_of([0.11, 0.12, 0.31, 0.61])
    assert (bins.first, bins.step) == (2, 0.05)
    assert bins.counts == (2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1)
    assert bins.edge(0) == pytest.approx(0.1)


@pytest.mark.parametrize("scale", [1e-9, 0.004, 1.0, 7.3, 1e12])
def test_numpy_counts_the_same(scale):
    values = np.random.default_rng(3).gamma(3, scale, 500)
    bins = bins_of(values.tolist())
    assert len(bins.counts) <= 24
    edges = [bins.edge(number) for number in range(len(bins.counts) + 1)]
    assert list(np.histogram(values, edges)[0]) == list(bins.counts)


@pytest.mark.parametrize("value", [0.0, 0.37, -4.0, 1e6])
def test_equal_values_are_one_bin(value):
    bins = bins_of([value] * 3)
    assert bins.counts == (3,)
    assert bins.edge(0) <= value < bins.edge(1)


def test_values_that_differ_by_rounding_are_one_bin():
    assert bins_of([0.35, 0.35 + 1e-13]).counts == (2,)


@pytest.mark.parametrize("values", [[], [1.0, float("inf")], [float("nan")]])
def test_values_must_be_numbers(values):
    with pytest.raises(ValueError, match="needs finite values"):
        bins_of(values)


def test_bars_are_as_high_as_their_bin_is_full():
    page = drawn([0.11, 0.12, 0.31, 0.61])
    found = rects(page)
    assert [bar["height"] / found[0]["height"] for bar in found] == [1, 0.5, 0.5]
    assert all(bar["y"] + bar["height"] == pytest.approx(HEIGHT - BOTTOM) for bar in found)
    assert "0.10 to 0.15: 2" in page.words
    assert found[0]["x"] == SIDE + 1
    assert found[-1]["x"] + found[-1]["width"] == pytest.approx(WIDTH - SIDE - 1)


def test_a_mark_lies_where_its_value_does():
    page = drawn([0.11, 0.12, 0.31, 0.64], p50=0.21, outside=9.0)
    marks = [float(attrs["x1"]) for tag, attrs in page.tags if tag == "line" and attrs["x1"] == attrs["x2"]]
    # eleven bins from 0.10 to 0.65: 0.21 is a fifth of the way
    assert marks == [pytest.approx(SIDE + 0.2 * (WIDTH - 2 * SIDE), abs=0.06)]
    assert "outside" not in page.words


def test_edges_are_labelled_and_not_too_many():
    page = drawn([number / 100 for number in range(23)])
    labels = [word for word in page.words if re.fullmatch(r"\d\.\d+", word)]
    assert labels[:3] == ["0.00", "0.02", "0.04"]
    assert len(labels) <= 13


def test_text_from_outside_is_escaped():
    document = histogram([1.0, 2.0], label='"<b>', marks={"<i>": 1.5})
    assert "<b>" not in document
    assert "<i>" not in document
