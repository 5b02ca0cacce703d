import re

from html_reader import Page

from vtray.report.tables import Tinted, folded, table


def test_words_on_the_left_and_numbers_on_the_right():
    page = Page(table(("class", "taken for", "images"), [["can", "bottle", "3"]], text_columns=2))
    assert [attrs.get("class") for tag, attrs in page.tags if tag in ("th", "td")] == [
        "words",
        "words",
        None,
        "words",
        "words",
        None,
    ]
    assert [word for word in page.words if word.strip()] == ["class", "taken for", "images", "can", "bottle", "3"]


def test_a_bad_number_is_tinted_and_a_tint_is_bounded():
    strengths = (0.0, 0.5, 1.0, 7.0, -1.0)
    document = table(("a", *map(str, strengths)), [["x", *(Tinted("1", strength) for strength in strengths)]])
    assert re.findall(r"rgba\(.*?,([\d.]+)\)", document) == ["0.28", "0.55", "0.55"]


def test_no_rows_no_table():
    assert table(("a", "b"), []) == ""


def test_text_from_outside_is_escaped():
    document = folded("<i>", table(("<b>",), [["<u>"]]) + table(("a", "b"), [["<s>", Tinted("<q>", 1)]]))
    assert re.search("<[biusq]>", document) is None
    assert {"<i>", "<b>", "<u>", "<s>", "<q>"} <= set(Page(document).words)
