"""Crops of content images: what is cut, and that seed, step and place decide it alone."""

import numpy as np
import pytest
from style_networks import picture

from vtray.errors import ImageError
from vtray.images import encode
from vtray.style.fast.crops import CropMaker

PHOTO = picture(1, 48, 64)
ENCODED = encode(PHOTO, format="png")


def crops(maker, number=40):
    return [maker(ENCODED, step=step, place=0) for step in range(number)]


def test_without_zoom_a_crop_is_a_window_of_the_image_or_its_mirror_image():
    maker = CropMaker(crop_px=48, size_px=48, zoom=1)
    windows = {PHOTO[:, left : left + 48].tobytes() for left in range(17)}
    mirrored = {PHOTO[:, left : left + 48][:, ::-1].tobytes() for left in range(17)}
    found = [crop.tobytes() for crop in crops(maker)]
    assert {crop in windows for crop in found} == {True, False}
    assert all(crop in windows | mirrored for crop in found)
    assert len(set(found)) > 15


def test_the_shorter_side_is_taken_as_the_size():
    """A crop of 24 px of an image that is taken as 24 px high shows all of its height, halved."""
    (crop,) = crops(CropMaker(crop_px=24, size_px=24, zoom=1), 1)
    assert crop.shape == (24, 24, 3)
    assert abs(float(crop.mean()) - float(PHOTO.mean())) < 12


def test_a_zoom_shows_less_of_the_image():
    """Small areas, enlarged, have less detail from pixel to pixel than the image itself."""
    near = crops(CropMaker(crop_px=32, size_px=96, zoom=2))
    assert {crop.shape for crop in near} == {(32, 32, 3)}
    detail = np.mean([np.abs(np.diff(crop.astype(int), axis=1)).mean() for crop in near])
    assert detail < 0.7 * np.abs(np.diff(PHOTO.astype(int), axis=1)).mean()


def test_step_place_and_seed_decide():
    maker = CropMaker(crop_px=32, size_px=40)
    first = maker(ENCODED, step=3, place=1)
    assert np.array_equal(first, maker(ENCODED, step=3, place=1))
    others = [
        maker(ENCODED, step=4, place=1),
        maker(ENCODED, step=3, place=2),
        CropMaker(crop_px=32, size_px=40, seed=1)(ENCODED, step=3, place=1),
    ]
    assert not any(np.array_equal(first, other) for other in others)


def test_a_broken_image_is_an_image_error():
    with pytest.raises(ImageError):
        CropMaker(crop_px=32, size_px=32)(b"\xff\xd8\xff broken", step=0, place=0)
