import numpy as np
import pytest
from PIL import Image as Pillow

from vtray.seeding import rng_for
from vtray.style.colour import keep_colour, match_histogram, merge_luma

PAIRS = [
    ("starry_night.jpg", "parrot.jpg"),
    ("shipwreck_turner.jpg", "astronaut.png"),
    ("great_wave_hokusai.png", "coffee.png"),
]


def image(name, height=60, width=80):
    return rng_for(name).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixel(*levels):
    return np.array([[levels]], np.uint8)


def photograph(path, size=(192, 160)):
    with Pillow.open(path) as opened:
        return np.asarray(opened.convert("RGB").resize(size))


def half_painted(fixtures, style, content):
    """A painting mixed into a photograph half and half, and the photograph."""
    photo = photograph(fixtures / "content" / content)
    mixed = photograph(fixtures / "style_images" / style).astype(int) + photo
    return (mixed // 2).astype(np.uint8), photo


def differences(one, other):
    return np.abs(one.astype(int) - other)


def covariance(pixels):
    return np.cov(pixels.reshape(-1, 3).T)


class TestStyle:
    def test_is_the_stylized_image(self):
        stylized = image("stylized")
        assert keep_colour(stylized, image("content"), "style") is stylized


class TestLuma:
    @pytest.mark.fixtures
    @pytest.mark.parametrize(("style", "content"), PAIRS)
    def test_equals_the_merge_in_pillow(self, fixtures, style, content):
        stylized, photo = half_painted(fixtures, style, content)
        brightness = Pillow.fromarray(stylized).convert("YCbCr").split()[0]
        colours = Pillow.fromarray(photo).convert("YCbCr").split()[1:]
        merged = np.asarray(Pillow.merge("YCbCr", (brightness, *colours)).convert("RGB"))
        assert differences(keep_colour(stylized, photo, "luma"), merged).max() <= 1

    def test_is_near_the_formula_without_rounding(self):
        """A number added to R, G and B changes Y by it, and neither Cb nor Cr; Pillow rounds down three times."""
        stylized, content = image("stylized"), image("content")
        weights = np.array([0.299, 0.587, 0.114])  # BT.601
        exact = (content + ((stylized @ weights) - (content @ weights))[..., None]).clip(0, 255)
        assert differences(keep_colour(stylized, content, "luma"), np.rint(exact).astype(int)).max() <= 4

    def test_by_hand(self):
        assert keep_colour(pixel(90, 90, 90), pixel(200, 200, 200), "luma").tolist() == [[[90, 90, 90]]]
        # Y of (200, 100, 50) is 124.2: 24.2 darker than the stylized 100
        kept = keep_colour(pixel(100, 100, 100), pixel(200, 100, 50), "luma")
        assert differences(kept, np.array([176, 76, 26])).max() <= 2


class TestHistogram:
    def test_of_the_content_itself_changes_nothing(self):
        content = image("content")
        np.testing.assert_array_equal(keep_colour(content, content, "histogram"), content)

    def test_undoes_a_change_of_levels(self):
        content = image("content")
        darker = (content // 2 + 20).astype(np.uint8)
        restored = keep_colour(darker, content, "histogram")
        assert differences(restored, content).max() <= 2  # two levels became one

    def test_places_come_from_the_stylized_image(self):
        stylized = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 3, axis=2)
        content = stylized[:, ::-1] * 4
        np.testing.assert_array_equal(keep_colour(stylized, content, "histogram"), stylized * 4)

    @pytest.mark.fixtures
    @pytest.mark.parametrize(("style", "content"), PAIRS)
    def test_has_the_colours_of_the_content(self, fixtures, style, content):
        stylized, photo = half_painted(fixtures, style, content)
        kept = keep_colour(stylized, photo, "histogram")
        for channel in range(3):
            ranks = np.sort(kept[..., channel], axis=None), np.sort(photo[..., channel], axis=None)
            assert differences(*ranks).mean() < 2
        distance = np.abs(covariance(kept) - covariance(photo)).max()
        assert distance < 0.15 * np.abs(covariance(photo)).max()
        assert distance < 0.5 * np.abs(covariance(stylized) - covariance(photo)).max()

    def test_the_linear_map_gives_mean_and_covariance(self):
        """Gaussian colours well inside 0 to 255, where nothing is cut and the histograms already fit."""
        rng = rng_for("colours")
        shape = (100, 100, 3)
        stylized = rng.multivariate_normal(
            [120, 130, 110], [[300, 100, 0], [100, 200, 50], [0, 50, 250]], shape[:2]
        )
        content = rng.multivariate_normal([140, 90, 120], [[200, -80, 30], [-80, 250, 0], [30, 0, 150]], shape[:2])
        stylized, content = (np.rint(colours).astype(np.uint8) for colours in (stylized, content))
        kept = match_histogram(stylized, content)
        assert np.abs(kept.mean((0, 1)) - content.mean((0, 1))).max() < 0.5
        assert np.abs(covariance(kept) - covariance(content)).max() < 6

    def test_an_image_of_one_colour(self):
        flat = np.full((8, 8, 3), 77, np.uint8)
        content = image("content", 8, 8)
        kept = keep_colour(flat, content, "histogram")
        assert len(np.unique(kept.reshape(-1, 3), axis=0)) == 1
        middle = np.sort(content.reshape(-1, 3), axis=0)[31]  # the 32nd of 64: half of the pixels are not above it
        assert kept[0, 0].tolist() == middle.tolist()
        np.testing.assert_array_equal(keep_colour(content, flat, "histogram"), flat)

    def test_grey_content_gives_a_nearly_grey_image(self):
        grey = np.repeat(image("content")[..., :1], 3, axis=2)
        kept = keep_colour(image("stylized"), grey, "histogram").astype(int)
        assert np.ptp(kept, axis=2).mean() < 5

    def test_tall_images_are_summed_in_parts(self):
        content = image("content", 600, 4)
        np.testing.assert_array_equal(keep_colour(content, content, "histogram"), content)


@pytest.mark.parametrize("function", [merge_luma, match_histogram])
def test_inputs_stay_and_views_are_taken(function):
    stylized, content = image("stylized")[:, ::-1], image("content")[::-1]
    before = stylized.copy(), content.copy()
    kept = function(stylized, content)
    assert (kept.dtype, kept.shape) == (np.uint8, stylized.shape)
    assert kept.flags.writeable
    np.testing.assert_array_equal(stylized, before[0])
    np.testing.assert_array_equal(content, before[1])
    np.testing.assert_array_equal(kept, function(*before))


def test_unknown_mode():
    with pytest.raises(ValueError, match="colour 'sepia': allowed are style, luma, histogram"):
        keep_colour(image("a"), image("b"), "sepia")


@pytest.mark.parametrize("mode", ["style", "luma", "histogram"])
def test_two_sizes(mode):
    with pytest.raises(ValueError, match=r"stylized \(60, 80, 3\) and content \(60, 90, 3\) differ"):
        keep_colour(image("a"), image("b", 60, 90), mode)
