"""What loads one batch of content crops for a fast style network: read, decode, cut. B images, H W the crop."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtray.errors import ImageError
from vtray.manifest import Json, canonical
from vtray.sources import ImageRef
from vtray.steps.load_batch import EncodedImages, fault_of, stand_in
from vtray.steps.results import encoded_of
from vtray.steps.worker import prepare_worker
from vtray.style.fast.crops import CropMaker
from vtray.style.work import Image


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadCrops:
    """Loads crops of `refs` by index; made by the driver, called in loader processes."""

    refs: Sequence[ImageRef]
    format: str
    maker: CropMaker
    _encoded: EncodedImages = field(default_factory=EncodedImages, repr=False)

    def __call__(self, step: int, first: int, indexes: Sequence[int]) -> tuple[NDArray[np.uint8], list[Json]]:
        """uint8 (B, H, W, 3), and the faults of images that others stand in for.

        first: place of the first image in the batch of all workers. For a broken image the next whole one of the
        batch stands in. Raises: InputError if there is none; StorageError.
        """
        prepare_worker()
        refs = {self.refs[index].image_id: self.refs[index] for index in indexes}
        read = self._encoded.read(refs, format=self.format, every=self.refs)
        found = {image.ref.image_id: image for image in read}
        crops: dict[int, Image] = {}
        faults: dict[int, Json] = {}
        for place, index in enumerate(indexes, start=first):
            image = found[self.refs[index].image_id]
            try:
                crops[place] = self.maker(encoded_of(image), step=step, place=place)
            except ImageError as error:
                faults[index] = fault_of(image, error)
        places = range(first, first + len(indexes))
        return np.stack([crops[stand_in(at, places, crops)] for at in range(len(indexes))]), list(faults.values())


class LoadCropRows:
    """One row, one batch: what a loader process does with its rows."""

    def __init__(self, load: LoadCrops) -> None:
        self._load = load

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        images, faults = self._load(row["step"], row["first"], row["indexes"])
        return {"images": images, "faults": [canonical(fault).decode() for fault in faults]}
