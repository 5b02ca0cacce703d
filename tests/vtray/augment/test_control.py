import numpy as np
import pytest
from pydantic import ValidationError

from vtray.augment.catalogue import OneOf, SomeOf, Sometimes
from vtray.augment.colour import Brightness
from vtray.augment.degrade import Blur, Noise
from vtray.augment.geometry import Affine, FlipLeftRight, Rotate
from vtray.augment.operator import Operator, Params, Sample
from vtray.seeding import rng_for

IMAGE = rng_for("image").integers(0, 256, (8, 9, 3), dtype=np.uint8)
CHILDREN = (Brightness(), Blur(), Rotate())


def records(operator: Operator, seed: int) -> tuple[Params, ...]:
    return operator(Sample(image=IMAGE), rng_for("control", seed)).applied


def names(operator: Operator, seed: int) -> list[str]:
    return [record["op"] for record in records(operator, seed)]


def test_sometimes_applies_all_or_none_with_its_probability():
    seen = [names(Sometimes(p=0.3, operators=CHILDREN), seed) for seed in range(400)]
    assert {tuple(names) for names in seen} == {(), ("brightness", "blur", "rotate")}
    assert sum(map(bool, seen)) == pytest.approx(120, abs=4 * np.sqrt(400 * 0.3 * 0.7))


def test_one_of_applies_each_equally_often():
    seen = [names(OneOf(operators=CHILDREN), seed) for seed in range(600)]
    assert {len(names) for names in seen} == {1}
    for child in CHILDREN:
        assert seen.count([child.op]) == pytest.approx(200, abs=4 * np.sqrt(600 / 3 * 2 / 3))


def test_one_of_follows_its_weights():
    seen = [names(OneOf(operators=CHILDREN, weights=(0, 3, 1)), seed) for seed in range(400)]
    assert ["brightness"] not in seen
    assert seen.count(["blur"]) == pytest.approx(300, abs=4 * np.sqrt(400 * 3 / 4 / 4))


def test_some_of_applies_that_many_without_repetition_in_the_written_order():
    seen = [names(SomeOf(num=2, operators=CHILDREN), seed) for seed in range(60)]
    assert {tuple(names) for names in seen} == {
        ("brightness", "blur"),
        ("brightness", "rotate"),
        ("blur", "rotate"),
    }


def test_some_of_draws_the_number_from_its_range():
    counts = {len(names(SomeOf(num=(0, 3), operators=CHILDREN), seed)) for seed in range(60)}
    assert counts == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(5))
def test_children_added_at_the_end_do_not_change_what_earlier_ones_draw(seed):
    before = records(Sometimes(p=1, operators=(Brightness(), Noise())), seed)
    after = records(Sometimes(p=1, operators=(Brightness(), Noise(), Rotate())), seed)
    assert after[:2] == before


@pytest.mark.parametrize("seed", range(5))
def test_what_one_child_draws_does_not_change_the_next(seed):
    one_draw, many_draws = (
        records(Sometimes(p=1, operators=(first, Noise())), seed) for first in (Blur(), Affine())
    )
    assert one_draw[1] == many_draws[1]


def test_the_same_child_twice_draws_twice():
    first, second = records(Sometimes(p=1, operators=(Blur(), Blur())), 0)
    assert first["sigma"] != second["sigma"]


def test_control_operators_nest_and_apply_in_order():
    inner = SomeOf(num=1, operators=(FlipLeftRight(p=1),))
    nested = Sometimes(p=1, operators=(OneOf(operators=(inner,)), FlipLeftRight(p=1)))
    result = nested(Sample(image=IMAGE), rng_for("nested"))
    assert result.applied == ({"op": "flip"}, {"op": "flip"})
    np.testing.assert_array_equal(result.image, IMAGE)


def test_a_child_with_p_keeps_its_own_probability():
    seen = [names(OneOf(operators=(FlipLeftRight(),)), seed) for seed in range(400)]
    assert seen.count([]) == pytest.approx(200, abs=40)


def test_bad_arguments_say_what_is_allowed():
    with pytest.raises(ValidationError, match="at least 1 item"):
        Sometimes(operators=())
    with pytest.raises(ValidationError, match="2 weights for 3 operators"):
        OneOf(operators=CHILDREN, weights=(1, 2))
    with pytest.raises(ValidationError, match="all weights are 0"):
        OneOf(operators=CHILDREN, weights=(0, 0, 0))
    with pytest.raises(ValidationError, match="num 4 is above the 3 operators given"):
        SomeOf(operators=CHILDREN, num=(1, 4))
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        Sometimes.model_validate({"operators": [{"op": "flpi"}]})
