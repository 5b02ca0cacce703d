"""An image painted in tiles has the pixels of the image painted whole, for every fast network."""

import numpy as np
import pytest
import torch
from painters import ENGINES, fast_work
from style_networks import photograph, picture, stripes, style_of
from torch import nn

from vtray.style.fast.field import Canvas, Pixels
from vtray.style.fast.operations import OPERATIONS
from vtray.style.fast.painter import load_painter
from vtray.style.fast.tiles import paint_in_tiles
from vtray.style.pixels import to_images, to_pixels

CPU = torch.device("cpu")


def canvas_of(image, tile_px, **options):
    return Canvas(size=image.shape[:2], tile_px=tile_px, device=CPU, operations=OPERATIONS, **options)


def in_tiles(module, image, tile_px):
    """What a module gives for the pixels of an image, computed by windows."""
    canvas = canvas_of(image, tile_px)
    field = module(Pixels(canvas, image))
    made = torch.full(field.shape, torch.nan)
    for rows, columns in canvas.tiles(field):
        made[..., slice(*rows), slice(*columns)] = field.window(rows, columns)
    return made


def whole(painter, image):
    with torch.inference_mode():
        return to_images(painter(to_pixels([image])))[0]


@pytest.mark.parametrize(
    "module",
    [
        nn.ReflectionPad2d((3, 1, 2, 4)),
        nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(3, 4, 9)),
        nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 6, 3, stride=2, groups=3)),
        nn.Conv2d(3, 4, 1, stride=2),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU()),
        nn.InstanceNorm2d(3),
        nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.Conv2d(3, 2, 1), nn.InstanceNorm2d(2)),
    ],
)
@pytest.mark.parametrize("tile_px", [5, 16, 100])
@torch.inference_mode()
def test_every_layer_by_windows_is_the_layer(module, tile_px):
    image = picture(3, 37, 50)
    expected = module(to_pixels([image]))
    made = in_tiles(module, image, tile_px)
    assert made.shape == expected.shape
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_statistics_count_each_pixel_once():
    """A hand-worked case: 0 in the left third, 1 elsewhere has mean 2/3 and variance 2/9, however it is cut."""
    image = np.zeros((6, 9, 3), np.uint8)
    image[:, 3:] = 255
    for tile_px in (2, 4, 9):
        canvas = canvas_of(image, tile_px)
        variance, mean = canvas.statistics(Pixels(canvas, image))
        assert mean.flatten().tolist() == pytest.approx([2 / 3] * 3)
        assert variance.flatten().tolist() == pytest.approx([2 / 9] * 3)


def test_a_function_that_fields_do_not_know_is_named():
    image = picture(1)
    with pytest.raises(NotImplementedError, match="sigmoid"):
        torch.sigmoid(Pixels(canvas_of(image, 8), image))
    with pytest.raises(NotImplementedError, match="padded"):
        nn.Conv2d(3, 3, 3, padding=1)(Pixels(canvas_of(image, 8), image))


def apart(one, other):
    return np.abs(one.astype(int) - other)


def starry(engine, tmp_path, fixtures, **options):
    style = style_of(photograph(fixtures / "style_images/starry_night.jpg", 96, 128))
    styles = () if engine == "feedforward" else (style,)
    return load_painter(fast_work(engine, tmp_path, fixtures, *styles, **options))


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_make_the_pixels_of_the_whole_image(engine, tmp_path, fixtures):
    painter = starry(engine, tmp_path, fixtures)
    image = photograph(fixtures / "content/astronaut.png", 205, 314)
    expected = whole(painter, image)
    made = paint_in_tiles(painter, image, device=CPU, tile_px=96)
    assert apart(made, expected).max() <= 1
    assert apart(expected, image).mean() > 3


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_in_bf16_are_no_farther_from_fp32_than_the_whole_image_is(engine, tmp_path, fixtures):
    """bf16 rounds at other places where convolutions are cut in another way: to the last bit they cannot agree."""
    image = photograph(fixtures / "content/astronaut.png", 205, 314)
    exact = whole(starry(engine, tmp_path / "fp32", fixtures), image)
    painter = starry(engine, tmp_path / "bf16", fixtures, precision="bf16")
    made = paint_in_tiles(painter, image, device=CPU, tile_px=96)
    assert apart(made, exact).mean() < 1.3 * apart(whole(painter, image), exact).mean()


@pytest.mark.parametrize("engine", ENGINES)
def test_fast_tiles_have_the_statistics_of_a_small_copy(engine, tmp_path, fixtures):
    painter = load_painter(fast_work(engine, tmp_path, fixtures))
    image = photograph(fixtures / "content/coffee.png", 400, 600)
    expected = whole(painter, image)
    made = paint_in_tiles(painter, image, device=CPU, tile_px=256, exact=False)
    assert 0 < apart(made, expected).mean() < 25
    small = photograph(fixtures / "content/coffee.png", 120, 160)  # its copy is itself
    again = paint_in_tiles(painter, small, device=CPU, tile_px=64, exact=False)
    assert apart(again, whole(painter, small)).max() <= 1


def test_a_long_strip_has_no_seams(tmp_path, fixtures):
    """Stripes of one kind all along: what is painted repeats, also where tiles meet."""
    painter = load_painter(fast_work("microast", tmp_path, fixtures))
    image = np.tile(stripes(0, 64)[:32], (1, 12, 1))
    made = paint_in_tiles(painter, image, device=CPU, tile_px=50)
    assert apart(made, whole(painter, image)).max() <= 1


def test_not_a_number_is_told(tmp_path, fixtures):
    painter = load_painter(fast_work("feedforward", tmp_path, fixtures))
    next(painter.parameters()).data.fill_(torch.nan)
    assert paint_in_tiles(painter, picture(1, 64, 64), device=CPU) is None
