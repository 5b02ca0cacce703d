"""All operators that a recipe can name, written out in one place."""

from typing import Annotated, get_args

from pydantic import Field

from vtray.augment.colour import Brightness, ColourJitter, Contrast, Greyscale, Hue, Saturation
from vtray.augment.control import OneOf, SomeOf, Sometimes
from vtray.augment.degrade import Blur, Erasing, JpegCompression, Noise
from vtray.augment.framing import CentreCrop, Pad, RandomResizedCrop, Resize
from vtray.augment.geometry import Affine, FlipLeftRight, FlipTopBottom, Rotate
from vtray.augment.lighting import ColourTemperature, Exposure
from vtray.augment.operator import Operator
from vtray.augment.reflection import SpecularGlare, SurfaceReflection
from vtray.augment.shading import CastShadow, UnevenIllumination

AnyOperator = Annotated[
    FlipLeftRight
    | FlipTopBottom
    | Rotate
    | Affine
    | RandomResizedCrop
    | Resize
    | CentreCrop
    | Pad
    | Brightness
    | Contrast
    | Saturation
    | Hue
    | ColourJitter
    | Greyscale
    | ColourTemperature
    | Exposure
    | UnevenIllumination
    | CastShadow
    | SpecularGlare
    | SurfaceReflection
    | Blur
    | Noise
    | JpegCompression
    | Erasing
    | Sometimes
    | OneOf
    | SomeOf,
    Field(discriminator="op"),
]

# control operators hold operators, themselves included: their fields can be resolved only now
for _control in (Sometimes, OneOf, SomeOf):
    _control.model_rebuild(_types_namespace={"AnyOperator": AnyOperator})

OPERATORS: tuple[type[Operator], ...] = get_args(get_args(AnyOperator)[0])  # the same as classes
