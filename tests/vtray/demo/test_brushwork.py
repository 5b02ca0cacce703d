"""Strokes follow the directions that they are given and keep their colours; relief is lit from the upper left."""

import numpy as np
import pytest

from vtray.demo.brushwork import CELL_PX, Coat, Motif, in_raking_light, laid
from vtray.seeding import rng_for

SIDE_PX = 96
COAT = Coat(width=0.06, length=7, density=1.2, spread=30)


def plain(*, angle: float, colour: tuple[int, int, int] = (90, 120, 150)) -> Motif:
    """One colour and one direction everywhere."""
    cells = SIDE_PX // CELL_PX
    colours = np.full((cells, cells, 3), colour, np.float32)
    return Motif(colours=colours, angle=np.full((cells, cells), angle, np.float32))


def canvas_of(motif: Motif, coat: Coat = COAT, *, seed: int = 0) -> np.ndarray:
    return laid(motif, [coat], rng_for(seed), height=SIDE_PX, width=SIDE_PX)


def roughness(canvas: np.ndarray) -> tuple[float, float]:
    """Mean squared differences of neighbours (down, across), RGB."""
    pixels = canvas[..., :3].astype(float)
    return float((np.diff(pixels, axis=0) ** 2).mean()), float((np.diff(pixels, axis=1) ** 2).mean())


def test_strokes_are_long_in_their_direction() -> None:
    down, across = roughness(canvas_of(plain(angle=0.0)))
    assert down > 3 * across
    down, across = roughness(canvas_of(plain(angle=np.pi / 2)))
    assert across > 3 * down


def test_opposite_directions_give_the_same_kind_of_stroke() -> None:
    here, back = (roughness(canvas_of(plain(angle=angle))) for angle in (0.0, np.pi))
    assert here == pytest.approx(back, rel=0.2)


def test_strokes_around_a_centre_close_to_rings() -> None:
    cells = SIDE_PX // CELL_PX
    y, x = np.mgrid[:cells, :cells] - (cells - 1) / 2
    around = Motif(colours=np.full((cells, cells, 3), 128, np.float32), angle=np.arctan2(x, -y).astype(np.float32))
    pixels = canvas_of(around)[..., :3].astype(float).mean(axis=2)
    down, right = np.gradient(pixels)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - (SIDE_PX - 1) / 2
    ring = (np.hypot(x, y) > 15) & (np.hypot(x, y) < 45)
    radial = (right * x + down * y)[ring] ** 2 / (x**2 + y**2)[ring]
    # a gradient without any direction has half of its energy along the radius
    assert radial.sum() / (right**2 + down**2)[ring].sum() > 0.75


def test_the_paint_has_the_colour_of_the_motif_on_average() -> None:
    painted = canvas_of(plain(angle=0.3))[8:-8, 8:-8, :3].reshape(-1, 3)
    assert painted.mean(axis=0) == pytest.approx((90, 120, 150), abs=10)
    assert painted.std(axis=0).min() > 5


def test_without_spread_only_the_bristles_differ() -> None:
    coat = Coat(width=0.06, length=7, density=1.5, spread=0)
    painted = canvas_of(plain(angle=0.3), coat)[8:-8, 8:-8, :3].reshape(-1, 3).astype(float)
    covered = painted[(painted != (60, 42, 34)).any(axis=1)]
    # 0.11 of the colour, one standard deviation: red and blue of a bristle rise and fall together
    assert np.corrcoef(covered[:, 0], covered[:, 2])[0, 1] > 0.95
    assert covered[:, 1].std() == pytest.approx(0.11 * 120, rel=0.35)


def test_the_same_generator_gives_the_same_canvas_and_another_one_another() -> None:
    motif = plain(angle=0.3)
    assert np.array_equal(canvas_of(motif, seed=1), canvas_of(motif, seed=1))
    assert not np.array_equal(canvas_of(motif, seed=1), canvas_of(motif, seed=2))


def test_a_flat_canvas_keeps_its_colours_but_for_the_linen() -> None:
    canvas = np.full((SIDE_PX, SIDE_PX, 4), 120, np.uint8)
    image = in_raking_light(canvas, rng_for(0)).astype(int)
    assert image.shape == (SIDE_PX, SIDE_PX, 3)
    assert np.abs(image - 120).mean() < 4
    assert image.std() > 0


def test_ridges_shine_on_the_side_of_the_light() -> None:
    canvas = np.full((SIDE_PX, SIDE_PX, 4), 120, np.uint8)
    canvas[:, 40:50, 3] = 255  # a vertical ridge: its left flank faces the light, its right one is in shade
    image = in_raking_light(canvas, rng_for(0)).astype(int)[..., 0]
    assert image[:, 39:41].mean() > 140
    assert image[:, 49:51].mean() < 100
    assert image[:, 44:46].mean() == pytest.approx(120, abs=6)
