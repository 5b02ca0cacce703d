import numpy as np
import pytest
import torch
from style_networks import REAL_NETWORKS, photograph, real_spec

from vtray.style.features import FeatureExtractor
from vtray.style.losses import content_loss, gram_matrix, style_loss, total_variation
from vtray.style.pixels import to_pixels

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def random_features(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_gram(features):
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / features[0].numel()


# the lecture's formulas in NumPy, float64, one image (C, H, W) ---------------------------------------------------


def lecture_content(features, target):
    return ((features - target) ** 2).sum() / features.size


def lecture_gram(features):
    channels = features.reshape(len(features), -1)
    return np.einsum("ip,jp->ij", channels, channels) / features.size


def lecture_style(features, target):
    difference = lecture_gram(features) - lecture_gram(target)
    return (difference**2).sum() / len(features) ** 2


def lecture_tv(pixels):
    """The sum over the image, and the mean over each direction's neighbours, halved."""
    down, right = np.abs(np.diff(pixels, axis=1)), np.abs(np.diff(pixels, axis=2))
    return down.sum() + right.sum(), (down.mean() + right.mean()) / 2


@pytest.fixture(scope="module", params=REAL_NETWORKS)
def real_features(request, fixtures):
    """Features of a photograph and of a painting of its size, layer by layer."""
    extractor = FeatureExtractor.load(real_spec(fixtures, request.param))
    images = [
        photograph(fixtures / name, 96, 128) for name in ("content/chelsea.png", "style_images/starry_night.jpg")
    ]
    return extractor(to_pixels(images))


@pytest.mark.fixtures
def test_losses_of_real_features_are_the_lecture_s(real_features):
    for layer, features in real_features.items():
        photo, painting = features.numpy().astype(np.float64)
        content = content_loss(features[:1], features[1:])
        style = style_loss(gram_matrix(features[:1]), gram_matrix(features[1:]))
        np.testing.assert_allclose(gram_matrix(features)[0], lecture_gram(photo), rtol=1e-5, err_msg=layer)
        assert content.item() == pytest.approx(lecture_content(photo, painting), rel=1e-5), layer
        assert style.item() == pytest.approx(lecture_style(photo, painting), rel=1e-5), layer
    assert len(real_features) >= 3


@pytest.mark.fixtures
def test_total_variation_of_a_photograph_is_the_lecture_s(fixtures):
    pixels = to_pixels([photograph(fixtures / "content" / "coffee.png", 160, 217)])
    summed, mean = lecture_tv(pixels[0].numpy().astype(np.float64))
    assert total_variation(pixels, reduction="sum").item() == pytest.approx(summed, rel=1e-5)
    assert total_variation(pixels, reduction="mean").item() == pytest.approx(mean, rel=1e-5)


# answers by hand -------------------------------------------------------------------------------------------------


def test_content_loss_by_hand():
    features, target = torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 3)
    features[0, 1, 0] = torch.tensor([1.0, 2.0, 3.0])
    assert content_loss(features, target).item() == pytest.approx((1 + 4 + 9) / 6)


def test_gram_and_style_loss_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels at two positions
    gram = gram_matrix(features)
    # [1 2; 3 4] times its transpose is [5 11; 11 25], over 2 channels * 2 positions
    np.testing.assert_allclose(gram[0], np.array([[5, 11], [11, 25]]) / 4)
    assert style_loss(gram, torch.zeros(1, 2, 2)).item() == pytest.approx((25 + 2 * 121 + 625) / 16 / 4)


def test_total_variation_of_one_vertical_edge():
    pixels = torch.zeros(1, 1, 4, 4)
    pixels[..., 2:] = 1  # 4 unit steps among 12 horizontal neighbours, none among the vertical ones
    assert total_variation(pixels, reduction="sum").item() == 4
    assert total_variation(pixels).item() == pytest.approx(4 / 12 / 2)


def test_total_variation_of_one_white_pixel():
    pixels = torch.zeros(1, 3, 3, 3)
    pixels[..., 1, 1] = 1  # in each of 3 channels 2 steps among 6 neighbours down, and as many across
    assert total_variation(pixels, reduction="sum").item() == 12
    assert total_variation(pixels, reduction="mean").item() == pytest.approx((2 / 6 + 2 / 6) / 2)


# properties ------------------------------------------------------------------------------------------------------


def test_gram_is_symmetric_and_has_no_negative_eigenvalue():
    gram = gram_matrix(random_features(2, 5, 3, 4))
    torch.testing.assert_close(gram, gram.transpose(1, 2), rtol=0, atol=0)
    assert torch.linalg.eigvalsh(gram.double()).min() > -1e-7


def test_gram_is_blind_to_position():
    features = random_features(1, 5, 6, 7)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(1))
    shuffled = features.flatten(2)[..., order].view_as(features)
    torch.testing.assert_close(gram_matrix(shuffled), gram_matrix(features))


def test_gram_is_quadratic_in_scale_and_style_loss_in_the_fourth_power():
    features, none = random_features(1, 4, 5, 5), torch.zeros(1, 4, 4)
    torch.testing.assert_close(gram_matrix(3 * features), 9 * gram_matrix(features))
    twice, once = (style_loss(gram_matrix(scale * features), none) for scale in (2, 1))
    torch.testing.assert_close(twice, 16 * once)


def test_the_size_of_the_image_cancels():
    features, target = random_features(1, 4, 5, 6), random_features(1, 4, 5, 6, seed=1)
    tiled, tiled_target = features.tile(1, 1, 2, 3), target.tile(1, 1, 2, 3)
    torch.testing.assert_close(gram_matrix(tiled), gram_matrix(features))
    torch.testing.assert_close(content_loss(tiled, tiled_target), content_loss(features, target))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_total_variation_of_a_flat_image_is_zero_and_mirroring_changes_nothing(reduction):
    assert total_variation(torch.full((2, 3, 6, 5), 0.7), reduction=reduction).tolist() == [0, 0]
    pixels = random_features(2, 3, 6, 5)
    expected = total_variation(pixels, reduction=reduction)
    torch.testing.assert_close(total_variation(pixels.flip(2, 3), reduction=reduction), expected)


def test_losses_of_equal_features_are_zero():
    features = random_features(2, 4, 5, 6)
    assert content_loss(features, features).tolist() == [0, 0]
    assert style_loss(gram_matrix(features), gram_matrix(features)).tolist() == [0, 0]


LOSSES = {
    "content": lambda features: content_loss(features, random_features(1, 4, 6, 7, seed=9)),
    "style": lambda features: style_loss(gram_matrix(features), torch.eye(4)[None]),
    "tv mean": total_variation,
    "tv sum": lambda features: total_variation(features, reduction="sum"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_images_of_a_batch_never_influence_each_other(loss):
    features = random_features(3, 4, 6, 7).requires_grad_()
    together = loss(features)
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.cat([loss(features[i : i + 1]) for i in range(3)]))
    (gradient,) = torch.autograd.grad(together[1], features)
    assert gradient[[0, 2]].abs().max() == 0
    assert gradient[1].abs().max() > 0


# the Gram matrix's own gradient ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (6, 7)])
def test_gradient_of_the_gram_matrix_is_that_of_the_plain_product(layout, size):
    features = random_features(2, 5, *size).to(memory_format=LAYOUTS[layout])
    upstream = random_features(2, 5, 5, seed=2)  # not symmetric: nothing may rely on that
    gradients = []
    for gram in (gram_matrix, plain_gram):
        leaf = features.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((gram(leaf) * upstream).sum(), leaf)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_gradient_of_the_style_loss_by_the_formula():
    features, target = random_features(1, 3, 4, 5).requires_grad_(), random_features(1, 3, 4, 5, seed=3)
    (gradient,) = torch.autograd.grad(style_loss(gram_matrix(features), gram_matrix(target)).sum(), features)
    ours, theirs = (tensor.detach()[0].numpy().astype(np.float64) for tensor in (features, target))
    # d/dF of |F F^T / n - A|^2 / C^2 is 4 (G - A) F / (n C^2); n = C*H*W = 60
    expected = 4 * (lecture_gram(ours) - lecture_gram(theirs)) @ ours.reshape(3, 20) / (60 * 9)
    np.testing.assert_allclose(gradient[0].reshape(3, 20), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bf16_features_are_summed_in_fp32_and_get_their_gradient_in_bf16(layout):
    rounded = random_features(2, 8, 16, 16).bfloat16().to(memory_format=LAYOUTS[layout])
    leaf, exact = rounded.clone().requires_grad_(), rounded.float().requires_grad_()
    gram, expected = gram_matrix(leaf), plain_gram(exact)
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram, expected)
    (gradient,) = torch.autograd.grad(gram.square().sum(), leaf)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), exact)
    assert gradient.dtype == torch.bfloat16
    # products of 8 terms, each rounded to 8 bits: within 1 % of the largest
    assert (gradient.float() - expected_gradient).abs().max() < 0.01 * expected_gradient.abs().max()
