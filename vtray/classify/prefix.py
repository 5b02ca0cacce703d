"""The frozen prefix of a classifier as work: what decides its activations, and how they are computed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vtray.augment.operator import Image
from vtray.augment.recipe import Recipe
from vtray.classify.activations import DTYPES, DType
from vtray.classify.backbone import Classifier
from vtray.classify.preprocessing import Preprocessing
from vtray.classify.views import ViewMaker
from vtray.errors import ConfigError
from vtray.images import MAX_PIXELS
from vtray.manifest import Json, canonical, sha256

Precision = Literal["fp32", "bf16"]

FORMAT = 1  # raise when equal keys would no longer mean equal rows
# Largest activations of sampled images with which fp16 is wide enough: half of what it holds, since other images
# may go further, and far from where it loses bits.
FP16_PEAKS = (1e-3, 30_000.0)


@dataclass(frozen=True, kw_only=True)
class CacheWork:
    """What decides the rows of a prefix cache, nothing left open.

    boundary: what `Classifier.prefix` takes, or 0: the rows are the crops themselves. prefix_sha256: of
    `encode_prefix`. views: augmented views of each image of `augment_splits`, made by `recipe` from `seed` as the
    augment job makes its variants 1 to `views`; view 0 is the plain image. dtype: of the rows. precision: of the
    computation.
    """

    backbone: str
    boundary: int
    prefix_sha256: str
    preprocessing: Preprocessing
    recipe: Recipe | None = None
    views: int = 0
    seed: int = 0
    augment_splits: tuple[str | None, ...] = ("train", None)
    dtype: DType = "fp16"
    precision: Precision = "fp32"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.views < 0 or (self.views and self.recipe is None):
            raise ConfigError(f"cache.views: {self.views} views need an augmentation recipe; give one, or views 0")

    def views_of(self, split: str | None) -> range:
        """The view numbers that an image of this split gets."""
        return range(1 + (self.views if split in self.augment_splits else 0))

    def describe(self) -> Json:
        """Everything that the rows depend on, besides the images."""
        views: Json | None = None
        if self.recipe is not None and self.views:
            splits = sorted(map(str, self.augment_splits))
            views = {"recipe": self.recipe.digest, "number": self.views, "seed": self.seed, "splits": splits}
        return {
            "format": FORMAT,
            "backbone": self.backbone,
            "boundary": self.boundary,
            "prefix_sha256": self.prefix_sha256,
            "preprocessing": self.preprocessing.digest(),
            "views": views,
            "dtype": self.dtype,
            "precision": self.precision,
            "max_pixels": self.max_pixels,
        }

    def crops(self, encoded: bytes, views: Sequence[int]) -> list[Image]:
        """The network's view of one image, uint8 (crop, crop, 3), for each view number.

        Raises: ImageError (stage decode or augment).
        """
        maker = ViewMaker(
            preprocessing=self.preprocessing, recipe=self.recipe, seed=self.seed, max_pixels=self.max_pixels
        )
        return maker.views(encoded, views)

    def activations(self, classifier: Classifier | None, crops: Sequence[Image]) -> Tensor:
        """float32 (B, ...) on the classifier's device, of B crops, in evaluation mode and without gradients.

        At boundary 0 the crops as they are, float32 (B, crop, crop, 3).
        """
        if classifier is None or self.boundary == 0:
            return torch.from_numpy(np.stack(crops)).float()
        device = next(classifier.parameters()).device
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
        with torch.no_grad(), evaluating(classifier), _exact(device, self.precision):
            pixels = self.preprocessing.pixels(images.to(device))
            return classifier.prefix(pixels, self.boundary).float()

    def rounded(self, activations: Tensor) -> Tensor:
        """The activations as rows hold them, on the CPU; beyond 65504, fp16 becomes infinite."""
        return activations.to("cpu", DTYPES[self.dtype]).contiguous()


def cache_key(work: CacheWork, *, input_uri: str, splits: Sequence[str | None]) -> str:
    """The name of a cache's folder, 32 hex digits: what decides its rows, and which images it is of.

    The images' content is not in it: a changed one is computed again in the same folder, alone with its unit.
    """
    images = {"uri": input_uri, "splits": sorted(map(str, splits))}
    return sha256(canonical(work.describe() | {"input": images}))[:32]


def cached_boundary(classifier: Classifier, num_frozen: int) -> int:
    """Where a cache for the first `num_frozen` stages cuts; if that is all of them, behind the pooling.

    Raises: ConfigError if there are no such stages.
    """
    num_stages = len(classifier.stage_names)
    if not 0 <= num_frozen <= num_stages:
        raise ConfigError(
            f"cache: {num_frozen} frozen stages of {classifier.backbone} cannot be cached; "
            f"freeze 0 to {num_stages} ({', '.join(classifier.stage_names)}), or use cache off"
        )
    return classifier.last_boundary if num_frozen == num_stages else num_frozen


def encode_prefix(classifier: Classifier, boundary: int) -> bytes:
    """Parameters and buffers before `boundary` as safetensors; equal tensors give equal bytes."""
    named = classifier.network.state_dict()
    stages = range(min(boundary, len(classifier.stage_names)))
    names = [name for i in stages for name, _ in (*classifier.stage_parameters(i), *classifier.stage_buffers(i))]
    return save({name: named[name].cpu().contiguous() for name in sorted(names) if name in named})


def activation_shape(classifier: Classifier, boundary: int, preprocessing: Preprocessing) -> tuple[int, ...]:
    """The shape of one row, found by one forward pass of a black image."""
    side = preprocessing.crop_px
    if boundary == 0:
        return side, side, 3
    with torch.no_grad(), evaluating(classifier):
        device = next(classifier.parameters()).device
        black = torch.zeros(1, 3, side, side, device=device)
        return tuple(classifier.prefix(black, boundary).shape[1:])


def row_bytes(classifier: Classifier, boundary: int, preprocessing: Preprocessing) -> int:
    """What one image and view take in a cache."""
    item = DTYPES["fp16" if boundary else "uint8"].itemsize
    return item * prod(activation_shape(classifier, boundary, preprocessing))


@contextmanager
def evaluating(classifier: Classifier) -> Iterator[None]:
    """Evaluation mode in the block; afterwards the mode that was before."""
    training = classifier.training
    classifier.eval()
    try:
        yield
    finally:
        classifier.train(training)


@contextmanager
def _exact(device: torch.device, precision: Precision) -> Iterator[None]:
    """fp32 without the TF32 that GPUs put in its place, or bf16 autocast."""
    with (
        torch.backends.cudnn.flags(allow_tf32=False),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        yield
