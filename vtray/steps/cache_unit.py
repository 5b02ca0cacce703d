"""What a worker does with one unit of a prefix cache: read, decode, crop, run the frozen prefix, write one file.

Pixels and activations stay inside; only the receipt leaves it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from vtray.augment.operator import Image
from vtray.classify.activations import CachedRow, encode_file
from vtray.classify.backbone import Classifier, build_classifier
from vtray.classify.networks import take_image_size
from vtray.classify.prefix import CacheWork
from vtray.errors import ConfigError, ImageError, WeightsError
from vtray.manifest import FileRecord, Receipt, canonical, sha256
from vtray.shards import QuarantineRow
from vtray.sources import SourceImage, Unit, read_unit
from vtray.steps.results import (
    book_once,
    encoded_of,
    failures_of,
    ledger_at,
    put,
    put_quarantine,
    quarantine_row,
)
from vtray.steps.worker import prepare_worker
from vtray.stopwatch import Stopwatch
from vtray.storage import Storage, join_uri
from vtray.weights import load_weights

BATCH = 16  # rows a forward pass; part of what decides their last bits
PREFIX, OVERFLOW = "_vtray/prefix.safetensors", "_vtray/overflow.json"

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class CacheUnit:
    """The prefix cache's step, made once by the driver and called on workers with one unit after the other.

    The weights are at PREFIX in the output.
    """

    work: CacheWork
    output_uri: str
    device: Device = "cpu"

    def __call__(self, unit: Unit, digest: str) -> Receipt:
        """Do the unit and return the receipt that counts.

        Raises: StorageError if storage fails for good; WeightsError; ConfigError if fp16 cannot hold a value,
        which OVERFLOW in the output says too.
        """
        prepare_worker()
        ledger = ledger_at(self.output_uri)
        return book_once(ledger, unit, digest, lambda: self._write(ledger.storage, unit, digest, self.make(unit)))

    def make(self, unit: Unit) -> "Made":
        """All rows and quarantine rows of a unit, nothing written."""
        made = Made()
        with made.clock.phase("load"):
            classifier = self._classifier()
        crops = self._crops(unit, made)
        while batch := list(islice(crops, BATCH)):
            with made.clock.phase("prefix"):
                activations = self.work.activations(classifier, [crop.image for crop in batch]).cpu()
            for crop, activation in zip(batch, activations, strict=True):
                made.add(crop, activation, self.work)
        made.drop_broken()
        return made

    def _classifier(self) -> Classifier | None:
        """What computes the rows; crops need none."""
        return load_prefix(self.work, self.output_uri, self.device) if self.work.boundary else None

    def _crops(self, unit: Unit, made: "Made") -> Iterator["Crop"]:
        """All views of the images that can be used; the others go into quarantine."""
        images = read_unit(unit)
        while True:
            with made.clock.phase("read"):
                source = next(images, None)
            if source is None:
                return
            views = self.work.views_of(source.ref.split)
            try:
                with made.clock.phase("decode"):
                    encoded = encoded_of(source)
                    crops = self.work.crops(encoded, views)
            except ImageError as error:
                made.quarantine.append(quarantine_row(source, error))
                continue
            digest = sha256(encoded)
            for view, image in zip(views, crops, strict=True):
                yield Crop(source=source, sha256=digest, view=view, image=image)

    def _write(self, storage: Storage, unit: Unit, digest: str, made: "Made") -> Receipt:
        with made.clock.phase("write"):
            files = self._write_rows(storage, unit.unit_id, made)
            quarantine = put_quarantine(storage, unit.unit_id, made.quarantine)
        return Receipt(
            unit=unit.unit_id,
            digest=digest,
            files=files,
            quarantine=quarantine,
            num_images=unit.num_images,
            seconds=made.clock.seconds(),
            **failures_of(made.quarantine),
        )

    def _write_rows(self, storage: Storage, unit: str, made: "Made") -> tuple[FileRecord, ...]:
        if not made.crops:
            return ()
        rows = torch.stack(made.rows)
        self._require_finite(storage, rows, made)
        content = encode_file([crop.row for crop in made.crops], rows)
        return (put(storage, f"data/{unit}-{sha256(content)[:12]}.arrow", content, rows=len(rows)),)

    def _require_finite(self, storage: Storage, rows: Tensor, made: "Made") -> None:
        """Raises: ConfigError if values that were finite are not any more in the dtype of the rows."""
        finite = rows.flatten(1).isfinite().all(dim=1)
        if finite.all():
            return
        image_id = made.crops[int(finite.int().argmin())].row.image_id
        storage.put(OVERFLOW, canonical({"image_id": image_id, "dtype": self.work.dtype}))
        raise ConfigError(f"{image_id}: an activation is too large for {self.work.dtype}; use bf16")


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """One view of one image. image: uint8 (crop, crop, 3)."""

    source: SourceImage
    sha256: str
    view: int
    image: Image

    @property
    def row(self) -> CachedRow:
        ref = self.source.ref
        return CachedRow(
            image_id=ref.image_id, view=self.view, label=ref.label, split=ref.split, source_sha256=self.sha256
        )


@dataclass(kw_only=True)
class Made:
    """The rows of one unit while it is worked on; `crops` say whose they are."""

    crops: list[Crop] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)  # image ids of which a view gave NaN or infinity
    quarantine: list[QuarantineRow] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)

    def add(self, crop: Crop, activation: Tensor, work: CacheWork) -> None:
        """Keep one activation, float32, as a row."""
        image_id = crop.source.ref.image_id
        if not activation.isfinite().all() and image_id not in self.broken:
            error = ImageError("prefix", "not_finite", f"{image_id}: its activation holds NaN or infinity")
            self.broken.add(image_id)
            self.quarantine.append(quarantine_row(crop.source, error))
        self.crops.append(crop)
        self.rows.append(work.rounded(activation))

    def drop_broken(self) -> None:
        """Leave out images of which any view is broken: all rows of an image or none."""
        kept = [number for number, crop in enumerate(self.crops) if crop.source.ref.image_id not in self.broken]
        self.crops = [self.crops[number] for number in kept]
        self.rows = [self.rows[number] for number in kept]


@lru_cache(maxsize=1)
def load_prefix(work: CacheWork, output_uri: str, device: Device) -> Classifier:
    """The classifier of a process with the cache's weights up to its boundary, loaded once; the rest is random.

    Raises: WeightsError if they are missing, damaged or of another network; StorageError.
    """
    torch.set_num_threads(1)  # one worker per CPU
    uri = join_uri(output_uri, PREFIX)
    tensors = load_weights(uri, sha256=work.prefix_sha256).tensors
    with torch.random.fork_rng(devices=[]):
        classifier = build_classifier(work.backbone, num_classes=1)
    take_image_size(classifier.network, tensors)
    wanted = dict(classifier.network.state_dict())
    unfit = [name for name in tensors if name not in wanted or wanted[name].shape != tensors[name].shape]
    if unfit:
        raise WeightsError(f"{uri}: {unfit[0]} does not fit {work.backbone}; delete the cache's folder")
    classifier.network.load_state_dict(tensors, strict=False)
    return classifier.eval().to(device)
