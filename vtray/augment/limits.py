"""Bounds for the two ends of a range, written once on the type of the field."""

from typing import Annotated

from pydantic import AfterValidator

from vtray.augment.operator import Range


def within(low: float, high: float) -> AfterValidator:
    """A validator for a `Range` that keeps both ends in [low, high]; refuses nan."""

    def check(limits: tuple[float, float]) -> tuple[float, float]:
        if not all(low <= end <= high for end in limits):
            raise ValueError(
                f"{limits[0]:g} to {limits[1]:g} is outside {low:g} to {high:g}; keep both ends inside"
            )
        return limits

    return AfterValidator(check)


UnitRange = Annotated[Range, within(0, 1)]
AngleRange = Annotated[Range, within(-360, 360)]  # degrees
