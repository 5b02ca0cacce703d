from dataclasses import replace

import numpy as np
import pytest
import torch
from style_networks import (
    VGG_LAYERS,
    photograph,
    picture,
    random_weights,
    real_spec,
    saved,
    spec_of,
    stripes,
    style_of,
    tiny_spec,
    work_of,
)

from vtray.errors import ConfigError, WeightsError
from vtray.style.engines.optimize import OptimizeEngine
from vtray.style.engines.stylized import Request
from vtray.style.losses import gram_matrix
from vtray.style.optimizers import ProjectedLbfgs
from vtray.style.pixels import to_pixels
from vtray.style.work import LossSpec

WHITE, BLACK = np.full((32, 48), 255, np.uint8), np.zeros((32, 48), np.uint8)


@pytest.fixture
def spec(tmp_path):
    return tiny_spec(tmp_path)


@pytest.fixture
def engine_of(spec):
    """Makes an engine on the tiny network."""

    def load(*styles, loss=None, **optimize):
        engine = OptimizeEngine.load(work_of(spec, *styles, loss=loss, **optimize))
        return replace(engine, batch_on_cpu=True)

    return load


def requests_of(*images):
    return [Request(image=image) for image in images]


def stylized_by(engine, image, *masks):
    (made,) = engine.stylize([Request(image=image, masks=masks)])
    assert made.error is None
    return made


def largest_difference(one, other):
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def gram_distance(engine, image, style):
    """How far an image is from a style, over all layers in units of the style's Gram matrices."""
    found, wanted = (engine.extractor(to_pixels([each])) for each in (image, style))
    grams = [(gram_matrix(found[layer]), gram_matrix(wanted[layer])) for layer in VGG_LAYERS]
    return sum((gram - target).norm().item() / target.norm().item() for gram, target in grams)


# what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_result_has_the_style_and_says_what_was_done(engine_of, optimizer):
    engine, image = engine_of(optimizer=optimizer, steps=20), picture(1)
    made = stylized_by(engine, image)
    assert (made.image.shape, made.image.dtype) == (image.shape, np.uint8)
    assert (made.steps, made.size, made.warnings) == (20, (32, 48), ())
    assert made.seconds > 0
    assert made.before.content == 0
    assert made.after.style < 0.5 * made.before.style
    assert made.after.total < 0.5 * made.before.total
    assert gram_distance(engine, made.image, stripes()) < 0.7 * gram_distance(engine, image, stripes())


def test_the_losses_are_those_of_the_8_bit_image_and_of_its_content(engine_of, spec):
    engine, image = engine_of(), picture(1)
    made = stylized_by(engine, image)
    objective = engine._objective(to_pixels([image]), [()])
    for losses, pixels in ((made.before, image), (made.after, made.image)):
        terms = objective.measure(to_pixels([pixels]))
        for name in ("content", "style", "tv", "total"):
            assert getattr(losses, name) == pytest.approx(getattr(terms, name).item(), rel=1e-6), name


@pytest.mark.parametrize("start", ["content", "noise"])
def test_the_same_call_gives_the_same_bytes(engine_of, start):
    images = requests_of(picture(1), picture(2))
    first = engine_of(start=start, batch=2).stylize(images)
    second = engine_of(start=start, batch=2).stylize(images)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_images_of_any_sizes_come_back_in_order(engine_of):
    engine = engine_of(batch=2)
    images = [picture(1), picture(2, 48, 32), picture(3), picture(4, 33, 31), picture(5)]
    together = engine.stylize(requests_of(*images))
    for image, made in zip(images, together, strict=True):
        assert made.image.shape == image.shape
        np.testing.assert_array_equal(made.image, stylized_by(engine, image).image)


def test_nothing_in_nothing_out(engine_of):
    assert engine_of().stylize([]) == []


def test_contents_stay_as_they_were(engine_of):
    image = picture(1)
    image.flags.writeable = False
    stylized_by(engine_of(), image, WHITE)
    np.testing.assert_array_equal(image, picture(1))


def test_an_image_ends_early_when_it_gains_too_little(engine_of):
    made = engine_of(steps=60, tolerance=0.3, batch=2).stylize(requests_of(picture(1), stripes()[:32]))
    assert all(one.steps % 10 == 0 and one.steps < 60 for one in made)


# strength and weights --------------------------------------------------------------------------------------------


def test_strength_zero_is_the_content(engine_of):
    made = stylized_by(engine_of(loss=LossSpec(strength=0.0), start="noise"), picture(1))
    np.testing.assert_array_equal(made.image, picture(1))
    assert (made.steps, made.before, made.after) == (0, None, None)


def test_the_stronger_the_nearer_to_the_style_and_the_farther_from_the_content(engine_of):
    made = [
        stylized_by(engine_of(loss=LossSpec(strength=strength), steps=30), picture(1)).after
        for strength in (0.02, 0.1, 0.5)
    ]
    styles, contents = [losses.style for losses in made], [losses.content for losses in made]
    assert styles == sorted(styles, reverse=True)
    assert contents == sorted(contents)
    assert styles[0] > 4 * styles[-1]


def test_the_lecture_s_weights_are_taken_as_they_are(engine_of):
    content_only = LossSpec(content_weight=1.0, style_weight=0.0, tv_weight=0.0)
    np.testing.assert_array_equal(stylized_by(engine_of(loss=content_only), picture(1)).image, picture(1))
    smooth = LossSpec(content_weight=0.0, style_weight=0.0, tv_weight=1.0)
    made = stylized_by(engine_of(loss=smooth, steps=20), picture(1))
    assert made.after.total == pytest.approx(made.after.tv)
    assert made.after.tv < 0.5 * made.before.tv


# batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["content", "noise"])
def test_a_batch_of_four_is_four_single_images(engine_of, start):
    images = [picture(number, 33, 47) for number in range(4)]
    engine = engine_of(batch=4, steps=12, start=start, tolerance=0.05)
    alone = [stylized_by(engine, image) for image in images]
    for one, other in zip(engine.stylize(requests_of(*images)), alone, strict=True):
        assert largest_difference(one.image, other.image) <= 2
        assert one.steps == other.steps


def test_a_cpu_takes_the_images_of_a_batch_one_by_one(engine_of, short_of_memory):
    engine = replace(engine_of(batch=4), batch_on_cpu=False)
    taken = short_of_memory(images=4)
    engine.stylize(requests_of(picture(1), picture(2)))
    assert [number for number, _ in taken] == [1, 1]


CONTENTS = ("astronaut.png", "chelsea.png", "coffee.png", "hot_dog.jpg")


@pytest.mark.fixtures
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_of_four_photographs_is_four_single_ones(fixtures, precision):
    style = style_of(photograph(fixtures / "style_images" / "starry_night.jpg", 96, 128))
    images = [photograph(fixtures / "content" / name, 96, 100) for name in CONTENTS]
    spec = real_spec(fixtures, precision=precision, layout="nhwc")
    engine = replace(OptimizeEngine.load(work_of(spec, style, steps=3, batch=4)), batch_on_cpu=True)
    for image, made in zip(images, engine.stylize(requests_of(*images)), strict=True):
        assert largest_difference(made.image, stylized_by(engine, image).image) <= 2
        assert made.after.total < 0.8 * made.before.total


# sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(100, 150), (151, 99), (64, 200)])
def test_a_large_image_is_worked_on_smaller_and_keeps_its_size_and_detail(engine_of, height, width):
    engine, image = engine_of(size_px=64), picture(1, height, width)
    made = stylized_by(engine, image)
    assert made.image.shape == image.shape
    assert made.size == engine.working_size(height, width)
    assert max(made.size) == 64
    rows, columns = made.size
    assert made.warnings == (f"worked on at {columns} x {rows}, the change enlarged to {width} x {height}",)
    assert largest_difference(made.image, image) > 10
    # what changed is smooth; the grain of the content, which has no place at the working size, is all there
    grain, kept = (np.diff(each.astype(int), axis=1).std() for each in (image, made.image))
    assert kept > 0.9 * grain


def test_a_large_image_that_must_not_change_comes_back_exactly(engine_of):
    content_only = LossSpec(content_weight=1.0, style_weight=0.0, tv_weight=0.0)
    image = picture(1, 100, 150)
    made = stylized_by(engine_of(size_px=64, loss=content_only), image)
    np.testing.assert_array_equal(made.image, image)


def test_the_pyramid_halves_as_long_as_it_is_worth_it(engine_of):
    engine = engine_of(levels=4)
    assert engine.level_sizes((300, 521)) == [(75, 130), (150, 260), (300, 521)]
    assert engine.level_sizes((127, 521)) == [(127, 521)]
    assert engine_of(levels=1).level_sizes((512, 512)) == [(512, 512)]


@pytest.mark.parametrize("start", ["content", "noise", "image"])
def test_coarse_levels_come_first_and_their_steps_count(engine_of, start):
    given = style_of(picture(9), name="start") if start == "image" else None
    engine = engine_of(levels=2, steps=3, coarse_steps=5, start=start, start_image=given)
    made = stylized_by(engine, picture(1, 128, 131))
    assert made.steps == 8
    assert made.after.total < made.before.total


def test_coarse_steps_help_the_fine_ones(engine_of):
    image = picture(1, 128, 128)
    flat = stylized_by(engine_of(steps=3, levels=1), image)
    pyramid = stylized_by(engine_of(steps=3, levels=2, coarse_steps=20), image)
    assert pyramid.after.total < flat.after.total


def test_an_image_too_small_is_an_error_and_the_others_are_made(tmp_path):
    weights = saved(random_weights("vgg19"), tmp_path / "deep.pth")
    engine = OptimizeEngine.load(work_of(spec_of("vgg19", weights, ("relu1_1", "relu4_1")), batch=3))
    small, large = engine.stylize(requests_of(picture(1, 15, 40), picture(2)))
    assert small.image is None
    assert (small.error.stage, small.error.reason) == ("stylize", "too_small")
    assert str(small.error).startswith("40 x 15: vgg19 to relu4_1 needs 16 px a side; ")
    assert large.error is None
    assert stylized_by(engine, picture(1, 16, 40)).image.shape == (16, 40, 3)


@pytest.mark.parametrize("size", [(256, 256), (512, 384)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", ["vgg19", "squeezenet1_1"])
def test_the_memory_told_is_more_than_what_gradient_and_optimizer_keep(tmp_path, network, precision, size):
    weights = saved(random_weights(network, width=16), tmp_path / "net.pth")
    layers = VGG_LAYERS if network == "vgg19" else ("relu1", "fire2", "fire5")
    engine = OptimizeEngine.load(work_of(spec_of(network, weights, layers, precision=precision)))
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    objective = engine._objective(torch.rand(1, 3, *size), [()])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = objective(torch.rand(1, 3, *size, requires_grad=True))
    assert terms.total.requires_grad
    remembered = 2 * ProjectedLbfgs.memory * 12 * size[0] * size[1]  # moves and changes of three fp32 planes
    assert engine.bytes_for(*size) > sum(kept.values()) + remembered


def test_memory_grows_with_the_image_up_to_the_working_size(engine_of):
    engine = engine_of(size_px=512)
    assert engine.bytes_for(512, 512) == pytest.approx(4 * engine.bytes_for(256, 256), rel=0.01)
    full = 12 * (2048**2 - 512**2)  # the image itself, as floats
    assert engine.bytes_for(2048, 2048) - engine.bytes_for(512, 512) == full


# starts ----------------------------------------------------------------------------------------------------------


def test_noise_depends_on_the_seed_and_the_image_and_not_on_the_batch(spec):
    def noise(seed, *images):
        engine = OptimizeEngine.load(replace(work_of(spec, start="noise", steps=0, batch=3), seed=seed))
        return [made.image for made in engine.stylize(requests_of(*images))]

    first, second = noise(0, picture(1), picture(2))
    np.testing.assert_array_equal(noise(0, picture(3), picture(1))[1], first)
    assert largest_difference(first, second) > 200
    assert largest_difference(noise(1, picture(1))[0], first) > 200
    # uniform on 0 to 255: 127.5 and 255 / sqrt(12) = 73.6; the mean of 4608 numbers is off by 1
    assert first.mean() == pytest.approx(127.5, abs=4)
    assert first.std() == pytest.approx(73.6, abs=3)


def test_from_noise_the_content_comes_back(engine_of):
    content = LossSpec(content_weight=1.0, style_weight=0.0, tv_weight=0.01)
    made = stylized_by(engine_of(start="noise", steps=60, loss=content), picture(1))
    assert made.after.content < 0.1 * made.before.content


def test_a_given_start_is_resized_to_the_content(engine_of):
    given = style_of(picture(7, 64, 96), name="start")
    made = stylized_by(engine_of(start="image", start_image=given, steps=0), picture(1))
    expected = given.image.reshape(32, 2, 48, 2, 3).mean((1, 3))
    np.testing.assert_allclose(made.image, expected, atol=1)


# several styles --------------------------------------------------------------------------------------------------


def test_a_blend_lies_between_its_styles(engine_of):
    down, across = stripes(), stripes(turn=1)

    def made_of(*weights):
        styles = [
            style_of(image, name=str(n), weight=w)
            for n, (image, w) in enumerate(zip((down, across), weights, strict=True))
        ]
        engine = engine_of(*styles, loss=LossSpec(strength=0.9), steps=20)
        image = stylized_by(engine, picture(1, 48, 48)).image
        return gram_distance(engine, image, down) - gram_distance(engine, image, across)

    preference = [made_of(1, 0), made_of(3, 1), made_of(1, 3), made_of(0, 1)]
    assert preference == sorted(preference)
    assert preference[0] < 0 < preference[-1]


# masks -----------------------------------------------------------------------------------------------------------


def half_mask(height=32, width=48, *, left=True):
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return mask if left else 255 - mask


def test_outside_of_the_mask_the_content_stays_exactly(engine_of):
    image, mask = picture(1), half_mask()
    made = stylized_by(engine_of(steps=20), image, mask).image
    np.testing.assert_array_equal(made[mask == 0], image[mask == 0])
    assert largest_difference(made[mask == 255], image[mask == 255]) > 20


def test_a_black_mask_keeps_everything(engine_of):
    made = stylized_by(engine_of(steps=20), picture(1), BLACK)
    np.testing.assert_array_equal(made.image, picture(1))
    assert made.after.style == 0


def test_a_white_mask_is_no_mask(engine_of):
    engine = engine_of(steps=5)
    masked, plain = stylized_by(engine, picture(1), WHITE), stylized_by(engine, picture(1))
    assert largest_difference(masked.image, plain.image) <= 2
    assert masked.after.style == pytest.approx(plain.after.style, rel=1e-3)


def test_a_grey_mask_is_between_both(engine_of):
    engine, image = engine_of(steps=20), picture(1)
    grey = stylized_by(engine, image, np.full((32, 48), 128, np.uint8)).image.astype(int)
    full = stylized_by(engine, image).image.astype(int)
    change = np.abs(grey - image).mean() / np.abs(full - image).mean()
    assert 0.3 < change < 0.7


def test_each_half_gets_its_own_style(spec):
    """The styles are as large as a half; each half is nearer to its own than where both are exchanged."""
    down, across = style_of(stripes(), name="down"), style_of(stripes(turn=1), name="across")
    work = work_of(spec, down, across, loss=LossSpec(strength=0.9), steps=20)
    engine = OptimizeEngine.load(replace(work, style_scale=0.5))
    image, masks = picture(1, 48, 96), (half_mask(48, 96), half_mask(48, 96, left=False))
    made, exchanged = (stylized_by(engine, image, *order).image for order in (masks, masks[::-1]))
    for columns, own, other in ((slice(0, 48), down, across), (slice(48, 96), across, down)):
        distance = gram_distance(engine, made[:, columns], own.image)
        assert distance < 0.8 * gram_distance(engine, exchanged[:, columns], own.image)
        assert distance < 0.8 * gram_distance(engine, made[:, columns], other.image)


def test_masks_of_images_of_several_sizes_and_one_working_size(engine_of):
    """All three are worked on at 48 x 64."""
    engine = engine_of(size_px=64, batch=3)
    sizes = [(60, 80), (75, 100), (48, 64)]
    assert {engine.working_size(*size) for size in sizes} == {(48, 64)}
    sides = (True, False, True)  # every image has its own mask
    masks = [half_mask(*size, left=left) for size, left in zip(sizes, sides, strict=True)]
    requests = [Request(image=picture(1, *size), masks=(mask,)) for size, mask in zip(sizes, masks, strict=True)]
    for request, made in zip(requests, engine.stylize(requests), strict=True):
        outside = request.masks[0] == 0
        np.testing.assert_array_equal(made.image[outside], request.image[outside])
        np.testing.assert_array_equal(made.image, stylized_by(engine, request.image, *request.masks).image)


# what goes wrong -------------------------------------------------------------------------------------------------


def broken(engine, layer="conv2_1"):
    """The engine with a weight that is not a number."""
    weight, bias = engine.extractor.parameters[layer]
    parameters = dict(engine.extractor.parameters) | {layer: (weight * torch.nan, bias)}
    extractor = replace(engine.extractor, parameters=parameters)
    return replace(engine, extractor=extractor, targets=replace(engine.targets, extractor=extractor))


def test_numbers_that_are_none_are_an_error_and_not_an_image(engine_of):
    (made,) = broken(engine_of()).stylize(requests_of(picture(1)))
    assert made.image is None
    assert (made.error.stage, made.error.reason) == ("stylize", "not_finite")
    assert "nan" in str(made.error)
    assert "use features.precision=fp32 or other weights" in str(made.error)


def test_one_image_that_goes_wrong_leaves_its_batch_alone(engine_of, monkeypatch):
    engine, images = engine_of(batch=3), [picture(1), picture(2), picture(3)]
    expected = engine.stylize(requests_of(*images))

    def poisoned(batch, content):
        start = content.clone()
        start[1] = torch.nan
        return start

    monkeypatch.setattr(OptimizeEngine, "_start", lambda self, *arguments: poisoned(*arguments))
    made = engine.stylize(requests_of(*images))
    assert made[1].error.reason == "not_finite"
    for number in (0, 2):
        np.testing.assert_array_equal(made[number].image, expected[number].image)


def test_layers_and_weights_are_checked_when_it_is_loaded(spec, tmp_path):
    with pytest.raises(ConfigError, match="has no layer 'relu9_9'"):
        OptimizeEngine.load(work_of(replace(spec, style_layers=("relu9_9",))))
    with pytest.raises(WeightsError, match="no such weights file"):
        OptimizeEngine.load(work_of(replace(spec, weights_uri=str(tmp_path / "none.pth"))))


@pytest.fixture
def short_of_memory(monkeypatch):
    """Batches of more than `images` images, or more than `pixels` pixels, do not fit."""
    real, sizes = OptimizeEngine._stylize_batch, []

    def limit(*, images=99, pixels=10**9, error=None):
        def stylize_batch(self, batch, size):
            if len(batch) > images or size[0] * size[1] > pixels:
                raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            sizes.append((len(batch), size))
            return real(self, batch, size)

        monkeypatch.setattr(OptimizeEngine, "_stylize_batch", stylize_batch)
        return sizes

    return limit


ERRORS = {
    "GPU": None,
    "CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    "NumPy": MemoryError("Unable to allocate 3.00 GiB"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_batch_that_does_not_fit_is_halved_and_says_so(engine_of, short_of_memory, error):
    engine, images = engine_of(batch=5), [picture(number) for number in range(5)]
    expected = engine.stylize(requests_of(*images))
    sizes = short_of_memory(images=2, error=error)
    made = engine.stylize(requests_of(*images))
    assert [number for number, _ in sizes] == [2, 1, 2]
    for one, other in zip(made, expected, strict=True):
        assert largest_difference(one.image, other.image) <= 2
        assert other.warnings == ()
        assert one.warnings[-1] == "batch of 5 did not fit into memory, made smaller"


def test_a_single_image_that_does_not_fit_is_worked_on_at_half_its_size(engine_of, short_of_memory):
    sizes, image = short_of_memory(pixels=1000), picture(1, 64, 80)
    made = stylized_by(engine_of(), image)
    assert sizes == [(1, (16, 20))]
    assert made.size == (16, 20)
    assert made.image.shape == image.shape
    assert made.warnings == (
        "worked on at 20 x 16, the change enlarged to 80 x 64",
        "40 x 32 did not fit into memory, half as large",
        "80 x 64 did not fit into memory, half as large",
    )


def test_an_image_that_fits_at_no_size_becomes_a_quarantine_row(engine_of, short_of_memory):
    short_of_memory(pixels=10)
    (made,) = engine_of().stylize([Request(image=picture(1))])
    assert made.image is None
    assert made.error.reason == "out_of_memory"
    assert str(made.error) == "12 x 8 does not fit into memory; use fewer workers or a smaller size_px"


def test_other_errors_are_not_taken_for_a_lack_of_memory(engine_of, monkeypatch):
    def fail(self, batch, size):
        raise RuntimeError("expected scalar type Float but found BFloat16")

    monkeypatch.setattr(OptimizeEngine, "_stylize_batch", fail)
    with pytest.raises(RuntimeError, match="expected scalar type Float"):
        engine_of().stylize(requests_of(picture(1)))
