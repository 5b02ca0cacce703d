import math

import pytest

from vtray.report.ratios import decimals_text, interval_text, percent_text, wilson_interval


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.9534, "95.3 %"),
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (0.0001, "<0.1 %"),
        (0.0005, "0.1 %"),
        (0.99996, ">99.9 %"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_only_nothing_is_none_and_only_everything_is_all(share, words):
    assert percent_text(share) == words


def test_decimals():
    assert [decimals_text(0.0416), decimals_text(1.7, 2), decimals_text(None), decimals_text(math.inf)] == [
        "0.042",
        "1.70",
        "–",
        "–",
    ]


def test_the_interval_ends_where_its_definition_says():
    # the definition of both ends: |p - 0.8| = z sqrt(p (1 - p) / 10)
    for end in wilson_interval(0.8, 10):
        assert abs(end - 0.8) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 10), rel=1e-6)


def test_the_interval_stays_within_the_possible():
    for share in (0.0, 1.0):
        low, high = wilson_interval(share, 5)
        assert 0 <= low <= share <= high <= 1
        assert high - low > 0.4


def test_more_images_say_more():
    widths = [high - low for low, high in (wilson_interval(0.9, count) for count in (10, 100, 1000))]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_no_images_have_no_interval():
    assert [interval_text(0.9, 0), interval_text(math.nan, 5), interval_text(0.5, 100)] == [
        "–",
        "–",
        "40.4 – 59.6 %",
    ]
