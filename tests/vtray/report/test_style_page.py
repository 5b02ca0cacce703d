import re

import pytest
from html_reader import Page

from vtray.report.style_page import Distribution, StylePage, style_page

LOSSES = {
    "content": {"before": 0.0, "after": 0.41},
    "style": {"before": 8.2, "after": 1.1},
}


def plain(**changes):
    values = {
        "output": "s3://catalogs/painted",
        "status": "complete",
        "totals": {"images": 1640, "failed": 3, "bytes": 182_340_112},
        "command": "vtray stylize --config recipes/stylize.yaml",
        "fingerprint": "9f2c1f",
    }
    return StylePage(**(values | changes))


def read(**changes):
    return Page(style_page(plain(**changes)))


def full():
    return {
        "seconds_per_image": 75.0,
        "hours_per_1000": 20.8333,
        "losses": LOSSES,
        "distributions": (Distribution(title="Total loss", values=(0.2, 0.3, 0.7), marks={"p50": 0.3}),),
        "settings": {"styles": "starry_night.jpg"},
        "warnings": {"small": 4, "stopped early": 9},
        "failures": {"decode: truncated": 3},
        "examples": ("a.jpg (the file ends)",),
        "seconds": {"stylize": 90.0, "read": 10.0},
        "sheets": {"results.png": "some", "worst.png": "the worst"},
        "versions": {"vtray": "0.1.0", "torch": "2.13.0"},
    }


def test_the_page_tells_about_the_run():
    words = " ".join(read(**full()).words)
    for expected in (
        "vtray stylize",
        "painted",
        "1,640",
        "182.3 MB",
        "1 min 15 s",
        "20.8",
        "Total loss, 3 images",
        "p50 0.3",
        "8.2 before, 1.1 after",
        "starry_night.jpg",
        "vtray stylize --config recipes/stylize.yaml",
        "torch 2.13.0 · vtray 0.1.0",
    ):
        assert expected in words
    assert words.index("stopped early") < words.index("small")


def test_sections_in_their_order():
    sections = [attrs["id"] for tag, attrs in read(**full()).tags if tag == "section"]
    assert sections == [
        "totals",
        "pictures",
        "losses",
        "warnings",
        "failures",
        "where-the-time-went",
        "settings",
        "run-it-again",
    ]


def test_what_is_not_known_has_no_section():
    sections = [attrs["id"] for tag, attrs in read().tags if tag == "section"]
    assert sections == ["totals", "failures", "run-it-again"]


def test_phases_stand_in_the_order_of_the_work():
    titles = [attrs["title"] for attrs in read(**full()).named("div", "part")]
    assert titles == ["read: 10 s · 10 %", "stylize: 1 min 30 s · 90 %"]


def test_everything_from_outside_is_escaped():
    evil = "<b>\"'&<script>alert(1)</script>"
    page = read(
        output=evil,
        status=evil,
        command=evil,
        fingerprint=evil,
        losses={evil: {"before": 1.0, "after": 1.0}},
        distributions=(Distribution(title=evil, values=(1.0,), marks={evil: 1.0}),),
        settings={evil: evil},
        warnings={evil: 1},
        failures={evil: 1},
        examples=(evil,),
        seconds={evil: 1.0},
        sheets={evil: evil},
        versions={evil: evil},
    )
    assert {"b", "script"}.isdisjoint(tag for tag, _ in page.tags)
    assert sum(evil in word for word in page.words) >= 12


def test_the_page_needs_nothing_from_elsewhere():
    document = style_page(plain(**full()))
    files = {address for address in Page(document).addresses if not address.startswith("#")}
    assert files == {"results.png", "worst.png"}
    assert re.search(r"url\(|@import|<script|<link", document) is None


@pytest.mark.parametrize(("status", "kind"), [("complete", "status complete"), ("partial", "status")])
def test_the_status_has_its_colour(status, kind):
    assert [attrs["class"] for attrs in read(status=status).named("span", "status")] == [kind]


def test_equal_runs_give_equal_pages():
    one, other = (plain(warnings=warnings) for warnings in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert style_page(one) == style_page(other)
