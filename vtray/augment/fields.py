"""Types of operator fields: sizes, colours and borders, with each bound written once."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from vtray.augment.limits import within
from vtray.augment.operator import Range

Whole = TypeVar("Whole", bound=int)


def _ordered(limits: tuple[Whole, Whole]) -> tuple[Whole, Whole]:
    if limits[0] > limits[1]:
        raise ValueError(f"the lower end {limits[0]} is above the upper end {limits[1]}; swap them")
    return limits


WholeRange = Annotated[tuple[Whole, Whole], AfterValidator(_ordered)]  # WholeRange[Quality]: both ends bounded

Quality = Annotated[int, Field(ge=1, le=100)]  # of a JPEG or WebP file
Pixels = Annotated[int, Field(ge=1, le=65535)]  # one side of an image
Margin = Annotated[int, Field(ge=0, le=65535)]  # pixels beside an image
Size = Pixels | tuple[Pixels, Pixels]  # one number, or height and width
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]  # RGB
Border = Literal["constant", "reflect", "edge"]

AreaRange = Annotated[Range, within(0.0001, 1)]  # part of an image's area
RatioRange = Annotated[Range, within(0.01, 100)]  # width / height


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """One number means a square."""
    return size if isinstance(size, tuple) else (size, size)
