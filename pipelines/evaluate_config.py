"""The keys of `vtray evaluate`."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.classify_config import ClassifyConfig
from pipelines.config import Frozen

# written out, so that reading a config loads no operator; a test compares them with vtray.classify.conditions
ConditionName = Literal[
    "dim_light",
    "too_much_light",
    "warm_light",
    "cold_light",
    "uneven_light",
    "cast_shadow",
    "glare",
    "desk_reflection",
    "blur",
    "noise",
    "jpeg",
    "erased",
]
Severity = Annotated[int, Field(ge=1, le=5)]


class RobustnessConfig(Frozen):
    """Bad light and lost detail, in which a sample of the images is classified as well."""

    conditions: Literal["all", "none"] | Annotated[tuple[ConditionName, ...], Field(min_length=1)] = Field(
        "all", description="names of conditions, all, or none"
    )
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = Field(
        (1, 2, 3, 4, 5), description="how strong, 1 to 5"
    )
    max_images: int = Field(
        100, ge=1, description="images of the sample; each is classified once per condition and severity"
    )


class EvaluateConfig(ClassifyConfig):
    """`vtray evaluate`: what a model makes of labelled images, and where it fails."""

    split: Annotated[str, Field(min_length=1)] = Field(
        "auto", description="auto: test if there is one, else val, else all; or all, or the name of a split"
    )
    robustness: RobustnessConfig = RobustnessConfig()
