"""docs/results.md says what the benchmarks' JSON files say."""

import json
import re

import pytest
from drawn import ROOT

TEXT = (ROOT / "docs" / "results.md").read_text()


def result(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


ACCURACY = result("finetune-accuracy")
LIGHTS = ("test", "a quarter", "warm")
TRAININGS = ("without augmentation", "crop and flip", "recipes/showroom.yaml", "from scratch")


def cells_of(row):
    """The cells of the table row of that name, without the name."""
    (line,) = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", TEXT, re.MULTILINE)
    return line.split(" | ")


def numbers_in(cell):
    return [float(number) for number in re.findall(r"[0-9.]+", cell)]


@pytest.mark.parametrize("training", TRAININGS)
def test_the_accuracy_table_is_the_benchmark_s(training):
    for light, cell in zip(LIGHTS, cells_of(training), strict=True):
        found = ACCURACY[training][light]
        numbers = [found["mean"], min(found["seeds"]), max(found["seeds"])]
        assert numbers_in(cell) == [round(100 * number, 1) for number in numbers]


def test_the_goals_are_reached():
    """95 % on test images, 94 % in the dark, 93 % under a lamp, 30 points over training from scratch."""
    mean = {name: {light: ACCURACY[name][light]["mean"] for light in LIGHTS} for name in TRAININGS}
    assert mean["crop and flip"]["test"] >= 0.95
    assert mean["recipes/showroom.yaml"]["a quarter"] >= 0.94
    assert mean["recipes/showroom.yaml"]["warm"] >= 0.93
    assert mean["from scratch"]["test"] <= mean["crop and flip"]["test"] - 0.30


def test_bf16_is_as_accurate_as_fp32():
    """Its mean is within what the seeds of fp32 differ by."""
    found = result("finetune-numerics")
    for precision in ("fp32", "bf16"):
        (cell,) = cells_of(f"crop and flip, {precision}")
        test = found[precision]["test"]
        numbers = [test["mean"], min(test["seeds"]), max(test["seeds"])]
        assert numbers_in(cell) == [round(100 * number, 1) for number in numbers]
    assert found["bf16"]["test"]["mean"] >= min(found["fp32"]["test"]["seeds"])


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "squeezenet1_1", "resnet18"])
def test_the_arithmetic_table_is_the_benchmark_s(backbone):
    found = result("finetune-arithmetic")[backbone]
    chosen, times = cells_of(backbone)
    assert chosen == found["chosen"]["numerics"]
    assert numbers_in(times) == [round(found["speedup_cpu_time"][name], 2) for name in ("median", "min", "max")]
    assert found["speedup_cpu_time"]["median"] >= found["goal"]


@pytest.mark.parametrize(
    ("row", "name"),
    [("all stages (linear probe)", "linear_probe"), ("14 of 19 stages", "three_quarters")],
)
def test_the_cache_table_is_the_benchmark_s(row, name):
    found = result("finetune-cache")[name]
    assert found["frozen"] in ("19 of 19 stages", row)
    over_frozen, over_full = cells_of(row)
    for cell, key, allowed in (
        (over_frozen, "speedup", "over_frozen"),
        (over_full, "speedup_over_full", "over_full"),
    ):
        assert numbers_in(cell) == [round(found[key]["median"], 1), round(found["macs_allow"][allowed], 1)]
    assert found["speedup_over_full"]["median"] >= found["goal"]


def test_what_is_told_of_the_loop_is_the_benchmark_s():
    ratio, seconds = result("finetune-loop")["vtray_over_plain"], result("finetune-epochs")["seconds"]
    assert f": {ratio:.2f} times the images per second" in " ".join(TEXT.split())
    assert f"MLflow: {seconds:.1f} s from the first to the last" in " ".join(TEXT.split())
    assert ratio >= 0.95
    assert seconds < result("finetune-epochs")["goal_s"]


def test_the_table_of_the_search_is_the_benchmark_s():
    found = result("tune")
    assert numbers_in(cells_of("part of the time")[0]) == [round(found["share"], 2)]
    assert numbers_in(cells_of("stopped early")[0]) == [found["stopped"], found["trials"]]
    for row, names in (
        ("best on val, of the search and of the whole grid", ("winner_val", "best_of_grid_val")),
        ("test images, the winner in full and the default in full", ("test_winner", "test_default")),
    ):
        assert numbers_in(cells_of(row)[0]) == [round(100 * found[name], 1) for name in names]
    assert found["test_winner"] >= found["test_default"]
