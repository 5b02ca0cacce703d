import re

import pytest
from html_reader import Page

from vtray.report.page import Preview, preview_page


def preview(**changes):
    plain = {
        "job": "augment",
        "output": "s3://catalogs/out",
        "status": "complete",
        "totals": {"units": 2, "images": 1640, "failed": 3, "rows": 8148, "bytes": 182_340_112},
        "command": "vtray augment --config recipes/lecture.yaml",
        "fingerprint": "9f2c1f",
    }
    return Preview(**(plain | changes))


def read(**changes):
    return Page(preview_page(preview(**changes)))


def test_the_page_tells_about_the_run():
    page = read(images_per_s=141.27, versions={"vtray": "0.1.0", "numpy": "2.4.6"})
    words = " ".join(page.words)
    for expected in (
        "augment: out",
        "complete",
        "1,640",
        "8,148",
        "182.3 MB",
        "141",
        "9f2c1f",
        "No image failed.",
    ):
        assert expected in words
    assert "vtray augment --config recipes/lecture.yaml" in words
    assert "vtray replay s3://catalogs/out IMAGE_ID VARIANT" in words
    assert "numpy 2.4.6 · vtray 0.1.0" in words


def test_everything_from_outside_is_escaped():
    evil = "<b>\"'&<script>alert(1)</script>"
    page = read(
        job=evil,
        output=evil,
        status=evil,
        command=evil,
        fingerprint=evil,
        rows_by_class={evil: 3},
        failures={evil: 1},
        examples=(evil,),
        seconds={evil: 1.0},
        sheets={evil: evil},
        versions={evil: evil},
    )
    assert {"b", "script"}.isdisjoint(tag for tag, _ in page.tags)
    assert sum(evil in word for word in page.words) >= 10
    assert ("img", {"src": "%3Cb%3E%22%27%26%3Cscript%3Ealert%281%29%3C/script%3E", "alt": evil}) in page.tags
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_a_class_named_like_a_tag_is_shown_as_text():
    document = preview_page(preview(rows_by_class={"<b>": 1}))
    assert "<b>" not in document
    assert "&lt;b&gt;" in document


def test_the_page_needs_nothing_from_elsewhere():
    document = preview_page(preview(sheets={"variants.png": "all", "operators.png": "each"}))
    page = Page(document)
    files = [address for address in page.addresses if not address.startswith("#")]
    assert sorted(set(files)) == ["operators.png", "variants.png"]
    assert re.search(r"url\(|@import|<script|<link", document) is None


def test_contents_lead_to_sections():
    page = read(seconds={"read": 1.0}, sheets={"variants.png": "all"})
    links = [address[1:] for address in page.addresses if address.startswith("#")]
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert links == sections
    assert sections == ["totals", "pictures", "rows-per-class", "failures", "where-the-time-went", "run-it-again"]


def test_what_is_not_known_has_no_section():
    sections = [attrs["id"] for tag, attrs in read(totals={}).tags if tag == "section"]
    assert sections == ["totals", "rows-per-class", "failures", "run-it-again"]


def test_bars_are_as_long_as_their_class_is_large():
    page = read(rows_by_class={"can": 50, "bottle": 200, "none": 0})
    assert [attrs["style"] for attrs in page.named("div", "bar")] == [
        "width:100.00%",
        "width:25.00%",
        "width:0.00%",
    ]
    words = " ".join(page.words)
    assert words.index("bottle") < words.index("can") < words.index("none")
    assert "200 · 80 %" in words


def test_many_classes_show_the_largest_and_the_smallest():
    page = read(rows_by_class={f"class {i:04}": 2000 - i for i in range(1000)})
    words = " ".join(page.words)
    assert len(page.named("div", "bar")) == 40
    assert "960 more classes with 1,011 to 1,970 rows each" in words
    assert "class 0029" in words
    assert "class 0030" not in words
    assert "class 0989" not in words
    assert "class 0990" in words


def test_failures_by_reason_with_examples():
    page = read(failures={"read: missing": 1, "decode: truncated": 3}, examples=("a.jpg (the file ends)",))
    words = " ".join(page.words)
    assert words.index("decode: truncated") < words.index("read: missing") < words.index("a.jpg (the file ends)")
    assert "No image failed" not in words


def test_time_is_split_by_phase_in_the_order_of_the_work():
    page = read(seconds={"write": 1.0, "decode": 2.0, "other": 4.0, "read": 1.0})
    widths = [attrs["style"] for attrs in page.named("div", "part")]
    assert widths == [f"flex-grow:{value}.000000" for value in (1, 2, 1, 4)]
    assert [attrs["title"] for attrs in page.named("div", "part")][1] == "decode: 2 s · 25 %"
    assert "8 s in all" in " ".join(page.words)


@pytest.mark.parametrize(("status", "kind"), [("complete", "status complete"), ("partial", "status")])
def test_the_status_has_its_colour(status, kind):
    assert [attrs["class"] for attrs in read(status=status).named("span", "status")] == [kind]


@pytest.mark.parametrize(
    ("output", "title"), [("out/", "augment: out"), ("/a/b c", "augment: b c"), ("s3://bucket", "augment: bucket")]
)
def test_the_title_is_the_name_of_the_output(output, title):
    assert f"<title>{title}</title>" in preview_page(preview(output=output))


def test_a_command_with_spaces_can_be_copied():
    assert "vtray replay '/a/b c' IMAGE_ID VARIANT" in " ".join(read(output="/a/b c").words)


def test_equal_runs_give_equal_pages():
    assert preview_page(preview(seconds={"a": 1, "b": 2})) == preview_page(preview(seconds={"b": 2, "a": 1}))
