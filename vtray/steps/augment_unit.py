"""What a worker does with one unit: read, decode once, make the variants, encode, write, book the receipt.

Pixels stay inside this function; only the receipt leaves it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from vtray.augment.variants import AugmentWork, VariantMaker
from vtray.errors import ImageError
from vtray.manifest import FileRecord, Ledger, Receipt, sha256
from vtray.shards import OutputFormat, encode_quarantine, encode_shard
from vtray.shards.rows import QuarantineRow, Row
from vtray.sources import SourceImage, Unit, read_unit
from vtray.steps.worker import prepare_worker
from vtray.stopwatch import Stopwatch
from vtray.storage import Storage, open_storage

MAX_EXAMPLES = 3
SHARD = "_shard"


@dataclass(frozen=True, kw_only=True)
class AugmentUnit:
    """The augment step, made once by the driver and called on workers with one unit after the other."""

    work: AugmentWork
    classes: tuple[str, ...]
    output_uri: str
    output_format: OutputFormat

    def __call__(self, unit: Unit, digest: str) -> Receipt:
        """Do the unit and return the receipt that counts. Raises: StorageError if storage fails for good."""
        prepare_worker()
        ledger = Ledger(_output(self.output_uri))
        booked = ledger.receipt(unit.unit_id)
        if booked is not None and booked.digest == digest:  # another driver or an earlier attempt was faster
            return booked
        return ledger.book(self._write(ledger.storage, unit, digest, self.make(unit)))

    def make(self, unit: Unit) -> "Made":
        """All rows and quarantine rows of a unit, nothing written."""
        made = Made()
        maker = VariantMaker(work=self.work, clock=made.clock)
        images = read_unit(unit)
        while True:
            with made.clock.phase("read"):
                image = next(images, None)
            if image is None:
                return made
            try:
                if image.error or image.encoded is None:
                    raise image.error or ImageError("read", "missing", f"{image.ref.uri}: no bytes")
                made.rows += list(maker.rows(image.ref, image.encoded))  # all of them or none
            except ImageError as error:
                made.quarantine.append(_quarantine_row(image, error))

    def _write(self, storage: Storage, unit: Unit, digest: str, made: "Made") -> Receipt:
        with made.clock.phase("write"):
            files = self._write_shard(storage, unit.unit_id, made.rows)
            quarantine = _put_quarantine(storage, unit.unit_id, made.quarantine)
        return Receipt(
            unit=unit.unit_id,
            digest=digest,
            files=files,
            quarantine=quarantine,
            num_images=unit.num_images,
            num_failed=len(made.quarantine),
            rows_by_class=dict(Counter(row.class_name for row in made.rows if row.class_name is not None)),
            failures=dict(Counter(f"{row.stage}: {row.error_type}" for row in made.quarantine)),
            examples=tuple(f"{row.image_id} ({row.message})" for row in made.quarantine[:MAX_EXAMPLES]),
            seconds=made.clock.seconds(),
        )

    def _write_shard(self, storage: Storage, unit: str, rows: Sequence[Row]) -> tuple[FileRecord, ...]:
        """Each object by one put; a shard's name tells its content, so a late attempt never replaces another's."""
        objects = encode_shard(rows, name=SHARD, format=self.output_format, classes=self.classes)
        (shard,) = (key for key in objects if key.startswith(f"{SHARD}."))
        content = objects.pop(shard)
        name = f"data/{unit}-{sha256(content)[:12]}{shard.removeprefix(SHARD)}"
        # in a folder output every image file is a row, and the shard is their index, put last
        files = [_put(storage, f"data/{key}", image, rows=1) for key, image in objects.items()]
        return (*files, _put(storage, name, content, rows=0 if files else len(rows)))


@dataclass(kw_only=True)
class Made:
    """The rows of one unit while it is worked on."""

    rows: list[Row] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)


@lru_cache(maxsize=4)
def _output(uri: str) -> Storage:
    """One client for each output in a worker's life: connecting to S3 takes longer than a small unit."""
    return open_storage(uri)


def _quarantine_row(image: SourceImage, error: ImageError) -> QuarantineRow:
    return QuarantineRow(
        image_id=image.ref.image_id,
        uri=image.ref.uri,
        stage=error.stage,
        error_type=error.reason,
        message=str(error),
        bytes_sha256=sha256(image.encoded) if image.encoded is not None else None,
    )


def _put_quarantine(storage: Storage, unit: str, rows: Sequence[QuarantineRow]) -> FileRecord | None:
    if not rows:
        return None
    return _put(storage, f"quarantine/{unit}.parquet", encode_quarantine(rows), rows=len(rows))


def _put(storage: Storage, key: str, content: bytes, *, rows: int) -> FileRecord:
    storage.put(key, content)
    return FileRecord(key=key, sha256=sha256(content), bytes=len(content), rows=rows)
