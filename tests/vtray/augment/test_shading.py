import numpy as np
import pytest
from pydantic import ValidationError

from vtray.augment.light_field import FieldGrid
from vtray.augment.operator import Params
from vtray.augment.shading import CastShadow, UnevenIllumination, shadow_field
from vtray.seeding import rng_for

ANGLES = [0, 37, 90, 200, 311.5]


def random_image(height: int = 90, width: int = 120) -> np.ndarray:
    image = rng_for("image").integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def flat(level: int, height: int = 256, width: int = 256) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def uneven(image: np.ndarray, strength: float, angle: float = 0.0, vignette: float = 0.0) -> np.ndarray:
    return UnevenIllumination().change(image, {"strength": strength, "angle": angle, "vignette": vignette})


# uneven illumination ---------------------------------------------------------------------------------------------


def test_two_stops_from_left_to_right_by_hand():
    lit = uneven(flat(100), 2)
    # one stop of light down, none and one up: 100 * 2^(-1 / 2.2), 100, 100 * 2^(1 / 2.2)
    assert lit[0, [0, 127, 255], 0].tolist() == pytest.approx([73, 100, 137], abs=1)
    assert np.ptp(lit, axis=0).max() == 0
    assert np.ptp(lit, axis=2).max() == 0


def test_a_vignette_of_one_stop_by_hand():
    lit = uneven(flat(200), 0, vignette=1)
    assert lit[[127, 0, 255], [128, 0, 0], 0].tolist() == pytest.approx([200, 146, 146], abs=2)  # 200 * 2^(-1/2.2)
    assert lit[127, 0, 0] == pytest.approx(200 * 2 ** (-0.5 / 2.2), abs=2)  # half the squared distance
    assert np.all(lit <= 200)


def test_zero_strength_returns_the_image():
    image = random_image()
    assert uneven(image, 0) is image


@pytest.mark.parametrize("angle", ANGLES)
def test_light_rises_along_its_direction_and_turns_with_it(angle):
    image = flat(100, 150, 256)
    lit = uneven(image, 2, angle).astype(int)
    right, down = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    assert (lit[75, -1, 0] - lit[75, 0, 0]) * right >= 0
    assert (lit[-1, 128, 0] - lit[0, 128, 0]) * down >= 0
    assert np.all(np.sign(np.diff(lit[75, :, 0])) * np.sign(round(right, 6)) >= 0)
    np.testing.assert_allclose(uneven(image, 2, angle + 180), lit[::-1, ::-1], atol=1)


@pytest.mark.parametrize("angle", ANGLES)
def test_the_whole_strength_lies_between_two_opposite_corners_or_sides(angle):
    lit = uneven(flat(100, 256, 256), 2, angle)
    assert [lit.min(), lit.max()] == pytest.approx([73, 137], abs=1)


def test_size_does_not_matter():
    small, large = uneven(flat(100, 60, 80), 2, 30, 1), uneven(flat(100, 600, 800), 2, 30, 1)
    np.testing.assert_allclose(small.astype(int), large[5::10, 5::10], atol=2)


# cast shadow -----------------------------------------------------------------------------------------------------


def shadow(*edges: tuple[float, float], **changes: float) -> Params:
    params = {"darkness": 0.5, "softness": 0.1, "tint": 0.0, "x": 0.5, "y": 0.5}
    return params | {"edges": [list(edge) for edge in edges]} | changes


def test_half_plane_by_hand():
    # the shadow lies left of the middle: half of the light is 200 * 0.5^(1 / 2.2) = 146 levels
    shaded = CastShadow().change(flat(200), shadow((0, 0)))
    assert shaded[9, [0, 100, 156, 255], 0].tolist() == [146, 146, 200, 200]
    assert shaded[9, 127, 0] == pytest.approx(173, abs=2)  # the middle of the soft edge
    assert np.all(np.diff(shaded[9, :, 0].astype(int)) >= 0)


def test_band_and_square_have_their_area():
    grid = FieldGrid.over(flat(0))
    band = shadow_field(grid, shadow((0, 0.2), (180, 0.2)))
    square = shadow_field(grid, shadow((0, 0.2), (90, 0.2), (180, 0.2), (270, 0.2)))
    assert band.mean() == pytest.approx(0.4, abs=0.01)
    assert square.mean() == pytest.approx(0.4 * 0.4, abs=0.01)
    assert (square.max(), square.min()) == (1, 0)
    np.testing.assert_allclose(square, square.T, atol=1e-6)


def test_softness_is_the_width_of_the_edge():
    row = shadow_field(FieldGrid.over(flat(0)), shadow((0, 0), softness=0.25))[0]
    assert np.mean((row > 0) & (row < 1)) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_a_shadow_only_darkens_and_blue_the_least(seed):
    image, operator = random_image(), CastShadow()
    params = operator.draw(rng_for("shadow", seed), 90, 120)
    assert np.all(operator.change(image, params) <= image)
    shaded = operator.change(flat(200), params | {"tint": 0.25}).astype(int)
    assert np.all(shaded[..., 0] <= shaded[..., 1])
    assert np.all(shaded[..., 1] <= shaded[..., 2])
    assert shaded[..., 2].min() > shaded[..., 0].min()


def test_zero_darkness_returns_the_image():
    image = random_image()
    assert CastShadow().change(image, shadow((0, 0), darkness=0.0)) is image


def test_every_number_of_edges_is_drawn_and_the_first_angle_kept():
    records = [CastShadow(angle=(90, 90)).draw(rng_for("edges", number), 10, 10) for number in range(100)]
    assert {len(record["edges"]) for record in records} == {1, 2, 3, 4}
    assert all(abs(record["edges"][0][0] - 90) <= 20 for record in records)
    fixed = CastShadow(num_edges=(2, 2)).draw(rng_for("edges"), 10, 10)
    assert len(fixed["edges"]) == 2


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (UnevenIllumination, {"strength": (0, 7)}, "0 to 7 is outside 0 to 6; keep both ends inside"),
        (UnevenIllumination, {"vignette": (1, 0)}, "swap them"),
        (CastShadow, {"softness": (0, 0.1)}, "outside 0.02 to 1"),
        (CastShadow, {"darkness": (0, 1.2)}, "outside 0 to 1"),
        (CastShadow, {"num_edges": (0, 3)}, "greater than or equal to 1"),
        (CastShadow, {"angle": (0, 720)}, "outside -360 to 360"),
    ],
)
def test_bad_arguments_are_refused(kind, fields, message):
    with pytest.raises(ValidationError, match=message):
        kind(**fields)
