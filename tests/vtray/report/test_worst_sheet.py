import io

import numpy as np
import pytest
from PIL import Image

from vtray.report.worst_sheet import CELL_PX, WorstImage, worst_images_lines, worst_images_sheet

RED, BLUE = (220, 20, 20), (20, 20, 220)


def flat(colour, side=CELL_PX):
    return np.full((side, side, 3), colour, np.uint8)


def entry(**changes):
    plain = {
        "image": flat(RED),
        "overlay": flat(BLUE),
        "true_class": "can",
        "predicted_class": "bottle",
        "probability": 0.973,
        "image_id": "test/can/7.jpg",
    }
    return WorstImage(**(plain | changes))


def sheet(*entries):
    return np.array(Image.open(io.BytesIO(worst_images_sheet(entries))))


def count_of(pixels, colour):
    return int((pixels == colour).all(axis=2).sum())


@pytest.mark.parametrize("num", [1, 2, 5, 12])
def test_every_image_stands_beside_its_heat(num):
    pixels = sheet(*[entry()] * num)
    assert count_of(pixels, RED) == count_of(pixels, BLUE) == num * CELL_PX**2
    rows, columns = np.nonzero((pixels == RED).all(axis=2))
    assert len(np.unique(rows)) == -(-num // 2) * CELL_PX  # two in a row
    first_blue = np.nonzero((pixels == BLUE).all(axis=2))[1].min()
    assert columns.min() + CELL_PX < first_blue


def test_the_sheet_fits_the_page():
    assert sheet(*[entry()] * 4).shape[1] <= 1120


def test_an_image_without_heat_has_its_reason():
    pixels = sheet(entry(overlay=None))
    assert count_of(pixels, BLUE) == 0
    assert pixels.shape == sheet(entry()).shape


def test_no_images():
    assert sheet().ndim == 3


def test_the_same_in_words():
    entries = (entry(), entry(image_id="", true_class="bottle"), entry(true_class=None, probability=0.5))
    assert worst_images_lines(entries) == (
        "1. test/can/7.jpg: can taken for bottle, 97.3 %",
        "2. rightly bottle, 97.3 %",
        "3. test/can/7.jpg: bottle, 50.0 %",
    )


def test_the_same_entries_give_the_same_bytes():
    assert worst_images_sheet([entry()]) == worst_images_sheet([entry()])
    assert worst_images_sheet([entry()]) != worst_images_sheet([entry(predicted_class="carton")])
