"""Whether a prefix cache holds what the network computes: some images again, straight from their bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from torch import Tensor

from vtray.augment.operator import Image
from vtray.classify.activations import Activations, DType
from vtray.classify.backbone import Classifier
from vtray.classify.prefix import FP16_PEAKS, CacheWork
from vtray.errors import ImageError, StorageError
from vtray.seeding import rng_for
from vtray.sources import ImageRef, Unit, read_unit
from vtray.steps.cache_unit import BATCH
from vtray.steps.results import encoded_of

NUM_COMPARED = 64
NUM_SAMPLED = 16  # images that tell whether fp16 is wide enough

# Largest difference to the direct forward pass, relative to the image's largest activation. Rounding is at most
# half of the first two (4e-4 measured for fp16); bf16 computing differs from one processor to the next.
TOLERANCES: dict[DType, float] = {"fp16": 2**-10, "bf16": 2**-7, "uint8": 0.0}
BF16_COMPUTE_TOLERANCE = 2**-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """One view of an image that can be used. image: uint8 (crop, crop, 3)."""

    ref: ImageRef
    view: int
    image: Image


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheCheck:
    """Computes some of the cached images with the classifier itself; `images` is one unit of all of them.

    Which ones depends on seed and number only.
    """

    work: CacheWork
    classifier: Classifier
    images: Unit
    seed: int

    def fits_fp16(self) -> bool:
        """Whether NUM_SAMPLED plain images say that fp16 is wide enough; those that are not finite say nothing."""
        plain = replace(self, work=replace(self.work, views=0))
        peaks = [float(each.abs().max()) for _, each in plain._computed(NUM_SAMPLED) if each.isfinite().all()]
        low, high = FP16_PEAKS
        return all(low < peak < high for peak in peaks if peak)

    def compare(self, uri: str, *, local: str | None = None) -> tuple[int, float]:
        """How many of NUM_COMPARED images have rows in the cache at `uri`, and the largest relative difference.

        Raises: StorageError naming the image if that is more than rounding explains.
        """
        allowed = BF16_COMPUTE_TOLERANCE if self.work.precision == "bf16" else TOLERANCES[self.work.dtype]
        splits: dict[str | None, Activations] = {}
        differences = [0.0]
        for drawn, direct in self._computed(NUM_COMPARED):
            if not direct.isfinite().all():  # in quarantine
                continue
            split = drawn.ref.split
            if split not in splits:
                splits[split] = Activations.open(uri, split, local=local)
            difference = _difference(splits[split], drawn, direct)
            if not difference <= allowed:
                raise StorageError(
                    f"{uri}: the cached row of {drawn.ref.image_id}, view {drawn.view}, differs from the direct "
                    f"forward pass by {difference:.2g} of its largest activation ({allowed:.2g} is allowed); "
                    "delete this folder and run again"
                )
            differences.append(difference)
        return len(differences) - 1, max(differences)

    def _computed(self, number: int) -> Iterator[tuple[Drawn, Tensor]]:
        """Images with their activations, float32."""
        images = self._drawn(number)
        while some := list(islice(images, BATCH)):
            activations = self.work.activations(self.classifier, [drawn.image for drawn in some])
            yield from zip(some, activations.cpu(), strict=True)

    def _drawn(self, number: int) -> Iterator[Drawn]:
        """The images of this draw that can be read and decoded; the others are in quarantine."""
        rng = rng_for(self.seed, "prefix cache")
        chosen = np.sort(rng.permutation(self.images.num_images)[:number]).tolist()
        for image in read_unit(replace(self.images, refs=tuple(self.images.refs[index] for index in chosen))):
            view = int(rng.integers(len(self.work.views_of(image.ref.split))))
            try:
                (crop,) = self.work.crops(encoded_of(image), (view,))
            except ImageError:
                continue
            yield Drawn(ref=image.ref, view=view, image=crop)


def _difference(cached: Activations, drawn: Drawn, direct: Tensor) -> float:
    (row,) = cached.rows(cached.indexes_of([drawn.ref.image_id]), drawn.view).float()
    scale = float(direct.abs().max()) or 1.0
    return float((row - direct).abs().max()) / scale
