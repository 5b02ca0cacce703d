import math
import re

import pytest
from html_reader import Page

from vtray.report.curves import training_curves
from vtray.report.line_chart import Curve, LineChart, key, line_chart


def epochs(num, **changes):
    plain = [
        {
            "epoch": n,
            "loss": 2 / n,
            "accuracy": 1 - 0.5 / n,
            "lr": 3e-4 / n,
            "val_loss": 2.1 / n,
            "val_top1": 1 - 0.6 / n,
        }
        for n in range(1, num + 1)
    ]
    return [epoch | changes for epoch in plain]


def read(rows):
    return Page("".join(training_curves(rows)))


def paths(page):
    """Points of each line, in SVG units."""
    found = [attrs["d"] for attrs in page.named("path", "curve") if "H22" not in attrs["d"]]
    return [[tuple(map(float, point)) for point in re.findall(r"([\d.]+),([\d.]+)", line)] for line in found]


def test_a_panel_for_each_kind_of_number():
    page = read(epochs(6))
    labels = [attrs["aria-label"] for tag, attrs in page.tags if "aria-label" in attrs]
    assert labels == ["Loss by epoch", "Accuracy by epoch", "Learning rate by epoch"]
    assert [len(line) for line in paths(page)] == [6] * 5
    assert "Best top-1 on the validation split: 90.0 %, epoch 6; 6 epochs in all." in page.words


def test_the_best_epoch_is_the_first_of_equals():
    rows = [{"epoch": n, "val_top1": value} for n, value in enumerate((0.5, 0.9, 0.9, math.nan), start=1)]
    assert any("90.0 %, epoch 2; 4 epochs" in word for word in read(rows).words)


def test_a_line_falls_where_its_values_fall():
    loss = paths(read(epochs(6)))[0]
    assert [x for x, _ in loss] == sorted(x for x, _ in loss)
    assert [y for _, y in loss] == sorted(y for _, y in loss)  # SVG counts from the top


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_what_is_no_number_is_a_gap(broken):
    rows = epochs(7)
    rows[3] = rows[3] | {"loss": broken}
    page = read(rows)
    assert [len(line) for line in paths(page)][:3] == [3, 3, 7]
    assert re.search("nan|inf", "".join(page.words)) is None


def test_panels_without_numbers_are_left_out():
    page = read([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4}])
    assert [attrs["aria-label"] for tag, attrs in page.tags if "aria-label" in attrs] == ["Loss by epoch"]
    assert "validation" not in page.words


def test_no_epochs_no_curves():
    assert training_curves([]) == []
    assert read([{"epoch": 1}]).named("svg", "chart") == []


def test_one_epoch_is_a_dot():
    page = read(epochs(1))
    assert paths(page) == []
    assert len([tag for tag, _ in page.tags if tag == "circle"]) == 5


def test_many_epochs_have_few_labels_and_no_dots():
    page = read(epochs(300))
    assert "circle" not in {tag for tag, _ in page.tags}
    chart = line_chart(LineChart(label="", curves=(Curve(name="", points=tuple((n, 1.0) for n in range(300))),)))
    assert len(re.findall('text-anchor="middle"', chart)) <= 8


def test_constant_values_are_drawn_within_the_possible():
    chart = Page(
        line_chart(LineChart(label="", curves=(Curve(name="a", points=((1, 0.9), (2, 0.9))),), percent=True))
    )
    assert {"0 %", "100 %"} <= set(chart.words)
    assert "120 %" not in chart.words


def test_all_numbers_stand_in_the_table():
    page = read(epochs(2, images=512, note="resumed", ema=True))
    for word in ("images", "512", "val_top1", "70.0 %", "0.00015", "resumed", "1.05"):
        assert word in page.words


def test_epochs_without_numbers_are_counted():
    rows = [{"loss": 1.0}, {"loss": 0.5}]
    assert "training, 2: 0.5" in read(rows).words


def test_text_from_outside_is_escaped():
    curve = Curve(name="<b>", points=((1, 2.0), (2, 3.0)))
    document = line_chart(LineChart(label='"<i>', curves=(curve,), x_words={1: "<u>"})) + key([curve])
    document += "".join(training_curves([{"<s>": "<q>"}]))
    assert re.search("<[biusq]>", document) is None
