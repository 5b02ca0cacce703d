import pytest

from vtray.report.numbers import bytes_text, count_text, number_text, seconds_text, share_text, signed_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3187.22, "3190"),
        (12.345, "12.3"),
        (1.0, "1"),
        (-3.456, "-3.46"),
        (9.999, "10"),
        (0.0312, "0.031"),
        (0.9, "0.9"),
        (0.0, "0"),
        (0, "0"),
        (12345, "12345"),  # a whole number is exact
        (float("inf"), "inf"),
    ],
)
def test_numbers_keep_what_matters(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.03, "+0.03"), (-12.34, "-12.3"), (0.0, "+0"), (2, "+2")])
def test_signed_numbers_show_their_sign(value, text):
    assert signed_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (999_950, "1.0 MB"),
        (10**18, "1000.0 PB"),
    ],
)
def test_bytes_in_decimal_units(value, text):
    assert bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (0.42, "0.42 s"), (59.4, "59.4 s"), (59.7, "1 min 0 s"), (75, "1 min 15 s"), (7500, "2 h 5 min")],
)
def test_seconds_in_two_units(value, text):
    assert seconds_text(value) == text


def test_a_small_share_is_not_nothing():
    assert [share_text(part, 1000) for part in (0, 1, 10, 1000)] == ["0 %", "<1 %", "1 %", "100 %"]
    assert share_text(0, 0) == "0 %"


def test_counts_have_their_thousands_apart():
    assert count_text(1234567) == "1,234,567"
