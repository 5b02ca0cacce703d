"""Loading crops: places decide, ranks share, and a broken image costs one crop and is told."""

import json

import numpy as np
import pytest
from fast_training import write_photos

from vtray.errors import InputError
from vtray.sources import open_source
from vtray.steps.load_crops import LoadCropRows, LoadCrops
from vtray.style.fast.crops import CropMaker


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", count=4)


def load_of(photos):
    source = open_source(str(photos))
    return LoadCrops(refs=source.refs, format=source.format, maker=CropMaker(crop_px=32, size_px=32))


def test_two_ranks_load_what_one_does(photos):
    whole, _ = load_of(photos)(5, 0, (0, 1, 2, 3))
    parts = [load_of(photos)(5, first, indexes)[0] for first, indexes in ((0, (0, 1)), (2, (2, 3)))]
    assert whole.shape == (4, 32, 32, 3)
    assert np.array_equal(whole, np.concatenate(parts))


def test_an_image_that_comes_twice_is_cut_twice(photos):
    crops, _ = load_of(photos)(5, 0, (1, 1))
    assert not np.array_equal(crops[0], crops[1])


def test_the_next_whole_image_stands_in_for_a_broken_one(photos):
    (photos / "01.png").write_bytes(b"broken")
    crops, faults = load_of(photos)(5, 0, (0, 1, 2))
    assert np.array_equal(crops[1], crops[2])
    assert [fault["image_id"] for fault in faults] == ["01.png"]
    row = LoadCropRows(load_of(photos))({"step": 5, "first": 0, "indexes": [0, 1, 2]})
    assert np.array_equal(row["images"], crops)
    assert json.loads(row["faults"][0])["image_id"] == "01.png"


def test_a_batch_without_a_whole_image_is_an_error(photos):
    (photos / "01.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="all 2 images of a batch are broken"):
        load_of(photos)(5, 0, (1, 1))
