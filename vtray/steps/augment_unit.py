"""What a worker does with one unit: read, decode once, make the variants, encode, write, book the receipt.

Pixels stay inside this function; only the receipt leaves it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from vtray.augment.variants import AugmentWork, VariantMaker
from vtray.errors import ImageError
from vtray.manifest import FileRecord, Receipt, sha256
from vtray.shards import OutputFormat, QuarantineRow, Row, encode_shard
from vtray.sources import Unit, read_unit
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
from vtray.storage import Storage

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
        ledger = ledger_at(self.output_uri)
        return book_once(ledger, unit, digest, lambda: self._write(ledger.storage, unit, digest, self.make(unit)))

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
                made.rows += list(maker.rows(image.ref, encoded_of(image)))  # all of them or none
            except ImageError as error:
                made.quarantine.append(quarantine_row(image, error))

    def _write(self, storage: Storage, unit: Unit, digest: str, made: "Made") -> Receipt:
        with made.clock.phase("write"):
            files = self._write_shard(storage, unit.unit_id, made.rows)
            quarantine = put_quarantine(storage, unit.unit_id, made.quarantine)
        return Receipt(
            unit=unit.unit_id,
            digest=digest,
            files=files,
            quarantine=quarantine,
            num_images=unit.num_images,
            rows_by_class=dict(Counter(row.class_name for row in made.rows if row.class_name is not None)),
            seconds=made.clock.seconds(),
            **failures_of(made.quarantine),
        )

    def _write_shard(self, storage: Storage, unit: str, rows: Sequence[Row]) -> tuple[FileRecord, ...]:
        """Each object by one put; a shard's name tells its content, so a late attempt never replaces another's."""
        objects = encode_shard(rows, name=SHARD, format=self.output_format, classes=self.classes)
        (shard,) = (key for key in objects if key.startswith(f"{SHARD}."))
        content = objects.pop(shard)
        name = f"data/{unit}-{sha256(content)[:12]}{shard.removeprefix(SHARD)}"
        # in a folder output every image file is a row, and the shard is their index, put last
        files = [put(storage, f"data/{key}", image, rows=1) for key, image in objects.items()]
        return (*files, put(storage, name, content, rows=0 if files else len(rows)))


@dataclass(kw_only=True)
class Made:
    """The rows of one unit while it is worked on."""

    rows: list[Row] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)
