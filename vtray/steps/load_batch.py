"""What loads one batch of training images: read, decode, augment, crop.

Epoch e sees view e + 1 of every image, whichever worker loads it. B images, H W the crop.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vtray.augment.operator import Image
from vtray.classify.views import ViewMaker
from vtray.errors import ImageError, InputError
from vtray.manifest import Json, canonical, sha256
from vtray.sources import ImageRef, SourceImage, Unit, read_unit
from vtray.steps.results import encoded_of
from vtray.steps.worker import prepare_worker

KEPT_BYTES = 512 << 20  # of encoded images that a loader keeps, so that storage is asked once


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedBatch:
    """images: uint8 (B, H, W, 3). labels: int64 (B,). faults: of images that others stand in for."""

    images: np.ndarray
    labels: np.ndarray
    image_ids: tuple[str, ...]
    faults: tuple[Json, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadBatch:
    """Loads batches of `refs` by index; made by the driver, called in loader processes."""

    refs: Sequence[ImageRef]
    format: str
    maker: ViewMaker
    _encoded: "EncodedImages" = field(default_factory=lambda: EncodedImages(), repr=False)

    def __call__(self, epoch: int, indexes: Sequence[int]) -> LoadedBatch:
        """The batch of these images, in order. For a broken one the next whole image of the batch stands in.

        Raises: InputError if the batch has no whole image; StorageError.
        """
        prepare_worker()
        found = {image.ref.image_id: image for image in self._read(indexes)}
        crops: dict[int, Image] = {}
        faults: dict[int, Json] = {}
        for index in dict.fromkeys(indexes):
            image = found[self.refs[index].image_id]
            try:
                (crops[index],) = self.maker.views(encoded_of(image), (epoch + 1,))
            except ImageError as error:
                faults[index] = fault_of(image, error)
        used = [_stand_in(place, indexes, crops) for place in range(len(indexes))]
        return LoadedBatch(
            images=np.stack([crops[index] for index in used]),
            labels=np.array([self.refs[index].label for index in used], np.int64),
            image_ids=tuple(self.refs[index].image_id for index in used),
            faults=tuple(faults.values()),
        )

    def _read(self, indexes: Iterable[int]) -> list[SourceImage]:
        refs = {self.refs[index].image_id: self.refs[index] for index in indexes}
        return self._encoded.read(refs, format=self.format, every=self.refs)


class LoadBatches:
    """One row, one batch: what a loader process does with its rows."""

    def __init__(self, load: LoadBatch) -> None:
        self._load = load

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        loaded = self._load(row["epoch"], row["indexes"])
        return {
            "images": loaded.images,
            "labels": loaded.labels.tolist(),
            "image_ids": list(loaded.image_ids),
            "faults": [canonical(fault).decode() for fault in loaded.faults],
        }


class EncodedImages:
    """Encoded images that were read before, up to KEPT_BYTES; what lies together in Parquet is read together."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit, self._held = limit, 0
        self._kept: OrderedDict[str, SourceImage] = OrderedDict()
        self._groups: dict[tuple[str, int], list[ImageRef]] = {}

    def read(self, refs: Mapping[str, ImageRef], *, format: str, every: Sequence[ImageRef]) -> list[SourceImage]:
        """The images of `refs`; `every`: all that may ever be asked for. Raises: StorageError."""
        missing = {name: ref for name, ref in refs.items() if name not in self._kept}
        wanted = {each.image_id: each for ref in missing.values() for each in self._together(ref, every)}
        fresh = {}
        if wanted:
            ordered = tuple(sorted(wanted.values(), key=lambda ref: ref.image_id))
            fresh = {image.ref.image_id: image for image in read_unit(_unit(ordered, format))}
        found = [fresh[name] if name in fresh else self._kept[name] for name in refs]
        for image in fresh.values():
            self._keep(image)
        return found

    def _together(self, ref: ImageRef, every: Sequence[ImageRef]) -> list[ImageRef]:
        """All references in the same row group, whose bytes storage gives anyway."""
        if ref.row_group is None:
            return [ref]
        if not self._groups:
            for each in every:
                if each.row_group is not None:
                    self._groups.setdefault((each.uri, each.row_group), []).append(each)
        return self._groups.get((ref.uri, ref.row_group), [ref])

    def _keep(self, image: SourceImage) -> None:
        self._kept[image.ref.image_id] = image
        self._held += len(image.encoded or b"")
        while self._held > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._held -= len(oldest.encoded or b"")


def fault_of(image: SourceImage, error: ImageError) -> Json:
    """What is kept of an image that cannot be used."""
    return {
        "image_id": image.ref.image_id,
        "uri": image.ref.uri,
        "stage": error.stage,
        "error_type": error.reason,
        "message": str(error),
        "bytes_sha256": sha256(image.encoded) if image.encoded is not None else None,
    }


def _stand_in(place: int, indexes: Sequence[int], crops: Mapping[int, Image]) -> int:
    """The image at a place of the batch, or the next whole one, going round."""
    turned = (*indexes[place:], *indexes[:place])
    for index in turned:
        if index in crops:
            return index
    raise InputError(
        f"all {len(indexes)} images of a batch are broken; run `vtray augment --dry-run` or look at input.uri"
    )


def _unit(refs: tuple[ImageRef, ...], format: str) -> Unit:
    return Unit(unit_id="batch", format=format, refs=refs)
