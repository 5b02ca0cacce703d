import re
from types import SimpleNamespace

import numpy as np
import pytest
from html_reader import Page

from vtray.report.classifier_findings import ClassifierFindings, HeadEntry, SplitFindings
from vtray.report.classifier_page import classifier_page
from vtray.report.per_class import per_class_parts
from vtray.report.reliability import ReliabilityBins

EVIL = "<b>\"'&<script>alert(1)</script>"


def names(num_classes):
    return tuple(f"class {number:04}" for number in range(num_classes))


def scores(confusion):
    hits, predicted, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return SimpleNamespace(
        precision=hits / np.maximum(predicted, 1),
        recall=hits / np.maximum(support, 1),
        f1=2 * hits / np.maximum(predicted + support, 1),
        support=support,
    )


def split(num_classes, **changes):
    confusion = np.diag(np.full(num_classes, 20)).astype(np.int64)
    confusion[0, 1], confusion[1, 0] = 5, 1
    bins = ReliabilityBins(count=[0, 2, 8], confidence=[np.nan, 0.5, 0.9], accuracy=[np.nan, 0.6, 0.95])
    count = int(confusion.sum())
    plain = {
        "count": count,
        "top1": np.trace(confusion) / count,
        "top5": 0.999,
        "nll": 0.34,
        "nll_calibrated": 0.31,
    }
    plain |= {"ece": 0.081, "ece_calibrated": 0.02, "temperature": 1.7, "confusion": confusion}
    plain |= {"reliability": bins, "reliability_calibrated": bins, "per_class": scores(confusion)}
    return SplitFindings(**(plain | changes))


def zero_rows(num_classes):
    nothing, nan = np.zeros((num_classes, num_classes), np.int64), float("nan")
    bins = ReliabilityBins(count=np.zeros(15, int), confidence=np.full(15, nan), accuracy=np.full(15, nan))
    return split(
        num_classes,
        **dict.fromkeys(("top1", "top5", "nll", "nll_calibrated", "ece", "ece_calibrated"), nan),
        count=0,
        confusion=nothing,
        per_class=scores(nothing),
        reliability=bins,
        reliability_calibrated=bins,
    )


def plain(num_classes=2, **changes):
    values = {"title": "mobilenet_v2", "command": "vtray finetune --config r.yaml", "classes": names(num_classes)}
    return ClassifierFindings(**(values | changes))


def full(num_classes=10, **changes):
    values = {
        "output": "s3://models/run-7",
        "fingerprint": "9f2c1f",
        "head": tuple(
            HeadEntry(class_name=name, source="reused" if place % 2 else "random", origin="n07697537 hotdog")
            for place, name in enumerate(names(num_classes))
        ),
        "epochs": tuple(
            {"epoch": n, "loss": 1 / n, "accuracy": 0.9, "val_top1": 0.95, "lr": 1e-3} for n in (1, 2, 3)
        ),
        "splits": {"test": split(num_classes), "val": split(num_classes, count=400)},
        "robustness": {"dim": {1: 0.9, 5: 0.4}},
        "clean_top1": 0.96,
        "worst_images": "worst.png",
        "worst_examples": ("1. a.jpg: can taken for bottle, 97.3 %",),
        "config": {"backbone": "mobilenet_v2", "optimizer": {"betas": [0.9, 0.999]}, "cache": None, "empty": {}},
        "notes": ("The training accuracy is that of mixed images.",),
        "failures": {"decode: truncated": 3},
        "examples": ("b.jpg (the file ends)",),
        "seconds": {"read": 10.0, "infer": 90.0},
        "versions": {"vtray": "0.1.0", "torch": "2.13.0"},
    }
    return plain(num_classes, **(values | changes))


def read(findings):
    return Page(classifier_page(findings))


def sections(page):
    return [attrs["id"] for tag, attrs in page.tags if tag == "section"]


def test_the_page_tells_about_the_model():
    words = " ".join(read(full()).words)
    for expected in (
        "finetune: mobilenet_v2",
        "s3://models/run-7",
        "97.1 %",  # 200 of 206
        "93.8 – 98.7 %",
        "1.70",
        "n07697537 hotdog",
        "class 0001 (5)",
        "65.0 %",  # (0.9 + 0.4) / 2
        "1. a.jpg: can taken for bottle, 97.3 %",
        "optimizer.betas",
        "0.9, 0.999",
        "mixed images",
        "decode: truncated",
        "vtray finetune --config r.yaml",
        "torch 2.13.0 · vtray 0.1.0",
    ):
        assert expected in words


def test_sections_in_their_order():
    assert sections(read(full())) == [
        "totals",
        "accuracy",
        "training",
        "head",
        "per-class",
        "confusion",
        "calibration",
        "robustness",
        "worst-images",
        "failures",
        "where-the-time-went",
        "settings",
        "notes",
        "run-it-again",
    ]


def test_what_is_not_known_has_no_section():
    assert sections(read(plain())) == ["totals", "run-it-again"]
    bare = plain(splits={"test": SplitFindings(count=7)})
    assert sections(read(bare)) == ["totals", "accuracy", "run-it-again"]
    assert "ECE" not in " ".join(read(bare).words)


@pytest.mark.parametrize("left_out", ["reliability", "confusion", "per_class", "top5", "temperature"])
def test_each_part_of_a_split_may_be_missing(left_out):
    page = read(full(splits={"test": split(10, **{left_out: None})}))
    section = {"reliability": "calibration", "per_class": "per-class"}.get(left_out, left_out)
    assert (section in sections(page)) == (left_out == "reliability")  # its other diagram is there
    assert "None" not in " ".join(page.words)


@pytest.mark.parametrize("num_classes", [2, 10, 41, 200, 1000])
def test_any_number_of_classes(num_classes):
    document = classifier_page(full(num_classes))
    page = Page(document)
    assert ("Confusion matrix" in document) == (num_classes <= 40)
    assert ("top-5" in page.words) == (num_classes > 5)
    assert not re.search(r"\bnan\b|\binf\b|None", " ".join(page.words))
    assert len(document) < 600_000


def test_a_split_without_images_has_no_numbers():
    page = read(full(splits={"test": zero_rows(10)}))
    assert {"per-class", "confusion", "calibration"}.isdisjoint(sections(page))
    assert not re.search(r"\bnan\b", " ".join(page.words))
    assert "–" in page.words


def test_splits_after_the_first_are_folded_away():
    page = read(full())
    assert page.words.count("Split test") == page.words.count("Split val") == 3
    assert len(page.named("table", "columns")) == 8
    assert len([tag for tag, _ in page.tags if tag == "details"]) == 4  # and the numbers by epoch


def test_everything_from_outside_is_escaped():
    findings = full(
        2,
        classes=(EVIL, "x"),
        title=EVIL,
        job=EVIL,
        output=EVIL,
        status=EVIL,
        command=EVIL,
        fingerprint=EVIL,
        head=(HeadEntry(class_name=EVIL, source=EVIL, origin=EVIL),),
        epochs=({EVIL: EVIL, "loss": 1.0},),
        splits={EVIL: split(2)},
        robustness={EVIL: {1: 0.5}},
        worst_images=EVIL,
        worst_examples=(EVIL,),
        config={EVIL: {EVIL: EVIL}},
        notes=(EVIL,),
        failures={EVIL: 1},
        examples=(EVIL,),
        seconds={EVIL: 1.0},
        versions={EVIL: EVIL},
    )
    page = read(findings)
    assert {"b", "script"}.isdisjoint(tag for tag, _ in page.tags)
    assert sum(EVIL in word for word in page.words) >= 30
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_the_page_needs_nothing_from_elsewhere():
    document = classifier_page(full())
    assert {address for address in Page(document).addresses if not address.startswith("#")} == {"worst.png"}
    assert re.search(r"url\(|@import|<script|<link", document) is None


def test_the_same_findings_give_the_same_page():
    assert classifier_page(full()) == classifier_page(full())


def per_class(confusion, classes, **changes):
    found = split(2, confusion=confusion, per_class=scores(confusion))
    return Page("".join(per_class_parts(found, classes)))


def rows_of(page):
    """The first word of each row of a table."""
    words = [word for word in page.words if word.strip()]
    return [word for word in words if word.startswith("class ")]


def test_the_worst_class_comes_first_and_empty_ones_last():
    confusion = np.array([[9, 1, 0, 0], [4, 6, 0, 0], [0, 0, 0, 0], [0, 0, 0, 8]], np.int64)
    page = per_class(confusion, names(4))
    first = [word for word in rows_of(page) if not word.endswith(")")]
    assert first == ["class 0001", "class 0000", "class 0003", "class 0002"]
    assert "class 0000 (4)" in page.words
    assert "Classes without any image: 1." in page.words


def test_only_the_worst_of_many_are_listed():
    confusion = np.diag(np.full(200, 10)).astype(np.int64)
    confusion[150, 3:5] = 10
    page = per_class(confusion, names(200))
    assert rows_of(page)[0] == "class 0150"
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == 41
    assert "The 40 classes with the lowest F1 of 200." in page.words


def test_arrays_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"need shape \(5,\), got \(10,\)"):
        per_class_parts(split(10), names(5))
    with pytest.raises(ValueError, match=r"of 10 classes is integer \(10, 10\)"):
        classifier_page(full(splits={"test": split(10, confusion=np.zeros((3, 3), np.int64))}))
