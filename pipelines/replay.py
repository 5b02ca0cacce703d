"""Replay: make one image of an output again from its source and compare it with the stored bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipelines.augment import AugmentConfig, work_of
from vtray.augment.variants import VariantMaker, decode_source
from vtray.errors import InputError
from vtray.manifest import PLAN, UNITS, Ledger, Receipt, sha256
from vtray.shards import read_folder_index, read_rows
from vtray.shards.rows import Row
from vtray.sources import ImageRef, Unit, decode_units, read_unit
from vtray.storage import Storage, absolute_uri, open_storage


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """An image made again, and the row that is stored."""

    image: bytes
    stored: Row
    same_source: bool

    @property
    def identical(self) -> bool:
        return self.image == self.stored.image

    def text(self) -> str:
        """The verdict, and what was drawn."""
        verdict = "byte-identical" if self.identical else "NOT the same bytes"
        why = "" if self.identical or self.same_source else " (the source image has changed since)"
        return (
            f"  {self.stored.image_id} variant {self.stored.variant}: {verdict}{why}, {len(self.image):,} bytes, "
            f"sha256 {sha256(self.image)}\n  operators: {self.stored.operators}"
        )


def replay_image(output: str, *, image_id: str, variant: int) -> Replayed:
    """Make one image again from its source by the output's own plan.

    Raises: InputError if the output, the image or the variant is not there; ImageError if the source is broken.
    """
    storage = open_storage(absolute_uri(output))
    ledger = Ledger(storage)
    plan = ledger.read_json(PLAN)
    if plan is None:
        raise InputError(f"{output}: holds no vtray output (no {PLAN})")
    if plan["job"] != "augment":
        raise InputError(
            f"{output}: an output of vtray {plan['job']}; only images of vtray augment are made again"
        )
    unit, ref = _find(decode_units(storage.read(UNITS)), image_id, output)
    stored = _stored_row(storage, ledger, unit, image_id, variant)
    image = next(read_unit(replace(unit, refs=(ref,))))
    if image.encoded is None:
        raise InputError(f"{ref.uri}: {image.error}; the source is needed to replay")
    maker = VariantMaker(work=work_of(AugmentConfig.model_validate(plan["config"])))
    source = decode_source(ref, image.encoded, maker.work)
    row = maker.row(source, variant)
    return Replayed(image=row.image, stored=stored, same_source=row.source_sha256 == stored.source_sha256)


def _find(units: list[Unit], image_id: str, output: str) -> tuple[Unit, ImageRef]:
    found = next(((unit, ref) for unit in units for ref in unit.refs if ref.image_id == image_id), None)
    if found is None:
        example = units[0].refs[0].image_id
        raise InputError(f"{output}: no image {image_id!r}; ids look like {example!r}")
    return found


def _stored_row(storage: Storage, ledger: Ledger, unit: Unit, image_id: str, variant: int) -> Row:
    """The row as it is in the output. Raises: InputError naming the variants that are there."""
    if unit.unit_id not in ledger.done():
        raise InputError(f"{storage.uri}: unit {unit.unit_id} of {image_id} is not done yet; run the job first")
    (receipt,) = ledger.receipts([unit.unit_id])
    rows = {row.variant: row for row in _rows_of(storage, receipt, image_id)}
    if variant not in rows:
        there = ", ".join(map(str, sorted(rows))) or "none: the image is in quarantine"
        raise InputError(f"{storage.uri}: {image_id} has no variant {variant}; variants there: {there}")
    return rows[variant]


def _rows_of(storage: Storage, receipt: Receipt, image_id: str) -> Iterator[Row]:
    """The rows of one image in the shard of its unit, whatever the output's format."""
    shard = next((r.key for r in receipt.files if r.key.startswith(f"data/{receipt.unit}-")), None)
    if shard is None:
        return
    content = storage.read(shard)
    if shard.endswith(".tar"):
        yield from (row for row in read_rows(content, format="webdataset") if row.image_id == image_id)
    elif len(receipt.files) == 1 and receipt.files[0].rows:
        yield from (row for row in read_rows(content, format="parquet") if row.image_id == image_id)
    else:
        for path, row in read_folder_index(content).items():
            if row.image_id == image_id:
                yield replace(row, image=storage.read(f"data/{path}"))
