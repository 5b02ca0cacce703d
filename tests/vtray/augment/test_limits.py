from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from vtray.augment.limits import AngleRange, UnitRange, within
from vtray.augment.operator import Range

small = TypeAdapter(Annotated[Range, within(-1, 2)])


def test_both_bounds_belong_to_the_range():
    assert small.validate_python([-1, 2]) == (-1.0, 2.0)
    assert TypeAdapter(UnitRange).validate_python((0, 1)) == (0, 1)
    assert TypeAdapter(AngleRange).validate_python((-360, 360)) == (-360, 360)


@pytest.mark.parametrize("limits", [(-1.1, 0), (0, 2.1), (float("nan"), 1), (0, float("inf"))])
def test_ends_outside_are_refused_with_the_bounds(limits):
    with pytest.raises(ValidationError, match="is outside -1 to 2; keep both ends inside"):
        small.validate_python(limits)


def test_swapped_ends_are_refused():
    with pytest.raises(ValidationError, match=r"the lower end 1.0 is above the upper end 0.0; swap them"):
        small.validate_python((1, 0))
