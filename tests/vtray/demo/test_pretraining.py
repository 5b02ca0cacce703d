"""The two halves of the products: disjoint, the catalog's own pictures, readable as class folders."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vtray.demo.catalog import catalog_images
from vtray.demo.pretraining import (
    PRETRAINING_COUNTS,
    TARGET_COUNTS,
    split_products,
    write_pretraining_set,
    write_target_set,
)
from vtray.demo.products import CLASS_NAMES
from vtray.images import decode
from vtray.sources import open_source

PAIRS = (("cola_can", "cola_zero_can"), ("lemon_can", "orange_can"), ("water_bottle", "sparkling_water_bottle"))
FEW = {"train": 2, "val": 1}


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("halves")
    write_pretraining_set(folder / "first", counts=FEW, size_px=64)
    write_target_set(folder / "second", counts=FEW | {"showroom": 1}, size_px=64)
    return folder / "first", folder / "second"


def test_the_halves_are_disjoint_and_each_pair_of_a_brand_is_split():
    first, second = split_products()
    assert sorted(first + second) == sorted(CLASS_NAMES)
    assert len(first) == len(second) == 6
    assert all((known in first) and (new in second) for known, new in PAIRS)


def test_each_half_is_a_labelled_class_folder_with_splits(halves):
    for folder, classes, splits in zip(halves, split_products(), (FEW, FEW | {"showroom": 1}), strict=True):
        source = open_source(str(folder))
        assert source.classes == tuple(sorted(classes))
        found = Counter((ref.split, ref.class_name) for ref in source.refs)
        assert found == {(split, name): count for split, count in splits.items() for name in classes}


def test_a_picture_is_the_catalogs_with_the_same_seed_and_number(halves):
    wanted = {(p.split, p.name): p.image for p in catalog_images(counts={"val": 1}, size_px=64)}
    compared = 0
    for path in sorted((halves[0] / "val").glob("*/*.jpg")):
        stored = decode(path.read_bytes()).image.astype(int)
        assert np.abs(stored - wanted["val", path.stem]).mean() < 4, path  # JPEG of quality 92
        compared += 1
    assert compared == 6


def test_a_second_run_leaves_the_files_alone_and_repairs_a_damaged_one(tmp_path):
    assert write_target_set(tmp_path, counts={"train": 1}, size_px=64) == 6
    victim = tmp_path / "train/milk_carton/milk_carton-000.jpg"
    whole, others = victim.read_bytes(), [path for path in tmp_path.rglob("*.jpg") if path != victim]
    before = [path.stat().st_mtime_ns for path in others]
    victim.write_bytes(whole[:50])
    assert write_target_set(tmp_path, counts={"train": 1}, size_px=64) == 1
    assert victim.read_bytes() == whole
    assert [path.stat().st_mtime_ns for path in others] == before


def test_another_seed_gives_other_pictures(tmp_path):
    for seed in (1, 2):
        write_pretraining_set(tmp_path / str(seed), seed=seed, counts={"val": 1}, size_px=64)
    one, two = ([path.read_bytes() for path in sorted((tmp_path / str(seed)).rglob("*.jpg"))] for seed in (1, 2))
    assert len(one) == len(two) == 6
    assert not set(one) & set(two)


def test_there_is_more_to_learn_from_before_than_after_and_enough_to_measure_on():
    assert PRETRAINING_COUNTS["train"] > 5 * TARGET_COUNTS["train"]
    assert min(TARGET_COUNTS["test"], TARGET_COUNTS["showroom"]) * 6 >= 100  # a percent is an image
