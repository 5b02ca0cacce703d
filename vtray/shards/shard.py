"""Output shards as bytes: Parquet, webdataset tar or a folder of image files with an index.

The same rows give the same bytes, in whatever order they come: rows are sorted and nothing depends on time, user
or machine (Parquet names the version of its library).
"""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from vtray.errors import InputError
from vtray.shards.rows import (
    CLASSES_KEY,
    QUARANTINE_SCHEMA,
    SCHEMA,
    QuarantineRow,
    Row,
    classes_json,
    extension,
    in_order,
    row_of,
    stem,
    table_of,
)
from vtray.shards.tar import encode_tar, read_tar

OutputFormat = Literal["parquet", "webdataset", "folder"]
ShardFormat = Literal["parquet", "webdataset"]

ROW_GROUP_BYTES = 64 * 2**20  # of images; readers that split a shard by row groups hold about this much at a time

# Images and masks are compressed already: zstd takes 1 % off JPEGs, and statistics would copy whole images.
_OPAQUE = ("image", "mask")
_INDEX_SCHEMA = pa.schema(
    [pa.field("path", pa.string(), nullable=False)] + [f for f in SCHEMA if f.name != "image"]
)


def encode_shard(
    rows: Sequence[Row], *, name: str, format: OutputFormat, classes: Sequence[str]
) -> dict[str, bytes]:
    """The objects of one shard: object name -> bytes.

    parquet: NAME.parquet. webdataset: NAME.tar. folder: [split/][class/]stem.ext for each row, and NAME.parquet,
    the index: all fields but the image, and `path`. classes: all class names in label order, kept in each shard.

    Raises:
        ValueError: two rows are the same variant of the same image_id.
    """
    ordered = in_order(rows)
    if format == "parquet":
        return {f"{name}.parquet": _parquet(table_of(ordered), classes)}
    if format == "webdataset":
        return {f"{name}.tar": encode_tar(ordered, classes)}
    paths = [folder_path(row) for row in ordered]
    index = table_of(ordered, _INDEX_SCHEMA.remove(0)).add_column(
        0, _INDEX_SCHEMA.field(0), pa.array(paths, pa.string())
    )
    files = {path: row.image for path, row in zip(paths, ordered, strict=True)}
    return files | {f"{name}.parquet": _parquet(index, classes)}


def read_rows(shard: bytes, *, format: ShardFormat) -> list[Row]:
    """The rows of a Parquet or tar shard, in its order; nothing is extracted to disk.

    Raises:
        InputError: not such a shard.
    """
    if format == "webdataset":
        return read_tar(shard)
    return [row_of(fields) for fields in _read_table(shard, SCHEMA).to_pylist()]


def read_folder_index(index: bytes) -> dict[str, Row]:
    """path -> row of a folder shard; the rows' `image` is empty, it lies in the file at that path.

    Raises:
        InputError: not such an index.
    """
    records = _read_table(index, _INDEX_SCHEMA).to_pylist()
    return {record.pop("path"): row_of({**record, "image": b""}) for record in records}


def encode_quarantine(rows: Sequence[QuarantineRow]) -> bytes:
    """The quarantine of one unit as Parquet, by image_id, uri and stage."""
    ordered = sorted(rows, key=lambda row: (row.image_id, row.uri, row.stage, row.error_type, row.message))
    columns = {name: [getattr(row, name) for row in ordered] for name in QUARANTINE_SCHEMA.names}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=QUARANTINE_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def folder_path(row: Row) -> str:
    """Where a row's file lies in a folder shard, relative, with "/": [split/][class/]stem.ext."""
    folders = [safe_name(name) for name in (row.split, row.class_name) if name]
    return "/".join([*folders, f"{stem(row)}.{extension(row.format)}"])


def safe_name(name: str) -> str:
    """The name as one path component; what a file system cannot hold is %-escaped, so two names never meet."""
    return re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|%]|^\.|[. ]$', _escaped, name)


def _escaped(found: re.Match[str]) -> str:
    return quote(found[0], safe="").replace(".", "%2E")


def _parquet(table: pa.Table, classes: Sequence[str]) -> bytes:
    """Row groups of at most ROW_GROUP_BYTES of images (or one larger image)."""
    schema = table.schema.with_metadata({CLASSES_KEY: classes_json(classes)})
    plain = [field.name for field in schema if not pa.types.is_nested(field.type) and field.name not in _OPAQUE]
    compression = {path: "none" if path in _OPAQUE else "zstd" for path in _leaves(schema)}
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer, schema, use_dictionary=plain, write_statistics=plain, compression=compression
    ) as writer:
        for start, length in _row_groups(table):
            writer.write_table(table.slice(start, length).cast(schema), row_group_size=length)
    return buffer.getvalue()


def _leaves(schema: pa.Schema) -> list[str]:
    """The columns as Parquet names them, such as boxes.list.element.x_min."""
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    stored = pq.ParquetFile(empty).schema
    return [stored.column(index).path for index in range(len(stored))]


def _row_groups(table: pa.Table) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of each group; none for an empty table, one for a table without images."""
    images = table.column("image") if "image" in table.column_names else ()
    start, num_bytes = 0, 0
    for row, image in enumerate(images):
        size = len(image.as_buffer())
        if row > start and num_bytes + size > ROW_GROUP_BYTES:
            yield start, row - start
            start, num_bytes = row, 0
        num_bytes += size
    if start < table.num_rows:
        yield start, table.num_rows - start


def _read_table(parquet: bytes, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(parquet)).select(schema.names)
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"not a Parquet shard of vtray ({len(parquet)} bytes): {error}") from error
