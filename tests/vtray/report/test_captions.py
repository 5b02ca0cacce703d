import numpy as np
import pytest

from vtray.augment.colour import ColourJitter
from vtray.augment.degrade import Noise
from vtray.augment.framing import RandomResizedCrop
from vtray.augment.operator import Sample
from vtray.report.captions import describe, describe_all, describe_values
from vtray.seeding import rng_for

JITTER = {
    "op": "colour_jitter",
    "order": ["hue", "contrast", "brightness", "saturation"],
    "brightness": 1.2345,
    "contrast": 0.871,
    "saturation": 1.0,
    "hue": -0.0312,
}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"op": "flip"}, "flip"),
        ({"op": "colour_temperature", "kelvin": 3187.22}, "colour_temperature 3190 K"),
        (
            {"op": "random_resized_crop", "box": [12, 5, 200, 190], "size": [224, 224]},
            "random_resized_crop 188x185 at 12,5 to 224x224",
        ),
        (
            {"op": "random_resized_crop", "box": [12, 5, 200, 190], "width": 96, "height": 64},
            "random_resized_crop 188x185 at 12,5 to 96x64",
        ),
        ({"op": "erasing", "box": [0, 0, 0, 0]}, "erasing nowhere"),
        ({"op": "rotate", "angle": -12.345}, "rotate -12.3°"),
        ({"op": "brightness", "factor": 1.1179}, "brightness x1.12"),
        ({"op": "hue", "shift": 0.03}, "hue +0.03"),
        (JITTER, "colour_jitter hue -0.031 brightness x1.23 contrast x0.87"),
        (
            {"op": "affine", "angle": 5.0, "translate_px": [3.14, -4.0], "scale": 1.1},
            "affine +5° x1.1 by +3.14,-4 px",
        ),
        ({"op": "exposure", "stops": -1.52, "noise": 0.4, "noise_seed": 7}, "exposure -1.52 stops noise 0.4"),
        ({"op": "glare", "highlights": [{"x": 0.1}, {"x": 0.2}]}, "glare highlights 2"),
    ],
)
def test_known_parameters_have_their_wording(record, words):
    assert describe(record) == words


def test_unknown_parameters_are_told_in_their_order():
    record = {
        "op": "haze",
        "depth_px": 12.34,
        "thick": True,
        "thin": False,
        "kind": "fog",
        "seed": 1,
        "extra": {"a": 1},
    }
    assert describe(record) == "haze depth 12.3 px thick kind fog"
    assert describe({"op": "haze", "curve": list(range(50)), "gains": [1.0, 0.5, 0.25]}) == "haze gains 1,0.5,0.25"


@pytest.mark.parametrize(
    "key", ["box", "size", "factor", "shift", "scale", "kelvin", "translate_px", "width", "hue"]
)
@pytest.mark.parametrize("value", [None, True, "x", 1, 0.5, [], [1], [1, 2], [1, 2, 3, 4], [None], [{}], {"a": 1}])
def test_no_value_of_a_parameter_stops_a_description(key, value):
    assert describe({"op": "haze", key: value}).split()[0] == "haze"


def test_values_stand_without_the_name_where_it_is_known():
    assert describe_values(JITTER, max_values=2) == "hue -0.031 brightness x1.23"
    assert describe_values({"op": "flip"}) == ""


def test_a_chain_tells_one_value_of_each_operator():
    assert describe_all([{"op": "flip"}, JITTER]) == "flip, colour_jitter hue -0.031"
    crop = {"op": "random_resized_crop", "box": [12, 5, 200, 190], "width": 96, "height": 64}
    assert describe_all([crop, {"op": "flip"}]) == "random_resized_crop 188x185, flip"
    assert describe_all([JITTER]) == describe(JITTER)
    assert describe_all([]) == "unchanged"


def test_records_of_real_operators_can_be_described():
    sample = Sample(image=np.zeros((60, 80, 3), np.uint8))
    for operator in (RandomResizedCrop(size_px=32), ColourJitter(), Noise()):
        sample = operator(sample, rng_for(3, operator.op))
    crop, jitter, noise = sample.applied
    assert describe(crop).endswith("to 32x32")
    assert describe(jitter).startswith("colour_jitter hue ")
    assert describe(noise).startswith("noise std ")
    assert str(noise["noise_seed"]) not in describe_all(sample.applied)
