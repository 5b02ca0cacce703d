"""The painting: the same every time, blue above ochre, warm lamps in rings of strokes, rough at all scales."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from vtray.demo.painting import draw_painting

SIDE_PX = 256


@pytest.fixture(scope="module")
def painting() -> np.ndarray:
    return draw_painting(height=SIDE_PX, width=SIDE_PX)


def test_it_is_rgb_bytes_of_the_asked_size() -> None:
    image = draw_painting(height=80, width=130)
    assert (image.shape, image.dtype) == ((80, 130, 3), np.uint8)


def test_it_is_the_same_every_time(painting: np.ndarray) -> None:
    assert np.array_equal(draw_painting(height=SIDE_PX, width=SIDE_PX), painting)


def test_the_sky_is_blue_and_the_dunes_are_ochre(painting: np.ndarray) -> None:
    sky = painting[: SIDE_PX // 2, : SIDE_PX // 8].mean(axis=(0, 1))  # left of every lamp
    dunes = painting[int(0.66 * SIDE_PX) : int(0.8 * SIDE_PX)].mean(axis=(0, 1))
    assert sky[2] > 1.5 * sky[0]
    assert dunes[0] > 1.5 * dunes[2]
    assert dunes[0] > dunes[1] > dunes[2]


def test_the_largest_lamp_is_bright_and_warm(painting: np.ndarray) -> None:
    y, x = int(0.30 * SIDE_PX), int(0.68 * SIDE_PX)
    lamp = painting[y - 8 : y + 8, x - 8 : x + 8].mean(axis=(0, 1))
    assert lamp[0] > 180
    assert lamp[0] > lamp[1] > lamp[2]
    assert lamp.mean() > 1.5 * painting.mean()


def test_colours_reach_from_deep_to_light(painting: np.ndarray) -> None:
    grey = cv2.cvtColor(painting, cv2.COLOR_RGB2GRAY)
    assert np.percentile(grey, 2) < 40
    assert np.percentile(grey, 98) > 160
    assert grey.std() > 30


def test_there_is_structure_at_every_scale(painting: np.ndarray) -> None:
    """Each octave between two blurs holds at least a tenth of the contrast; a smooth gradient has none in the
    finest, white noise hardly any in the coarsest."""
    grey = cv2.cvtColor(painting, cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred = [grey, *(cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (1, 2, 4, 8, 16, 32))]
    octaves = [float((fine - coarse).std()) for fine, coarse in pairwise(blurred)]
    assert min(octaves) > 0.1 * grey.std()


def test_strokes_run_around_the_largest_lamp(painting: np.ndarray) -> None:
    """In a ring around it gradients point along the radius; 0.5 of their energy would if they had no direction."""
    grey = cv2.cvtColor(painting, cv2.COLOR_RGB2GRAY).astype(float)
    down, right = np.gradient(grey)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - np.array([0.30, 0.68])[:, None, None] * SIDE_PX
    ring = (np.hypot(x, y) > 0.03 * SIDE_PX) & (np.hypot(x, y) < 0.11 * SIDE_PX)
    radial = (right * x + down * y)[ring] ** 2 / (x**2 + y**2)[ring]
    assert radial.sum() / (right**2 + down**2)[ring].sum() > 0.6


def test_brushes_grow_with_the_picture() -> None:
    """Half the size is nearly the same picture: seen from far, colours stay at their places."""
    pictures = [draw_painting(height=side_px, width=side_px) for side_px in (256, 128)]
    far = [cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(float) for image in pictures]
    assert np.abs(far[0] - far[1]).mean() < 20
    assert np.corrcoef(far[0].ravel(), far[1].ravel())[0, 1] > 0.9


@pytest.mark.parametrize(("height", "width"), [(63, 200), (200, 63)])
def test_a_side_too_small_for_strokes_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"the painting is {height} x {width} px; strokes need at least 64"):
        draw_painting(height=height, width=width)
