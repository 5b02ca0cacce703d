"""One source image becomes its rows: the original and its augmented variants, from one decode.

This is the only place that makes production pixels; the step, the preview and the replay all call it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from vtray.augment.operator import Image, Params, Sample
from vtray.augment.recipe import Recipe
from vtray.errors import ImageError
from vtray.images import MAX_PIXELS, DecodedImage, decode, encode
from vtray.shards.rows import Row
from vtray.sources import ImageRef
from vtray.stopwatch import Stopwatch

Colour = tuple[int, int, int]
PLAIN_FORMATS = ("jpeg", "png", "webp")  # kept as they are when upright and RGB or grey


@dataclass(frozen=True, kw_only=True)
class AugmentWork:
    """What to make of every image. `augment_splits`: other splits keep their originals only."""

    recipe: Recipe
    seed: int
    augment_splits: tuple[str, ...] = ("train",)
    max_pixels: int = MAX_PIXELS
    background: Colour = (255, 255, 255)

    def variants(self, split: str | None) -> range | tuple[int, ...]:
        """The variant numbers that an image of this split gets; 0 is the original."""
        if split is not None and split not in self.augment_splits:
            return (0,)
        return range(0 if self.recipe.keep_original else 1, self.recipe.variants + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedSource:
    """One source image, decoded once for all its variants."""

    ref: ImageRef
    encoded: bytes
    decoded: DecodedImage
    sha256: str


def decode_source(ref: ImageRef, encoded: bytes, work: AugmentWork) -> DecodedSource:
    """Hash and decode the bytes of one image. Raises: ImageError (stage decode)."""
    decoded = decode(encoded, max_pixels=work.max_pixels, background=work.background)
    decoded.image.flags.writeable = False  # shared by all variants
    return DecodedSource(ref=ref, encoded=encoded, decoded=decoded, sha256=hashlib.sha256(encoded).hexdigest())


@dataclass(frozen=True, kw_only=True)
class VariantMaker:
    """Makes rows for one piece of work; `clock` counts seconds per phase."""

    work: AugmentWork
    clock: Stopwatch = field(default_factory=Stopwatch)

    def rows(self, ref: ImageRef, encoded: bytes) -> Iterator[Row]:
        """All rows of one image, in variant order. Raises: ImageError."""
        with self.clock.phase("decode"):
            source = decode_source(ref, encoded, self.work)
        for variant in self.work.variants(ref.split):
            yield self.row(source, variant)

    def row(self, source: DecodedSource, variant: int) -> Row:
        """One row: the same bytes for the same (seed, source bytes, variant, recipe), whoever asks."""
        picture = self._original(source) if variant == 0 else self._augmented(source, variant)
        return Row(
            image_id=source.ref.image_id,
            variant=variant,
            image=picture.encoded,
            format=picture.format,
            width=picture.width,
            height=picture.height,
            label=source.ref.label,
            class_name=source.ref.class_name,
            split=source.ref.split,
            source_sha256=source.sha256,
            seed=self.work.recipe.variant_seed(self.work.seed, source.sha256, variant),
            operators=json.dumps(picture.operators),
            recipe_digest=self.work.recipe.digest,
        )

    def _original(self, source: DecodedSource) -> "_Picture":
        """The source's own bytes where any reader shows them right, else its decoded pixels encoded anew."""
        decoded = source.decoded
        if decoded.format in PLAIN_FORMATS and decoded.mode in ("RGB", "L") and decoded.orientation == 1:
            height, width = decoded.image.shape[:2]
            return _Picture(source.encoded, decoded.format, width, height, ())
        note = {"op": "reencode", "from": f"{decoded.format}/{decoded.mode}", "orientation": decoded.orientation}
        return self._encode(Sample(image=decoded.image, applied=(note,)))

    def _augmented(self, source: DecodedSource, variant: int) -> "_Picture":
        seed = self.work.recipe.variant_seed(self.work.seed, source.sha256, variant)
        with self.clock.phase("operators"):
            sample = augment(self.work.recipe, source.decoded.image, seed)
        return self._encode(sample)

    def _encode(self, sample: Sample) -> "_Picture":
        output = self.work.recipe.image
        height, width = sample.image.shape[:2]
        with self.clock.phase("encode"):
            encoded = encode(sample.image, format=output.format, quality=output.quality)
        return _Picture(encoded, output.format, width, height, sample.applied)


@dataclass(frozen=True, slots=True)
class _Picture:
    encoded: bytes
    format: str
    width: int
    height: int
    operators: tuple[Params, ...]


def augment(recipe: Recipe, image: Image, seed: int) -> Sample:
    """Apply the recipe to one image. Raises: ImageError (stage augment) for whatever an operator raises."""
    try:
        return recipe.apply(Sample(image=image), variant_seed=seed)
    except MemoryError:  # the machine's trouble, not the image's
        raise
    except Exception as error:
        raise ImageError("augment", type(error).__name__, f"{type(error).__name__}: {error}") from error
