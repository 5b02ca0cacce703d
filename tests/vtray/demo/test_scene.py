"""The optics behind the pictures: lamps, cutouts, turned surfaces, the camera."""

import numpy as np
import pytest

from vtray.demo.camera import Exposure, developed
from vtray.demo.cutout import Cutout, Pose
from vtray.demo.light import Light, Softbox, colour, lamp_colour, linear, softened
from vtray.demo.products import CLASS_NAMES, product
from vtray.demo.scene import MACHINE, photograph
from vtray.demo.turned import Outline, seen
from vtray.seeding import rng_for

LIGHT = Light(
    key_azimuth=0.6,
    key_strength=0.7,
    ambient=0.4,
    softboxes=(Softbox(azimuth=1.0, half_width=0.25, brightness=3.0),),
    floor=(0.2, 0.2, 0.2),
)
STEADY = Exposure(kelvin=(6500, 6500), gain=(1, 1), noise=(0, 0), blur=(0, 0))


def test_a_lamp_of_6500_kelvin_is_neutral_and_warmer_ones_are_redder() -> None:
    assert lamp_colour(6500) == pytest.approx([1, 1, 1])
    warm, cold = lamp_colour(3000), lamp_colour(9000)
    assert warm[0] > warm[1] > warm[2]
    assert cold[0] < cold[1] < cold[2]
    # 3000 K in linear sRGB is R/G 2.09 and B/G 0.32; white balance leaves the exponent 0.6
    assert warm[0] / warm[1] == pytest.approx(2.09**0.6, rel=0.03)
    assert warm[2] / warm[1] == pytest.approx(0.32**0.6, rel=0.03)


def test_linear_light_of_middle_grey() -> None:
    assert linear(np.full((1, 1, 3), 188, np.uint8)) == pytest.approx(
        0.5028, abs=1e-3
    )  # ((188/255+.055)/1.055)^2.4
    assert colour("#00ff00") == pytest.approx([0, 1, 0])


def test_a_wide_blur_keeps_the_mean_and_spreads_as_far_as_opencv_would() -> None:
    spot = np.zeros((120, 120), np.float32)
    spot[60, 60] = 1000
    soft = softened(spot, 8.0)
    across = soft.sum(axis=0)
    place = np.arange(120)
    middle = (across * place).sum() / across.sum()
    assert soft.sum() == pytest.approx(1000, rel=0.01)
    assert np.sqrt((across * (place - middle) ** 2).sum() / across.sum()) == pytest.approx(8.0, rel=0.1)


def test_a_plain_cylinder_covers_its_rectangle_and_faces_the_camera_in_the_middle() -> None:
    surface = seen(Outline(((0, 2.0), (10, 2.0))), Pose(yaw=0.3, tilt=0.0, height_px=200))
    scale = 20  # pixels per cm
    assert surface.cover.sum() == pytest.approx(4.0 * scale * 10 * scale, rel=0.01)
    row, column = int(surface.foot[1]) - 100, int(surface.foot[0])
    assert surface.height[row, column] == pytest.approx(5.0, abs=0.1)
    assert surface.azimuth[row, column] == pytest.approx(0.3, abs=0.02)
    assert surface.normal[row, column] == pytest.approx([0, 0, 1], abs=0.02)
    assert surface.top_cover.max() == 0


def test_the_camera_above_sees_the_top_as_an_ellipse() -> None:
    tilt = 0.2
    surface = seen(Outline(((0, 2.0), (10, 2.0))), Pose(yaw=0.0, tilt=tilt, height_px=200))
    area = np.pi * (2.0 * 20) * (2.0 * 20 * np.sin(tilt))
    assert surface.top_cover.sum() == pytest.approx(area, rel=0.03)


def test_a_cutout_shows_what_is_behind_only_where_it_is_clear() -> None:
    shown = np.zeros((4, 4, 3), np.float32)
    clear = np.ones((4, 4, 3), np.float32)
    shown[1, 1], clear[1, 1] = 0.7, 0.0
    clear[2, 2] = (1.0, 0.5, 0.0)
    picture = Cutout(light=shown, clear=clear, foot=(2, 3)).over(np.full((4, 4, 3), 0.4, np.float32))
    assert picture[1, 1] == pytest.approx([0.7, 0.7, 0.7])
    assert picture[2, 2] == pytest.approx([0.4, 0.2, 0.0])
    assert picture[0, 0] == pytest.approx([0.4, 0.4, 0.4])


def test_placing_moves_the_foot_and_nothing_is_lost_inside_the_canvas() -> None:
    cutout = product("cola_can").render(Pose(yaw=0, tilt=0.1, height_px=60), LIGHT)
    placed = cutout.placed(128, (70.0, 110.0))
    assert placed.cover.sum() == pytest.approx(cutout.cover.sum(), rel=1e-3)
    rows, columns = np.nonzero(placed.cover > 0.5)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(70, abs=1.5)
    assert rows.max() == pytest.approx(110, abs=4)


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_every_product_is_solid_lit_and_upright_in_any_pose(class_name: str) -> None:
    for yaw, tilt in ((-0.75, 0.07), (0.0, 0.15), (0.75, 0.24), (0.4, -0.2)):
        cutout = product(class_name).render(Pose(yaw=yaw, tilt=tilt, height_px=90), LIGHT)
        assert np.isfinite(cutout.light).all()
        assert cutout.light.min() >= 0
        assert 0 <= cutout.clear.min() <= cutout.clear.max() <= 1
        rows, columns = np.nonzero(cutout.cover > 0.1)
        assert 80 < np.ptp(rows) < 130
        assert np.ptp(rows) > np.ptp(columns) > 20
        # the object ends inside its canvas on both sides
        assert cutout.cover[:, [0, -1]].max() < 0.5


def test_bottles_let_the_background_through_and_cans_do_not() -> None:
    pose = Pose(yaw=0, tilt=0.1, height_px=90)
    bottle, can = (product(name).render(pose, LIGHT) for name in ("water_bottle", "cola_can"))
    inside_can = can.clear[can.cover.shape[0] // 2, can.cover.shape[1] // 2]
    shoulder = bottle.clear[int(bottle.foot[1] - 0.3 * 90), int(bottle.foot[0])]
    assert inside_can.max() == pytest.approx(0, abs=1e-6)
    assert shoulder.min() > 0.3


def test_the_camera_without_blur_and_noise_encodes_srgb() -> None:
    scene = np.full((64, 64, 3), 0.2140, np.float32)  # linear light of sRGB 0.5
    image = developed(scene, rng_for(0), exposure=STEADY)
    assert np.abs(image.astype(int) - 127).max() <= 1


def test_sensor_noise_has_the_stated_strength() -> None:
    noisy = Exposure(kelvin=(6500, 6500), gain=(1, 1), noise=(0.02, 0.02), blur=(0, 0))
    image = developed(np.full((128, 128, 3), 0.25, np.float32), rng_for(0), exposure=noisy)
    # spread 0.02 (sqrt(0.25) + 0.12) = 0.0124 in linear light; sRGB has slope 0.85 at 0.25: 0.0124 * 0.85 * 255
    slope = (1.055 / 2.4) * 0.25 ** (1 / 2.4 - 1)
    assert image.std() == pytest.approx(0.0124 * slope * 255, rel=0.08)


def test_an_unknown_product_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"'cola_jar'; there are coffee_can, cola_can"):
        photograph("cola_jar", rng_for(0), setting=MACHINE, size_px=64)
