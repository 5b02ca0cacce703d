"""What one output row holds, its Arrow schema (written once, here) and the file stems made from it."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypedDict

import pyarrow as pa


class Box(TypedDict):
    """An axis-parallel box in pixels of the row's image."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    label: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One image of an output shard and where it came from.

    variant: 0 is the original. image: encoded bytes in `format` ("jpeg", "png", "webp"). soft_label: one weight
    per class, boxes and mask (PNG bytes): only where the job makes them. source_sha256: of the encoded source.
    seed: of this variant, 0 <= seed < 2**64. operators: JSON list of applied operators with drawn parameters.
    """

    image_id: str
    variant: int
    image: bytes
    format: str
    width: int
    height: int
    label: int | None
    class_name: str | None
    split: str | None
    soft_label: tuple[float, ...] | None = None
    boxes: tuple[Box, ...] | None = None
    mask: bytes | None = None
    source_sha256: str
    seed: int
    operators: str
    recipe_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantineRow:
    """One image that could not be used; `message` is one line for a person, `bytes_sha256` of what was read."""

    image_id: str
    uri: str
    stage: str
    error_type: str
    message: str
    bytes_sha256: str | None


_BOX = pa.struct([(name, pa.float32()) for name in ("x_min", "y_min", "x_max", "y_max")] + [("label", pa.int32())])

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("variant", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("class_name", pa.string()),
        pa.field("split", pa.string()),
        pa.field("soft_label", pa.list_(pa.float32())),
        pa.field("boxes", pa.list_(_BOX)),
        pa.field("mask", pa.binary()),
        pa.field("source_sha256", pa.string(), nullable=False),
        pa.field("seed", pa.uint64(), nullable=False),
        pa.field("operators", pa.string(), nullable=False),
        pa.field("recipe_digest", pa.string(), nullable=False),
    ]
)

QUARANTINE_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("image_id", "uri", "stage", "error_type", "message")]
    + [pa.field("bytes_sha256", pa.string())]
)

CLASSES_KEY = b"vtray.classes"  # schema metadata: the class names as a JSON list, in label order

_EXTENSIONS = {"jpeg": "jpg"}  # all others have their own name


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The rows by image_id and variant.

    Raises:
        ValueError: two rows are the same variant of the same image_id.
    """
    ordered = sorted(rows, key=attrgetter("image_id", "variant"))
    for row, following in pairwise(ordered):
        if (row.image_id, row.variant) == (following.image_id, following.variant):
            raise ValueError(
                f"two rows are variant {row.variant} of {row.image_id!r}; give each image its own image_id"
            )
    return ordered


def stem(row: Row) -> str:
    """A file stem that is the row's alone, at most 80 ASCII letters, digits, "-" and "_".

    The readable part is the end of the image_id, without what file systems, URLs or webdataset (which cuts at the
    first dot) would trip over; 64 bits of its hash keep a/b.jpg, a_b.jpg and b.png apart.
    """
    name = row.image_id.rsplit("/", 1)[-1]
    readable = re.sub(r"[^0-9A-Za-z_-]+", "-", name.rsplit(".", 1)[0])[:40].strip("-_") or "image"
    digest = hashlib.blake2b(row.image_id.encode(), digest_size=8).hexdigest()
    return f"{readable}-{digest}__v{row.variant}"


def extension(image_format: str) -> str:
    """The file extension of an image format, without the dot."""
    return _EXTENSIONS.get(image_format, image_format)


def table_of(rows: Sequence[Row], schema: pa.Schema = SCHEMA) -> pa.Table:
    """The rows as an Arrow table; fields that the schema lacks are left out."""
    return pa.table({name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema)


def row_of(fields: dict[str, Any]) -> Row:
    """One row from plain values, as Arrow and JSON give them (lists instead of tuples)."""
    soft_label, boxes = fields["soft_label"], fields["boxes"]
    return Row(
        **fields
        | {
            "soft_label": None if soft_label is None else tuple(soft_label),
            "boxes": None if boxes is None else tuple(boxes),
        }
    )


def classes_json(classes: Sequence[str]) -> bytes:
    """The class list as it stands in every shard."""
    return json.dumps(list(classes), ensure_ascii=False).encode()
