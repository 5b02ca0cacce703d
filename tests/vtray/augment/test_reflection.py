import math

import numpy as np
import pytest
from pydantic import ValidationError

from vtray.augment.operator import Params
from vtray.augment.reflection import SpecularGlare, SurfaceReflection
from vtray.seeding import rng_for


def random_image(height: int = 90, width: int = 120) -> np.ndarray:
    image = rng_for("image").integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def flat(level: int, height: int = 256, width: int = 256) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


# specular glare --------------------------------------------------------------------------------------------------


def glare(**changes: float) -> Params:
    highlight = {"x": 0.5, "y": 0.5, "strength": 1.0, "length": 0.4, "width": 0.1, "angle": 0.0}
    return {"highlights": [highlight | changes]}


def test_one_highlight_by_hand():
    lit = SpecularGlare().change(flat(100), glare(strength=0.5))
    # middle: 1.3 * 0.5 = 0.65 of the way to white
    assert lit[128, 128, 0] == pytest.approx(100 + 0.65 * 155, abs=1)
    # at half the length the core has half its light, and the halo 2^-(0.2 / 0.3)^2 = 0.735
    end = 0.65 * (0.7 * 0.5 + 0.3 * 0.735)
    assert lit[128, 128 + 51, 0] == pytest.approx(100 + end * 155, abs=3)
    assert lit[0, 0].tolist() == [100] * 3


def test_full_strength_is_white_in_the_middle_and_longer_than_wide():
    white = SpecularGlare().change(flat(100), glare())[..., 0] == 255
    assert white[128, 128]
    assert white.any(axis=0).sum() > 2 * white.any(axis=1).sum()
    turned = SpecularGlare().change(flat(100), glare(angle=90))[..., 0] == 255
    np.testing.assert_array_equal(turned, white.T)


@pytest.mark.parametrize("seed", range(10))
def test_glare_only_brightens(seed):
    image, operator = random_image(), SpecularGlare(count=(1, 5))
    lit = operator.change(image, operator.draw(rng_for("glare", seed), 90, 120))
    assert np.all(lit >= image)
    assert lit.astype(int).sum() > image.astype(int).sum()


def test_no_highlight_and_no_strength_return_the_image():
    image = random_image()
    assert SpecularGlare().change(image, {"highlights": []}) is image
    assert SpecularGlare().change(image, glare(strength=0.0)) is image


def test_highlights_add_up():
    one, two = glare(strength=0.3, x=0.4), glare(strength=0.3, x=0.6)
    both = SpecularGlare().change(flat(0), {"highlights": one["highlights"] + two["highlights"]})
    singles = [SpecularGlare().change(flat(0), single).astype(int) for single in (one, two)]
    np.testing.assert_allclose(both.astype(int), sum(singles), atol=1)


def test_draws_keep_to_the_fields():
    operator = SpecularGlare(count=(2, 4), length=(0.2, 0.3), angle=(90, 90))
    records = [operator.draw(rng_for("draw", number), 10, 10)["highlights"] for number in range(60)]
    assert {len(highlights) for highlights in records} == {2, 3, 4}
    lengths = [highlight["length"] for highlights in records for highlight in highlights]
    assert 0.2 <= min(lengths) < max(lengths) <= 0.3
    assert {highlight["angle"] for highlights in records for highlight in highlights} == {90}


# surface reflection ----------------------------------------------------------------------------------------------


def surface(**changes: float) -> Params:
    params = {"horizon": 0.6, "opacity": 1.0, "fade": 0.0, "blur": 0.0, "warmth": 0.0, "dimming": 0.0}
    return params | changes


def test_a_perfect_mirror_by_hand():
    image = np.repeat(np.arange(0, 100, 10, dtype=np.uint8)[:, None, None], 3, axis=2)
    mirrored = SurfaceReflection().change(image, surface())
    assert mirrored[:, 0, 0].tolist() == [0, 10, 20, 30, 40, 50, 50, 40, 30, 20]


def test_opacity_and_fade_by_hand():
    image = np.vstack([flat(200, 60, 5), flat(100, 40, 5)])
    mirrored = SurfaceReflection().change(image, surface(opacity=0.5, fade=1.0))[:, 0, 0]
    # 40 rows; in row k the share of the mirror image is 0.5 * (1 - (k + 0.5) / 40), after an onset of 1.5 rows
    assert mirrored[60 + 2 :].tolist() == [round(100 + 50 * (1 - (k + 0.5) / 40)) for k in range(2, 40)]
    assert mirrored[60] == pytest.approx(100 + 50 * (1 - 0.5 / 40) / 3, abs=1)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [(90, 120), (31, 7)])
def test_only_what_is_below_the_horizon_changes(seed, size):
    image, operator = random_image(*size), SurfaceReflection()
    params = operator.draw(rng_for("surface", seed), *size)
    reflected = operator.change(image, params)
    horizon = math.ceil(params["horizon"] * size[0])
    np.testing.assert_array_equal(reflected[:horizon], image[:horizon])
    assert np.any(reflected[horizon:] != image[horizon:])


def test_blur_grows_with_the_distance_from_the_horizon():
    mirrored = SurfaceReflection().change(random_image(200, 200), surface(horizon=0.5, blur=0.03))
    details = mirrored[100:].astype(float).std(axis=1).mean(axis=1)
    near, middle, far = (details[part].mean() for part in (slice(0, 10), slice(40, 60), slice(90, 100)))
    assert near > 2 * middle
    assert middle > far


def test_narrow_and_wide_blur_keep_the_mean():
    image = random_image(400, 400)
    for blur in (0.01, 0.05, 0.2):
        mirrored = SurfaceReflection().change(image, surface(horizon=0.5, blur=blur))
        assert mirrored[200:].mean() == pytest.approx(image[:200].mean(), abs=1)


def test_a_warm_dim_surface_swallows_blue_and_light():
    image = flat(188, 100, 10)  # half of the light
    warm = SurfaceReflection().change(image, surface(warmth=0.5))[-1, 0].tolist()
    assert warm[0] == 188 > warm[1] > warm[2] == 137  # a quarter of the light
    assert SurfaceReflection().change(image, surface(dimming=0.5))[-1, 0].tolist() == [137] * 3


def test_no_opacity_and_no_surface_return_the_image():
    image = random_image()
    assert SurfaceReflection().change(image, surface(opacity=0.0)) is image
    assert SurfaceReflection().change(image, surface(horizon=1.0)) is image


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (SpecularGlare, {"count": (3, 1)}, "the lower end 3 is above the upper end 1; swap them"),
        (SpecularGlare, {"count": (0, 21)}, "less than or equal to 20"),
        (SpecularGlare, {"width": (0, 0.1)}, "0 to 0.1 is outside 0.02 to 2; keep both ends inside"),
        (SurfaceReflection, {"horizon": (0.2, 0.8)}, "outside 0.5 to 1"),
        (SurfaceReflection, {"blur": (0, 1)}, "outside 0 to 0.2"),
        (SurfaceReflection, {"opacity": (0, 2)}, "outside 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(kind, fields, message):
    with pytest.raises(ValidationError, match=message):
        kind(**fields)
