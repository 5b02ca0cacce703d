"""A recipe: a list of operators, how many variants of each image, and how they are encoded."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, overload

import numpy as np
from PIL import Image as PillowImage
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vtray import settings
from vtray.augment.catalogue import AnyOperator
from vtray.augment.fields import Quality
from vtray.augment.operator import Image, Sample
from vtray.seeding import rng_for, seed_for


class ImageOutput(BaseModel):
    """How images are encoded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="file format of the images")
    quality: Quality = Field(90, description="JPEG or WebP quality, 1 to 100; png ignores it")


class Recipe(BaseModel):
    """What is made from each image; variant v is the same however many variants are made.

    Call it with one image, in a notebook or a PyTorch Dataset: `Recipe.load("recipes/lecture.yaml")(image)`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operators: tuple[AnyOperator, ...] = Field(description="operators, applied in this order")
    variants: int = Field(1, ge=0, description="augmented variants of each image")
    keep_original: bool = Field(True, description="whether the image itself is kept, as variant 0")
    image: ImageOutput = Field(ImageOutput(), description="how images are encoded")

    @model_validator(mode="after")
    def _makes_something(self) -> Self:
        if self.variants == 0 and not self.keep_original:
            raise ValueError("variants 0 with keep_original false makes nothing; set one of them")
        return self

    @classmethod
    def load(cls, file: str | Path, *, overrides: Sequence[str] = ()) -> Self:
        """The recipe in the YAML file of a job; keys of the job, such as input and output, are passed over.

        overrides: such as "operators.0.p=1", with YAML values.
        Raises: ConfigError with one line per fault.
        """
        job = settings.load(_JobFile, file=Path(file), overrides=overrides)
        return cls(**{name: getattr(job, name) for name in cls.model_fields})

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of what decides the pixels of a variant: operators and encoding."""
        content = self.model_dump(mode="json", include={"operators", "image"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def variant_seed(self, seed: int, source_sha256: str, variant: int) -> int:
        """The 64-bit seed of one variant of one image; it is stored beside the image."""
        return seed_for(seed, source_sha256, variant)

    def apply(self, sample: Sample, *, variant_seed: int) -> Sample:
        """One variant: every operator draws from its own generator, so later ones never change its draws."""
        for i, operator in enumerate(self.operators):
            sample = operator(sample, rng_for(variant_seed, i, operator.op))
        return sample.with_image(np.ascontiguousarray(sample.image))

    @overload
    def __call__(self, image: Image, *, seed: int = 0, variant: int = 1) -> Image: ...
    @overload
    def __call__(self, image: PillowImage.Image, *, seed: int = 0, variant: int = 1) -> PillowImage.Image: ...
    def __call__(
        self, image: Image | PillowImage.Image, *, seed: int = 0, variant: int = 1
    ) -> Image | PillowImage.Image:
        """One variant of one image, uint8 (H, W, 3) or Pillow; variant 0 is the image itself.

        The same image, seed and variant give the same pixels in any process; in training, variant is the epoch.
        """
        if isinstance(image, PillowImage.Image):
            return PillowImage.fromarray(self(np.asarray(image.convert("RGB")), seed=seed, variant=variant))
        _check_image(image)
        if variant == 0:
            return image.copy(order="C")
        sample = self.apply(
            Sample(image=image), variant_seed=self.variant_seed(seed, _pixels_sha256(image), variant)
        )
        # Pillow's arrays are read-only and some operators return their input: callers get an array of their own
        return sample.image.copy() if sample.image is image or not sample.image.flags.writeable else sample.image


class _JobFile(Recipe):
    """The file of a job, of which only the recipe's keys are read."""

    model_config = ConfigDict(extra="ignore")


def _pixels_sha256(image: Image) -> str:
    state = hashlib.sha256(str(image.shape).encode())
    state.update(np.ascontiguousarray(image).data)
    return state.hexdigest()


def _check_image(image: Image) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"image is {image.dtype} with shape {image.shape}; give uint8 with shape (height, width, 3) in RGB, "
            "or a Pillow image"
        )
