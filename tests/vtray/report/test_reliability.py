import numpy as np
import pytest
from html_reader import Page

from vtray.report.axes import BOTTOM, TOP
from vtray.report.reliability import PLOT, STRIP, ReliabilityBins, reliability_diagram, reliability_key

NAN = float("nan")


def bins(count, confidence, accuracy):
    return ReliabilityBins(count=count, confidence=confidence, accuracy=accuracy)


def rects(values, kind):
    page = Page(reliability_diagram(values, label="before"))
    return [
        {name: float(attrs[name]) for name in ("x", "y", "width", "height")} for attrs in page.named("rect", kind)
    ]


FOUR = bins([0, 10, 0, 40], [NAN, 0.4, NAN, 0.9], [NAN, 0.5, NAN, 0.75])


def test_bars_are_as_high_as_the_accuracy():
    plot = PLOT - BOTTOM - TOP
    assert [bar["height"] for bar in rects(FOUR, "found")] == [
        pytest.approx(0.5 * plot, abs=0.1),
        pytest.approx(0.75 * plot, abs=0.1),
    ]


def test_the_gap_reaches_from_accuracy_to_confidence():
    plot = PLOT - BOTTOM - TOP
    under, over = rects(FOUR, "gap")
    assert under["height"] == pytest.approx(0.1 * plot, abs=0.1)
    assert over["height"] == pytest.approx(0.15 * plot, abs=0.1)
    assert over["y"] == pytest.approx(TOP + 0.1 * plot, abs=0.1)


def test_bins_lie_where_their_confidence_is():
    found = rects(FOUR, "found")
    assert found[1]["x"] - found[0]["x"] == pytest.approx(2 * (found[0]["width"] + 2), abs=0.2)


def test_counts_are_drawn_below():
    few, many = rects(FOUR, "many")
    assert many["height"] == STRIP
    assert few["height"] == STRIP / 4
    assert "40 images" in Page(reliability_diagram(FOUR, label="")).words


def test_empty_bins_may_hold_anything():
    nothing = bins(np.zeros(15, int), np.full(15, NAN), np.full(15, NAN))
    document = reliability_diagram(nothing, label="none")
    assert Page(document).named("rect", "found") == []
    assert "nan" not in document


def test_means_may_be_one_and_a_rounding():
    assert rects(bins([3], [1 + 1e-8], [1.0]), "gap")[0]["height"] == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (bins([1, 2], [0.5], [0.5]), "three arrays of one length"),
        (bins([], [], []), "three arrays of one length"),
        (bins([1], [1.2], [0.5]), "within 0 and 1"),
        (bins([1], [0.5], [NAN]), "within 0 and 1"),
    ],
)
def test_wrong_bins_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        reliability_diagram(values, label="")


def test_the_key_names_every_colour():
    page = Page(reliability_key())
    assert page.words[:3] == ["accuracy", "gap to the mean confidence", "images"]
    assert "<b>" not in reliability_diagram(FOUR, label='"<b>')
