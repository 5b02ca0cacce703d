"""The page of a search: the map by hand, the curves and points, costs, and text that could break it."""

import re
from dataclasses import replace

import pytest
from html_reader import Page

from vtray.report.heat_map import MOST_COLUMNS, Column, column_index, columns_of, short
from vtray.report.scatter import Point, scatter
from vtray.report.search_findings import CostRow, SearchFindings, TrainedRow, TrialRow
from vtray.report.search_page import depth_name, search_page, value_text

STAGES = ("stem", "layer1", "layer2")


def trial(number, *curve, lr=1e-3, depth=0, status="complete", **values):
    fixed = {
        "name": f"{number:04}",
        "lr": lr,
        "depth": depth,
        "values": {"lr": value_text(lr), "freeze": value_text(depth)},
        "status": status,
        "curve": curve,
        "top1": max(curve) if curve and status != "failed" else None,
        "seconds": 10.0 * (number + 1),
    }
    return TrialRow(**(fixed | values))


TRIALS = (
    trial(0, 0.5, 0.6, 0.7),
    trial(1, 0.6, 0.8, 0.9, lr=1e-2, depth=2),
    trial(2, 0.4, lr=1e-2, status="stopped"),
    trial(3, lr=1e-2, depth=3, status="failed", reason="the loss is nan <b>", attempts=2),
)
FINDINGS = SearchFindings(
    title="resnet18 for 3 classes",
    output="s3://bucket/search",
    best="0001",
    trials=TRIALS,
    stages=STAGES,
    epochs=3,
    command="vtray finetune --config s3://bucket/search/winner.yaml --set output.uri=OUTPUT",
    again="vtray tune --config s3://bucket/search/_vtray/config.yaml",
    trained=(TrainedRow(name="0001", top1=0.95, seconds=80),),
    members=("0001",),
    model_top1=0.95,
    caches=(CostRow(name="crops", contents="300 rows, 45 MB", seconds=5),),
    caches_s=5.0,
    trials_s=95.0,
    uncached_s=400.0,
)


def words(findings):
    return " ".join(" ".join(Page(search_page(findings)).words).split())


def test_everything_is_on_the_page():
    told = words(FINDINGS)
    for part in (
        "trials stopped early failed best trial on val default on val model on val 4 1 1 90.0 % 70.0 % 95.0 %",
        "vtray finetune --config s3://bucket/search/winner.yaml --set output.uri=OUTPUT",
        "vtray tune --config s3://bucket/search/_vtray/config.yaml",
        "The search took 25.0 % of what",
        "2, through layer1",
        "3, all frozen",
        "the loss is nan <b>",
        "failed, 2 attempts",
        "1 of 3",
    ):
        assert part in told, part


def test_the_map_has_the_best_trial_of_each_cell():
    page = Page(search_page(FINDINGS))
    cells = page.named("rect", "heat")
    assert len(cells) == 3  # 0.7 and the stopped 0.4 with none frozen, 0.9 with two
    assert len(page.named("rect", "frame")) == 1
    assert len(page.named("rect", "blank")) == 3
    strengths = sorted(float(cell["fill-opacity"]) for cell in cells)
    assert strengths[0] < strengths[1] < strengths[2]
    assert "×" in words(FINDINGS)


def test_a_cell_shows_the_best_of_several():
    twice = replace(FINDINGS, trials=(*TRIALS, trial(4, 0.75)))
    assert len(Page(search_page(twice)).named("rect", "heat")) == 3
    assert "75.0 %" in words(twice)


def test_stopped_trials_are_red_in_curves_and_points():
    page = Page(search_page(FINDINGS))
    lines = [attrs["class"] for attrs in page.named("path", "curve") if "H22" not in attrs["d"]]
    assert lines == ["curve k0", "curve k0"]  # one epoch is a dot, not a line
    assert len(page.named("circle", "dot k1")) == 1
    points = [attrs["class"] for attrs in page.named("circle", "point")]
    assert sorted(points) == ["point k0", "point k0 best", "point k1"]


def test_the_default_may_win_and_a_soup_is_told():
    assert "The default configuration is the best" in words(replace(FINDINGS, best="0000"))
    assert "the average of 0001, 0000" in words(replace(FINDINGS, members=("0001", "0000")))


def test_a_search_of_one_trial_is_a_page():
    alone = replace(FINDINGS, best="0000", trials=TRIALS[:1], caches=(), caches_s=0, uncached_s=0)
    assert "Cost of the search" not in words(alone)
    assert "70.0 %" in words(alone)


def test_columns_by_hand():
    assert columns_of([1e-3, 1e-4, 1e-3]) == [Column(1e-4, 1e-4), Column(1e-3, 1e-3)]
    many = [10 ** (-5 + n / 10) for n in range(31)]  # three decades
    columns = columns_of(many)
    assert len(columns) == MOST_COLUMNS
    assert [column.high / column.low for column in columns] == pytest.approx([10 ** (3 / 8)] * 8)
    places = [column_index(columns, rate) for rate in many]
    assert places == sorted(places)
    assert set(places) == set(range(MOST_COLUMNS))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1e-4, "1e-4"), (0.00123, "1.2e-3"), (0.05, "0.05"), (None, "none"), ([1, 2], "1 – 2"), ("layer2", "layer2")],
)
def test_values_as_people_read_them(value, shown):
    assert value_text(value) == shown


def test_names_of_depths_and_rates():
    assert [depth_name(depth, STAGES) for depth in range(4)] == [
        "0, none frozen",
        "1, through stem",
        "2, through layer1",
        "3, all frozen",
    ]
    assert short(3.16e-4) == "3.2e-4"


def test_points_lie_where_their_values_are():
    drawn = scatter([Point(x=0, y=0.5, words="a"), Point(x=10, y=1.0, words="b")], label="x", x_name="s")
    (first, second) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert float(first[0]) < float(second[0])
    assert float(first[1]) > float(second[1])  # up is good
    assert scatter([], label="x", x_name="s") == ""
