import numpy as np
import pytest
import torch
from style_networks import picture

from vtray.style.pixels import resized, resized_pixels, rounded, to_images, to_pixels


def test_images_come_back_as_they_were_on_all_levels():
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32)
    images = [np.dstack([ramp, ramp[::-1], 255 - ramp]), picture(1, 8, 32)]
    pixels = to_pixels(images)
    assert (pixels.dtype, pixels.shape) == (torch.float32, (2, 3, 8, 32))
    assert pixels.is_contiguous()
    assert pixels[0, 0].flatten().tolist() == pytest.approx(np.linspace(0, 1, 256))
    for image, back in zip(images, to_images(pixels), strict=True):
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, image)


def test_images_that_may_not_be_written_are_read():
    image = picture(2)
    image.flags.writeable = False
    to_pixels([image]).add_(1)
    np.testing.assert_array_equal(image, picture(2))


def test_levels_by_hand():
    """0.4 and 0.6 of a level over and under 100; what is outside 0 to 1 is clipped."""
    values = torch.tensor([-0.2, 100.4 / 255, 100.6 / 255, 1.3]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert to_images(values)[0][0, :, 0].tolist() == [0, 100, 101, 255]
    torch.testing.assert_close(rounded(values)[0, 0, 0] * 255, torch.tensor([0.0, 100.0, 101.0, 255.0]))


def test_rounded_pixels_are_those_of_the_image():
    values = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    assert torch.equal(rounded(values), to_pixels(to_images(values)))


def test_shrinking_takes_means_and_growing_overshoots():
    image = np.array([[0, 40], [80, 120]], np.uint8)
    assert resized(image, (1, 1)).tolist() == [[60]]
    edge = np.tile(np.float32([0, 0, 1, 1]), (4, 1))
    grown = resized(edge, (8, 8))
    assert grown.shape == (8, 8)
    assert grown.max() > 1.01
    assert grown.min() < -0.01


def test_the_same_size_is_the_same_array():
    image = picture(3, 6, 8)
    assert resized(image, (6, 8)) is image
    assert resized(image, (8, 6)).shape == (8, 6, 3)


@pytest.mark.parametrize("size", [(16, 20), (15, 33), (70, 80), (32, 48)])
def test_pixels_are_resized_as_images_are(size):
    images = [picture(4), picture(5)]
    found = resized_pixels(to_pixels(images), size)
    assert found.shape == (2, 3, *size)
    assert found.is_contiguous()
    for image, pixels in zip(images, found, strict=True):
        expected = resized(image.astype(np.float32), size) / 255
        np.testing.assert_allclose(pixels.permute(1, 2, 0), expected, atol=1e-5)
