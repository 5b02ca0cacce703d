import math
import re

import pytest
from html_reader import Page

from vtray.report.robustness import mean_top1, robustness_parts

CONDITIONS = {"dim": {1: 0.9, 2: 0.8, 3: 0.6}, "warm": {1: 0.95, 3: 0.85}}


def read(conditions, clean=0.96):
    return Page("".join(robustness_parts(conditions, clean=clean)))


def test_every_number_stands_in_the_table():
    words = [word for word in read(CONDITIONS).words if word.strip()]
    start = words.index("top-1 by severity")
    assert words[start : start + 15] == [
        *("top-1 by severity", "1", "2", "3", "mean"),
        *("dim", "90.0 %", "80.0 %", "60.0 %", "76.7 %"),
        *("warm", "95.0 %", "–", "85.0 %", "90.0 %"),
    ]


def test_it_says_what_it_comes_to():
    words = " ".join(read(CONDITIONS).words)
    # (0.9 + 0.8 + 0.6) / 3 and (0.95 + 0.85) / 2 on average
    assert "Top-1 without any condition: 96.0 %; mean over all conditions: 83.3 %" in words
    assert "worst: 60.0 % (dim, severity 3)" in words
    assert mean_top1(CONDITIONS) == pytest.approx((2.3 / 3 + 0.9) / 2)


def test_what_is_lost_decides_the_tint():
    document = "".join(robustness_parts({"dim": {1: 0.96, 2: 0.86, 3: 0.1}}, clean=0.96))
    # drops of 0, 0.1 and 0.86, of which 0.5 is the deepest; the mean 0.64 is a drop of 0.32
    assert re.findall(r"rgba\(.*?,([\d.]+)\)", document) == ["0.11", "0.55", "0.35"]


def test_one_curve_for_each_condition_from_clean_on():
    page = read(CONDITIONS)
    titles = [attrs["aria-label"] for attrs in page.named("svg", "chart")]
    assert titles == ["Top-1 under dim by severity", "Top-1 under warm by severity"]
    assert [attrs["d"].count(",") for attrs in page.named("path", "curve")] == [4, 3]
    assert page.words.count("clean") == 2
    assert len(page.named("line", "level")) == 2


def test_all_curves_have_the_same_axis():
    page = read({"dim": {1: 0.95}, "warm": {1: 0.2}})
    assert page.words.count("0 %") == page.words.count("100 %") == 2


def test_without_the_clean_accuracy():
    for clean in (None, math.nan):
        page = read(CONDITIONS, clean=clean)
        assert "clean" not in page.words
        assert page.named("line", "level") == []
        assert not any("without any condition" in word or "nan" in word for word in page.words)


def test_what_was_not_measured_is_a_dash():
    page = read({"dim": {1: math.nan, 2: 0.5}, "warm": {}, "fog": {1: math.nan}}, clean=None)
    assert page.words.count("–") == 7
    assert not any("nan" in word for word in page.words)
    assert len(page.named("svg", "chart")) == 1


def test_no_conditions():
    assert robustness_parts({}) == []
    assert mean_top1({}) is None
    assert mean_top1({"dim": {}}) is None


def test_names_are_escaped():
    page = read({"<b>": {1: 0.5}})
    assert "<b>" in page.words
    assert "b" not in {tag for tag, _ in page.tags}
