"""The engines of one pass as the job uses them: any sizes in one call, sizes kept, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from painters import ENGINES, STYLES, fast_work, msgnet_model
from style_networks import picture, stripes, style_of

from vtray.errors import ConfigError, WeightsError
from vtray.style.engines.engine import engine_for
from vtray.style.engines.fast import FastEngine
from vtray.style.engines.stylized import Request
from vtray.style.fast.painter import Painter, load_painter, shares_of
from vtray.style.pixels import to_pixels
from vtray.style.work import WeightsFile

SIZES = ((48, 64), (64, 48), (37, 50), (48, 64), (33, 33), (50, 37))


@pytest.fixture
def engine_of(tmp_path, fixtures):
    def make(engine, *styles, **options):
        loaded = engine_for(fast_work(engine, tmp_path, fixtures, *styles, **options))
        assert isinstance(loaded, FastEngine)
        return loaded

    return make


def requests(sizes=SIZES):
    return [Request(image=picture(number, *size)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize("name", ENGINES)
def test_images_of_six_sizes_in_one_call_are_what_each_is_alone(name, engine_of):
    engine = engine_of(name, batch=4)
    together = engine.stylize(requests())
    for request, one in zip(requests(), together, strict=True):
        (alone,) = engine.stylize([request])
        assert one.image.shape == request.image.shape
        assert one.error is None
        assert one.size == request.image.shape[:2]
        assert np.abs(one.image.astype(int) - alone.image).max() <= 1
        assert np.abs(one.image.astype(int) - request.image).mean() > 3


@pytest.mark.parametrize("name", ENGINES)
@torch.inference_mode()
def test_before_rounding_a_batch_is_its_images_within_a_thousandth(name, engine_of):
    painter = engine_of(name).painter
    pixels = to_pixels([picture(number, 37, 50) for number in range(3)])
    for one, alone in zip(painter(pixels), torch.split(pixels, 1), strict=True):
        assert (one - painter(alone)[0]).abs().max() < 1e-3


def test_the_style_is_encoded_once(engine_of, monkeypatch):
    engine = engine_of("microast")
    monkeypatch.setattr(type(engine.painter.network.network), "encode_style", lambda *_: pytest.fail("again"))
    first, second = engine.stylize([Request(image=picture(1)), Request(image=picture(1))])
    np.testing.assert_array_equal(first.image, second.image)


@pytest.mark.parametrize("name", ENGINES)
def test_large_images_are_painted_in_tiles_and_say_so(name, engine_of):
    engine = engine_of(name)
    request = Request(image=picture(5, 120, 170))
    (whole,) = engine.stylize([request])
    small = replace(engine, work=replace(engine.work, fast=replace(engine.work.fast, memory_mb=1)))
    (tiled,) = small.stylize([request])
    assert whole.warnings == ()
    assert tiled.warnings == ("painted in tiles, statistics of the whole image",)
    assert np.abs(tiled.image.astype(int) - whole.image).max() <= 1


def test_a_batch_that_memory_cannot_hold_is_made_smaller_then_tiled(engine_of, monkeypatch):
    engine, sizes = engine_of("feedforward", batch=4), []
    real = Painter.forward

    def forward(self, pixels):
        if isinstance(pixels, torch.Tensor):
            sizes.append(len(pixels))
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return real(self, pixels)

    monkeypatch.setattr(Painter, "forward", forward)
    made = engine.stylize(requests([(48, 64)] * 2))
    assert sizes == [2, 1, 1]
    assert [one.image.shape for one in made] == [(48, 64, 3)] * 2
    assert made[0].warnings[1:] == (
        "64 x 48 did not fit into memory whole",
        "batch of 2 did not fit into memory, made smaller",
    )
    off = replace(engine, work=replace(engine.work, fast=replace(engine.work.fast, tiling="off")))
    assert off.stylize(requests([(48, 64)]))[0].error.reason == "out_of_memory"


def test_other_errors_are_not_taken_for_a_lack_of_memory(engine_of, monkeypatch):
    engine = engine_of("feedforward")
    monkeypatch.setattr(Painter, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        engine.stylize(requests([(48, 64)]))


@pytest.mark.parametrize("name", ENGINES)
def test_tiny_images_are_told_and_the_others_are_done(name, engine_of):
    made = engine_of(name).stylize(requests([(1, 5), (48, 64), (5, 400)]))
    assert [one.error and one.error.reason for one in made] == ["too_small", None, "too_small"]
    assert f"5 x 1: engine {name} needs 16 px a side; leave the image out" in str(made[0].error)


@pytest.mark.parametrize("name", ENGINES)
def test_the_smallest_image_that_is_allowed_works(name, engine_of):
    engine = engine_of(name)
    least = engine.min_side_px
    (made,) = engine.stylize(requests([(least, least + 1)]))
    assert made.image.shape == (least, least + 1, 3)


def test_not_a_number_becomes_an_error_of_that_image(engine_of):
    engine = engine_of("feedforward", batch=2)
    next(engine.painter.parameters()).data.fill_(torch.nan)
    (made,) = engine.stylize(requests([(48, 64)]))
    assert (made.image, made.error.reason) == (None, "not_finite")


def test_strength_0_of_a_trained_network_is_the_content(engine_of):
    for name in ("feedforward", "msgnet"):
        (made,) = engine_of(name, strength=0.0).stylize(requests([(48, 64)]))
        np.testing.assert_array_equal(made.image, picture(0, 48, 64))


def test_a_blend_of_named_styles_lies_between_them(tmp_path, fixtures):
    pixels = to_pixels([picture(1, 48, 64)])
    painted = []
    for share in (0.0, 0.3, 0.7, 1.0):
        names = zip(STYLES, (1 - share, share), strict=True)
        styles = tuple(style_of(stripes(), name=name, weight=weight) for name, weight in names if weight)
        work = replace(fast_work("msgnet", tmp_path, fixtures), styles=styles)
        with torch.inference_mode():
            painted.append(load_painter(work)(pixels))
    distances = [float((each - painted[0]).square().mean()) for each in painted]
    assert distances == sorted(distances)
    assert distances[1] > 0


def test_a_style_image_counts_by_its_share(engine_of):
    styles = [style_of(stripes(), weight=3.0), style_of(picture(9), weight=1.0)]
    assert shares_of(styles) == (0.75, 0.25)
    first, both = (engine_of("adain", *chosen).stylize(requests([(48, 64)]))[0] for chosen in (styles[:1], styles))
    assert not np.array_equal(first.image, both.image)


def test_a_larger_style_image_is_another_style(engine_of):
    engine = engine_of("adain", style_of(picture(11, 96, 96)))
    larger = engine_for(replace(engine.work, style_scale=2.0))
    images = [one.stylize(requests([(48, 64)]))[0].image for one in (engine, larger)]
    assert not np.array_equal(*images)


def test_a_model_of_another_engine_is_refused(tmp_path, fixtures):
    model = WeightsFile(part="model", uri=msgnet_model(tmp_path / "other"), sha256="")
    work = fast_work("feedforward", tmp_path, fixtures)
    with pytest.raises(ConfigError, match=r"is of engine msgnet; use engine\.name=msgnet"):
        load_painter(replace(work, fast=replace(work.fast, weights=(model,))))


def test_weights_that_were_changed_are_refused(tmp_path, fixtures):
    work = fast_work("feedforward", tmp_path, fixtures)
    (model,) = work.fast.weights
    file = tmp_path / "feedforward/model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(WeightsError, match=r"cut short or damaged|belongs to another model"):
        load_painter(work)
    other = replace(work.fast, weights=(replace(model, sha256="0" * 64),))
    with pytest.raises(WeightsError):
        load_painter(replace(work, fast=other))


def test_memory_is_told_for_both_ways(engine_of):
    engine = engine_of("feedforward")
    assert not engine.is_tiled(480, 640)
    assert engine.bytes_for(480, 640) == engine.painter.bytes_for(480, 640)
    assert engine.is_tiled(8000, 8000)
    assert engine.bytes_for(8000, 8000) < engine.painter.bytes_for(8000, 8000) / 2
    assert engine.weights_bytes == sum(weight.nbytes for weight in engine.painter.network.state_dict().values())
