import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from style_networks import picture, spec_of, stripes, style_of, work_of

from vtray.style.work import LossSpec, OptimizeSpec

WORK = work_of(spec_of("vgg19", "net.pth"), style_of(picture(1), name="one"), style_of(stripes(), name="other"))


def test_it_is_described_in_json_without_pixels():
    described = WORK.describe()
    assert len(json.dumps(described)) < 2000
    assert described["styles"][0] == {"name": "one", "sha256": "sha256 of one", "weight": 1.0}
    assert described["features"]["style_layers"] == ("relu1_1", "relu2_1", "relu3_1")
    assert described["optimize"]["start_image"] is None
    started = replace(WORK, optimize=OptimizeSpec(start="image", start_image=style_of(picture(2), name="two")))
    assert started.describe()["optimize"]["start_image"]["name"] == "two"


def test_it_travels_to_workers_and_is_the_same_there():
    there = pickle.loads(pickle.dumps(WORK))
    assert there.describe() == WORK.describe()
    np.testing.assert_array_equal(there.styles[1].image, stripes())


@pytest.mark.parametrize(
    "changes",
    [
        {"styles": WORK.styles[::-1]},
        {"styles": (replace(WORK.styles[0], weight=2.0), WORK.styles[1])},
        {"features": replace(WORK.features, precision="bf16")},
        {"features": replace(WORK.features, weights_sha256="0" * 64)},
        {"loss": LossSpec(strength=0.6)},
        {"optimize": replace(WORK.optimize, steps=7)},
        {"style_scale": 2.0},
        {"seed": 1},
        {"threads": 2},
    ],
)
def test_whatever_decides_the_pixels_changes_the_description(changes):
    assert replace(WORK, **changes).describe() != WORK.describe()
