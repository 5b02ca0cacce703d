import numpy as np
import pytest
import torch
from style_networks import VGG_LAYERS, picture, real_spec, stripes, style_of, tiny_spec

from vtray.style.features import FeatureExtractor
from vtray.style.losses import content_loss, gram_matrix, style_loss, total_variation
from vtray.style.objective import STYLE_GAIN, TV_UNIT_WEIGHT, Objective, Region
from vtray.style.pixels import to_pixels
from vtray.style.targets import StyleTargets
from vtray.style.work import LossSpec

LECTURE = LossSpec(content_weight=2.0, style_weight=30.0, tv_weight=0.5)
CONTENTS = [picture(number) for number in (1, 2, 3)]


@pytest.fixture
def spec(tmp_path):
    return tiny_spec(tmp_path, content_layers=("relu2_1", "relu3_1"))


@pytest.fixture
def extractor(spec):
    return FeatureExtractor.load(spec)


@pytest.fixture
def grams(extractor):
    targets = StyleTargets(extractor=extractor, styles=[style_of(stripes())], layers=VGG_LAYERS)
    return targets.blend(48)


@pytest.fixture
def objective_of(spec, extractor, grams):
    """Makes the objective of some contents."""

    def make(contents=CONTENTS, *, loss=LECTURE, regions=None):
        regions = regions or (Region(grams=grams),)
        return Objective.of(to_pixels(contents), regions, extractor=extractor, features=spec, loss=loss)

    return make


def mirrored():
    return to_pixels([image[:, ::-1] for image in CONTENTS])


# what is added up ------------------------------------------------------------------------------------------------


def test_with_the_lecture_s_weights_the_layers_are_added_up(objective_of, extractor, grams):
    terms = objective_of()(mirrored())
    found, wanted = extractor(mirrored()), extractor(to_pixels(CONTENTS))
    content = sum(content_loss(found[layer], wanted[layer]) for layer in ("relu2_1", "relu3_1"))
    style = sum(style_loss(gram_matrix(found[layer]), grams[layer]) for layer in VGG_LAYERS)
    torch.testing.assert_close(terms.content, content)
    torch.testing.assert_close(terms.style, style)
    torch.testing.assert_close(terms.tv, total_variation(mirrored()))
    torch.testing.assert_close(terms.total, 2 * content + 30 * style + 0.5 * terms.tv)


def test_the_reduction_of_total_variation_is_the_one_named(objective_of):
    loss = LossSpec(content_weight=0, style_weight=0, tv_weight=1, tv_reduction="sum")
    total = objective_of(loss=loss)(mirrored()).total
    torch.testing.assert_close(total, total_variation(mirrored(), reduction="sum"))


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.8])
def test_calibrated_by_strength_as_the_docstring_says(objective_of, extractor, grams, strength):
    pixels = mirrored()
    total = objective_of(loss=LossSpec(strength=strength))(pixels).total
    found, wanted = extractor(pixels), extractor(to_pixels(CONTENTS))
    for number in range(3):
        content, style = [], []
        for layer in ("relu2_1", "relu3_1"):
            features = wanted[layer][number].flatten(1).numpy().astype(np.float64)
            unit = features.var(1).mean() + 0.001 * (features**2).mean()
            content.append(content_loss(found[layer], wanted[layer])[number].item() / unit)
        for layer in VGG_LAYERS:
            now, before = (style_loss(gram_matrix(each[layer]), grams[layer])[number] for each in (found, wanted))
            style.append((now / (before + 0.001 * grams[layer].square().mean())).item())
        kept, given = (1 - strength) ** 2, strength**2
        expected = kept * np.mean(content) + STYLE_GAIN * given * np.mean(style)
        expected += TV_UNIT_WEIGHT * (kept + given) * total_variation(pixels)[number].item()
        assert total[number].item() == pytest.approx(expected, rel=1e-4)


def test_at_the_content_image_the_calibrated_style_is_one_unit(objective_of):
    content = to_pixels(CONTENTS)
    terms = objective_of(loss=LossSpec(strength=1.0))(content)
    assert terms.content.tolist() == [0, 0, 0]
    expected = STYLE_GAIN + TV_UNIT_WEIGHT * terms.tv
    torch.testing.assert_close(terms.total, expected, rtol=0.02, atol=0)


def test_strength_zero_wants_content_and_smoothness_only(objective_of):
    terms = objective_of(loss=LossSpec(strength=0.0))(to_pixels(CONTENTS))
    torch.testing.assert_close(terms.total, TV_UNIT_WEIGHT * terms.tv)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_images_without_texture_and_the_style_itself_have_finite_losses(objective_of, level):
    flat = np.full((32, 48, 3), level, np.uint8)
    contents = [flat, stripes()[:32], picture(1)]
    objective = objective_of(contents, loss=LossSpec())
    loss, gradient = objective.evaluate(to_pixels([picture(5)] * 3))
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    assert objective.measure(to_pixels(contents)).total.isfinite().all()


# gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [LECTURE, LossSpec()], ids=["lecture", "strength"])
def test_the_gradient_points_up_as_steep_as_it_says(objective_of, loss):
    """Compared with the difference of two losses beside it, along the gradient."""
    objective = objective_of(loss=loss)
    total, gradient = objective.evaluate(mirrored())
    assert total.shape == (3,)
    assert (gradient.shape, gradient.dtype) == ((3, 3, 32, 48), torch.float32)
    assert gradient.is_contiguous()
    step = gradient * (0.002 / gradient.abs().amax((1, 2, 3), keepdim=True))
    rise = objective.measure(mirrored() + step).total - objective.measure(mirrored() - step).total
    torch.testing.assert_close(rise, 2 * (gradient * step).sum((1, 2, 3)), rtol=0.05, atol=0)


def test_evaluating_leaves_the_pixels_alone(objective_of):
    pixels = mirrored()
    total, _ = objective_of().evaluate(pixels)
    assert torch.equal(pixels, mirrored())
    assert not total.requires_grad


@pytest.mark.parametrize("loss", [LECTURE, LossSpec()], ids=["lecture", "strength"])
@pytest.mark.parametrize("numerics", [("fp32", "nchw"), ("fp32", "nhwc"), ("bf16", "nhwc")])
def test_images_are_as_if_they_were_alone_to_the_last_digit(spec, extractor, grams, loss, numerics):
    precision, layout = numerics
    extractor = extractor.to("cpu", precision=precision, layout=layout)

    def evaluated(contents, pixels):
        regions = (Region(grams=grams),)
        objective = Objective.of(to_pixels(contents), regions, extractor=extractor, features=spec, loss=loss)
        return objective.evaluate(pixels)

    total, gradient = evaluated(CONTENTS, mirrored())
    for number in range(3):
        alone, its_gradient = evaluated(CONTENTS[number : number + 1], mirrored()[number : number + 1])
        assert torch.equal(alone[0], total[number])
        assert torch.equal(its_gradient[0], gradient[number])


@pytest.mark.fixtures
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("side", [40, 64, 100])
def test_images_are_as_if_they_were_alone_in_a_real_network(fixtures, layout, side):
    """Up to 82 px torch would take another convolution for one image than for several."""
    spec = real_spec(fixtures, layout=layout)
    extractor = FeatureExtractor.load(spec)
    targets = StyleTargets(extractor=extractor, styles=[style_of(stripes())], layers=VGG_LAYERS)
    regions = (Region(grams=targets.blend(side)),)
    pixels = to_pixels([picture(number, side, side) for number in range(3)])

    def evaluated(content):
        objective = Objective.of(content, regions, extractor=extractor, features=spec, loss=LossSpec())
        return objective.evaluate(content.flip(3))

    together, alone = evaluated(pixels), evaluated(pixels[1:2])
    assert torch.equal(together[0][1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1])


@pytest.mark.parametrize("loss", [LECTURE, LossSpec()], ids=["lecture", "strength"])
def test_selected_images_keep_their_losses(objective_of, loss, grams):
    where = torch.rand(3, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    objective = objective_of(loss=loss, regions=(Region(grams=grams, where=where), Region(grams=grams)))
    total, gradient = objective.evaluate(mirrored())
    kept = torch.tensor([True, False, True])
    again, its_gradient = objective.select(kept).evaluate(mirrored()[kept])
    torch.testing.assert_close(again, total[kept])
    torch.testing.assert_close(its_gradient, gradient[kept])


# regions ---------------------------------------------------------------------------------------------------------


def random_features(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_region_everywhere_is_no_region(grams):
    features = random_features(2, 6, 8, 10)
    everywhere = Region(grams=grams, where=torch.ones(2, 1, 32, 48))
    torch.testing.assert_close(everywhere.gram(features), gram_matrix(features))
    torch.testing.assert_close(everywhere.coverage(), torch.ones(2))


def test_the_gram_matrix_of_a_region_is_that_of_its_part_of_the_image(grams):
    """The right quarter of an image of four times the features' size."""
    features, where = random_features(1, 6, 8, 12), torch.zeros(1, 1, 32, 48)
    where[..., 36:] = 1
    region = Region(grams=grams, where=where)
    torch.testing.assert_close(region.gram(features), gram_matrix(features[..., 9:]))
    assert region.coverage().tolist() == [0.25]


def test_two_halves_of_one_style_are_the_mean_of_what_each_half_is_by_hand(objective_of, extractor, grams):
    left = torch.zeros(3, 1, 32, 48)
    left[..., :24] = 1
    halves = Region(grams=grams, where=left), Region(grams=grams, where=1 - left)
    terms = objective_of(regions=halves)(mirrored())
    found = extractor(mirrored())
    expected = torch.zeros(3)
    for layer in VGG_LAYERS:
        for half in found[layer].chunk(2, dim=3):
            expected += style_loss(gram_matrix(half), grams[layer]) / 2
    torch.testing.assert_close(terms.style, expected)


def test_a_region_that_an_image_has_not_asks_for_nothing(objective_of, grams):
    where = torch.ones(3, 1, 32, 48)
    where[1] = 0
    objective = objective_of(loss=LossSpec(), regions=(Region(grams=grams, where=where),))
    terms, (loss, gradient) = objective(mirrored()), objective.evaluate(mirrored())
    assert terms.style[1] == 0
    assert terms.style[[0, 2]].min() > 0
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
