"""Parquet files with encoded images in a column (ours, Hugging Face's, others') or with their addresses.

The plan reads footers and small columns only; a unit reads its row groups.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from vtray.errors import InputError
from vtray.sources.labels import class_name_of
from vtray.sources.listing import ListedImage, find_named, listed_image, stored_id, uri_column
from vtray.sources.objects import Found, Place, open_object, sift
from vtray.sources.unit import ImageRef
from vtray.storage import Entry, Storage

SUFFIXES = (".parquet", ".pq")
IMAGE_COLUMNS = ("image", "bytes", "jpg", "img")
LABEL_COLUMNS = ("image_id", "variant", "label", "class_name", "split")
ROWS_PER_BATCH = 64
BUFFER_BYTES = 8 << 20

Row = Mapping[str, Any]


def find_rows(place: Place) -> Found:
    """The images of all Parquet files of a place. Raises: InputError for a broken file or one without images."""
    files, others = sift(place.entries, SUFFIXES)
    plans = place.map(partial(_plan_file, place), files)
    refs = [item for plan in plans for item in plan if isinstance(item, ImageRef)]
    listed = [item for plan in plans for item in plan if isinstance(item, ListedImage)]
    if refs and listed:
        raise InputError(
            f"{place.storage.uri}: some Parquet files hold images, others only addresses; separate them"
        )
    if listed:
        return find_named(place, listed, inputs=files, skipped=others)
    return Found(format="parquet", refs=refs, inputs=files, skipped=others)


def _plan_file(place: Place, entry: Entry) -> Sequence[ImageRef] | Sequence[ListedImage]:
    uri = place.uri(entry)
    try:
        with open_object(place.storage, entry.key) as file:
            return _plan_rows(place, entry, parquet.ParquetFile(file))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{uri}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


def _plan_rows(place: Place, entry: Entry, file: Any) -> Sequence[ImageRef] | Sequence[ListedImage]:
    schema, uri = file.schema_arrow, place.uri(entry)
    names = _class_names(schema)
    if image_column(schema):
        return _refs(place, entry, file, names)
    column = uri_column(schema.names)
    if column is None:
        raise InputError(
            f"{uri}: no column with images ({', '.join(IMAGE_COLUMNS)}: binary or struct with bytes) "
            f"or addresses (uri, url, path); it has: {', '.join(schema.names)}"
        )
    rows = _small_rows(file, (column, *LABEL_COLUMNS))
    return [
        listed_image(row, list_uri=uri, where=f"{uri} row {index}", names=names) for index, row in enumerate(rows)
    ]


def image_column(schema: Any) -> str | None:
    """The path of the column with encoded images: `image`, or `image.bytes` in Hugging Face's structs."""
    for name in IMAGE_COLUMNS:
        if name in schema.names and (path := _binary_path(schema.field(name))):
            return path
    return None


def _binary_path(field: Any) -> str | None:
    if pa.types.is_struct(field.type):
        inner = field.type.get_field_index("bytes")
        is_image = inner >= 0 and _is_binary(field.type.field(inner).type)
        return f"{field.name}.bytes" if is_image else None
    return field.name if _is_binary(field.type) else None


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: Any) -> Sequence[str]:
    """Names of integer labels as Hugging Face datasets stores them in the schema, else none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _small_rows(file: Any, columns: Sequence[str]) -> list[Row]:
    present = [name for name in columns if name in file.schema_arrow.names]
    if not present:
        return [{}] * file.metadata.num_rows
    rows: list[Row] = file.read(columns=present, use_threads=False).to_pylist()
    return rows


def _refs(place: Place, entry: Entry, file: Any, names: Sequence[str]) -> list[ImageRef]:
    rows = _small_rows(file, LABEL_COLUMNS)
    refs = []
    for index, (row, (group, number, size)) in enumerate(zip(rows, _places(file), strict=True)):
        refs.append(
            ImageRef(
                image_id=stored_id(row) or f"{entry.key}:{index}",
                uri=place.uri(entry),
                num_bytes=size,
                version=entry.version,
                class_name=class_name_of(row.get("class_name")) or class_name_of(row.get("label"), names),
                split=str(row["split"]) if row.get("split") else None,
                row_group=group,
                row=number,
            )
        )
    return refs


def _places(file: Any) -> Iterator[tuple[int, int, int]]:
    """Row group, row in it and average image size in bytes, for every row of the file."""
    path = image_column(file.schema_arrow)
    for group in range(file.metadata.num_row_groups):
        found = file.metadata.row_group(group)
        chunks = (found.column(index) for index in range(found.num_columns))
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == path)
        for row in range(found.num_rows):
            yield group, row, size // found.num_rows


def read_rows(storage: Storage, key: str, refs: Sequence[ImageRef]) -> Iterator[tuple[ImageRef, bytes | None]]:
    """The images of some rows of one file, sorted by place; None where the row is empty or its group is broken.

    Raises: as Storage.open and Storage.read.
    """
    with open_object(storage, key) as source:
        try:
            file = parquet.ParquetFile(source, buffer_size=BUFFER_BYTES)
        except (pa.ArrowException, OSError):
            yield from ((ref, None) for ref in refs)
            return
        for group, members in groupby(refs, key=lambda ref: ref.row_group):
            yield from _read_group(file, group or 0, list(members))


def _read_group(file: Any, group: int, refs: Sequence[ImageRef]) -> Iterator[tuple[ImageRef, bytes | None]]:
    waiting = list(reversed(refs))
    try:
        for first, images in _batches(file, group):
            while waiting and (row := waiting[-1].row or 0) < first + len(images):
                yield waiting.pop(), images[row - first].as_py()
            if not waiting:
                return  # what follows in the group is another unit's
    except (pa.ArrowException, OSError, IndexError):
        pass  # a broken page: this row and those behind it are lost
    yield from ((ref, None) for ref in reversed(waiting))


def _batches(file: Any, group: int) -> Iterator[tuple[int, Any]]:
    """Runs of images of one row group with the number of their first row."""
    path = image_column(file.schema_arrow) or ""
    batches = file.iter_batches(ROWS_PER_BATCH, row_groups=[group], columns=[path], use_threads=False)
    first = 0
    for batch in batches:
        column = batch.column(0)
        yield first, column.field("bytes") if pa.types.is_struct(column.type) else column
        first += len(column)
