"""Image references and the units they are cut into.

Units are bounded by bytes and images and depend only on the references, never on the order of a listing or on
the number of workers.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from operator import attrgetter
from typing import Any, Self

CONTENT_FIELDS = ("image_id", "num_bytes", "version", "class_name", "label", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """One image of the input and where its encoded bytes are.

    uri: absolute address of the object that holds the image. num_bytes: encoded size; for Parquet the average of
    its row group, for lists 0 if storage would not tell. version: the object's etag or modification time. label:
    index into the source's classes. offset: where a tar member's bytes begin. row: place inside row group
    row_group of a Parquet file. fault: why there is nothing to read, known since the listing.
    """

    image_id: str
    uri: str
    num_bytes: int
    version: str
    class_name: str | None = None
    label: int | None = None
    split: str | None = None
    offset: int | None = None
    row_group: int | None = None
    row: int | None = None
    fault: str | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """Sorts references into the order in which storage holds them."""
        if self.row_group is not None and self.row is not None:
            return self.uri, self.row_group, self.row
        return (self.uri, 0, self.offset) if self.offset is not None else (self.image_id, 0, 0)


REF_FIELDS = tuple(field.name for field in fields(ImageRef))
_values = attrgetter(*REF_FIELDS)
_content = attrgetter(*CONTENT_FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A bounded piece of the input that one worker reads and writes as a whole; refs are sorted by image_id."""

    unit_id: str
    format: str
    refs: tuple[ImageRef, ...]

    @property
    def num_images(self) -> int:
        return len(self.refs)

    @property
    def num_bytes(self) -> int:
        return sum(ref.num_bytes for ref in self.refs)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the unit holds: ids, sizes, object versions and labels, wherever it is stored."""
        return hashlib.sha256(json.dumps([_content(ref) for ref in self.refs]).encode()).hexdigest()

    def to_dict(self) -> dict[str, str]:
        """The unit as one flat row of text; refs are JSON, so no table library has to guess a column's type."""
        refs = json.dumps([_values(ref) for ref in self.refs], separators=(",", ":"))
        return {"unit_id": self.unit_id, "format": self.format, "refs": refs}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        refs = (ImageRef(**dict(zip(REF_FIELDS, values, strict=True))) for values in json.loads(row["refs"]))
        return cls(unit_id=row["unit_id"], format=row["format"], refs=tuple(refs))


def cut_units(
    refs: Iterable[ImageRef],
    *,
    format: str,
    max_bytes: int,
    max_images: int,
) -> list[Unit]:
    """References as units, each closed before it would pass a bound; one larger image is a unit of its own.

    Neighbours in storage share a unit, so that a tar or Parquet unit needs few reads.
    """
    if max_bytes < 1 or max_images < 1:
        raise ValueError(f"max_bytes {max_bytes} and max_images {max_images} must be at least 1")
    pieces = _pieces(sorted(refs, key=attrgetter("place")), max_bytes=max_bytes, max_images=max_images)
    return [
        Unit(unit_id=f"{index:05d}", format=format, refs=tuple(sorted(piece, key=attrgetter("image_id"))))
        for index, piece in enumerate(pieces)
    ]


def _pieces(refs: Iterable[ImageRef], *, max_bytes: int, max_images: int) -> Iterator[list[ImageRef]]:
    piece: list[ImageRef] = []
    num_bytes = 0
    for ref in refs:
        if piece and (len(piece) == max_images or num_bytes + ref.num_bytes > max_bytes):
            yield piece
            piece, num_bytes = [], 0
        piece.append(ref)
        num_bytes += ref.num_bytes
    if piece:
        yield piece


def encode_units(units: Sequence[Unit]) -> bytes:
    """Units as a Parquet file, one row per image; equal units give equal bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [(unit.unit_id, unit.format, *_values(ref)) for unit in units for ref in unit.refs]
    columns = list(zip(*rows, strict=True)) or [()] * (2 + len(REF_FIELDS))
    numbers = {"num_bytes", "label", "offset", "row_group", "row"}
    names = ("unit_id", "format", *REF_FIELDS)
    schema = pa.schema([(name, pa.int64() if name in numbers else pa.string()) for name in names])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    sink = io.BytesIO()
    parquet.write_table(pa.table(arrays, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def decode_units(content: bytes) -> list[Unit]:
    """Units from the bytes of `encode_units`."""
    from pyarrow import parquet

    rows = parquet.read_table(io.BytesIO(content), use_threads=False).to_pylist()
    return [
        Unit(unit_id=unit_id, format=kind, refs=tuple(_ref(row) for row in group))
        for (unit_id, kind), group in groupby(rows, key=lambda row: (row["unit_id"], row["format"]))
    ]


def _ref(row: dict[str, Any]) -> ImageRef:
    return ImageRef(**{name: row[name] for name in REF_FIELDS})
