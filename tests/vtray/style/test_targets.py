from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from style_networks import VGG_LAYERS, picture, stripes, style_of, tiny_spec

from vtray.style.features import FeatureExtractor
from vtray.style.losses import gram_matrix, style_loss
from vtray.style.pixels import resized, to_pixels
from vtray.style.targets import StyleTargets


@dataclass
class Counted:
    """An extractor that notes the sizes (height, width) it is asked for; its one layer is the pixels."""

    min_side_px: int = 8
    device: str = "cpu"
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, pixels):
        self.sizes.append(tuple(pixels.shape[-2:]))
        return {"pixels": pixels}


def counted_targets(*styles, **options):
    return StyleTargets(extractor=Counted(), styles=styles, layers=("pixels",), **options)


@pytest.fixture
def extractor(tmp_path):
    return FeatureExtractor.load(tiny_spec(tmp_path))


def test_gram_matrices_are_those_of_the_resized_style(extractor):
    style = style_of(picture(1, 60, 80))
    (found,) = StyleTargets(extractor=extractor, styles=[style], layers=VGG_LAYERS).of(64)
    features = extractor(to_pixels([resized(style.image, (48, 64))]))
    assert tuple(found) == VGG_LAYERS
    for layer, gram in found.items():
        assert gram.shape == (1, 6, 6)
        torch.testing.assert_close(gram, gram_matrix(features[layer]))


@pytest.mark.parametrize(
    ("wanted", "scale", "size"),
    [
        (128, 1.0, (64, 128)),
        (100, 1.0, (48, 96)),  # steps of 16 px: a catalog of many sizes needs few sets
        (104, 1.0, (48, 96)),  # 6.5 steps: an even number of them
        (128, 2.0, (128, 256)),
        (128, 0.5, (32, 64)),
        (9, 1.0, (8, 16)),
        (32, 0.1, (8, 16)),
    ],
)
def test_the_size_of_a_style_follows_the_content_by_hand(wanted, scale, size):
    targets = counted_targets(style_of(picture(1, 100, 200)), scale=scale)
    targets.of(wanted)
    assert targets.extractor.sizes == [size]


def test_a_long_style_is_as_wide_as_the_network_needs():
    targets = counted_targets(style_of(picture(1, 400, 20)))
    targets.of(64)
    assert targets.extractor.sizes == [(64, 8)]


def test_each_style_and_size_is_computed_once():
    one, other = style_of(picture(1, 64, 64), name="one"), style_of(picture(2, 64, 64), name="other")
    targets = counted_targets(one, other)
    first = targets.of(64)
    assert targets.of(66)[0]["pixels"] is first[0]["pixels"]
    targets.blend(64)
    assert targets.extractor.sizes == [(64, 64)] * 2
    targets.of(128)
    assert targets.extractor.sizes[2:] == [(128, 128)] * 2


def test_a_blend_is_the_weighted_mean_by_hand():
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    styles = style_of(black, name="black", weight=3), style_of(white, name="white", weight=1)
    blend = counted_targets(*styles).blend(16)
    # white pixels: every product of channels is 1 at all positions, over 3 channels
    np.testing.assert_allclose(blend["pixels"], np.full((1, 3, 3), 1 / 3 / 4))


def test_only_the_proportions_of_weights_count():
    def blend(*weights):
        images = [picture(1, 32, 32), picture(2, 32, 32)]
        numbered = enumerate(zip(images, weights, strict=True))
        styles = [style_of(image, name=str(n), weight=weight) for n, (image, weight) in numbered]
        return counted_targets(*styles).blend(32)["pixels"]

    torch.testing.assert_close(blend(0.5, 1.5), blend(20, 60))
    torch.testing.assert_close(blend(2, 0), blend(1, 0))


def test_a_blend_pulls_like_its_styles_one_by_one(extractor):
    """The gradient towards the mean is the weighted mean of the gradients towards each."""
    styles = style_of(picture(1), name="one", weight=1), style_of(stripes(), name="other", weight=3)
    targets = StyleTargets(extractor=extractor, styles=styles, layers=VGG_LAYERS)
    pixels = to_pixels([picture(3)]).requires_grad_()

    def gradient_towards(grams):
        features = extractor(pixels)
        loss = sum(style_loss(gram_matrix(features[layer]), grams[layer]) for layer in VGG_LAYERS)
        return torch.autograd.grad(loss.sum(), pixels)[0]

    one, other = (gradient_towards(grams) for grams in targets.of(48))
    blended = gradient_towards(targets.blend(48))
    torch.testing.assert_close(blended, one / 4 + other * 3 / 4, rtol=1e-3, atol=1e-4 * blended.abs().max().item())
