"""What every step does with the results of a unit: put files whole, keep quarantine rows, book the receipt."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from vtray.errors import ImageError
from vtray.manifest import FileRecord, Ledger, Receipt, sha256
from vtray.shards import QuarantineRow, encode_quarantine
from vtray.sources import SourceImage, Unit
from vtray.storage import Storage, open_storage

MAX_EXAMPLES = 3


@lru_cache(maxsize=4)
def ledger_at(output_uri: str) -> Ledger:
    """One client for each output in a worker's life: connecting to S3 takes longer than a small unit."""
    return Ledger(open_storage(output_uri))


def book_once(ledger: Ledger, unit: Unit, digest: str, make: Callable[[], Receipt]) -> Receipt:
    """The receipt that counts: the one that is booked for this work, else that of `make`."""
    return booked(ledger, unit, digest) or ledger.book(make())


def booked(ledger: Ledger, unit: Unit, digest: str) -> Receipt | None:
    """The receipt of this work, if another driver or an earlier attempt was faster."""
    receipt = ledger.receipt(unit.unit_id)
    return receipt if receipt is not None and receipt.digest == digest else None


def encoded_of(image: SourceImage) -> bytes:
    """The bytes of an image that could be read. Raises: ImageError (stage read) for one that could not."""
    if image.encoded is None:
        raise image.error or ImageError("read", "missing", f"{image.ref.uri}: no bytes")
    return image.encoded


def quarantine_row(image: SourceImage, error: ImageError) -> QuarantineRow:
    """What is kept of an image that cannot be used."""
    return QuarantineRow(
        image_id=image.ref.image_id,
        uri=image.ref.uri,
        stage=error.stage,
        error_type=error.reason,
        message=str(error),
        bytes_sha256=sha256(image.encoded) if image.encoded is not None else None,
    )


def put(storage: Storage, key: str, content: bytes, *, rows: int) -> FileRecord:
    """Write one object whole; returns what the manifest says of it."""
    storage.put(key, content)
    return FileRecord(key=key, sha256=sha256(content), bytes=len(content), rows=rows)


def put_quarantine(storage: Storage, unit: str, rows: Sequence[QuarantineRow]) -> FileRecord | None:
    """Write the quarantine of a unit, if there is any."""
    if not rows:
        return None
    return put(storage, f"quarantine/{unit}.parquet", encode_quarantine(rows), rows=len(rows))


def failures_of(rows: Sequence[QuarantineRow]) -> dict[str, Any]:
    """What a receipt says of the images in quarantine, as its fields."""
    return {
        "num_failed": len(rows),
        "failures": dict(Counter(f"{row.stage}: {row.error_type}" for row in rows)),
        "examples": tuple(f"{row.image_id} ({row.message})" for row in rows[:MAX_EXAMPLES]),
    }
