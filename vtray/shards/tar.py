"""webdataset shards: a tar with KEY.jpg (or png, webp), KEY.cls, KEY.mask.png and KEY.json for each row.

The class list is the first member, `__classes__`: webdataset readers pass over names between double underscores.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vtray.errors import InputError
from vtray.shards.rows import SCHEMA, Row, classes_json, extension, row_of, stem

CLASSES_MEMBER = "__classes__"

_IN_JSON = tuple(name for name in SCHEMA.names if name not in ("image", "mask"))


def encode_tar(rows: Sequence[Row], classes: Sequence[str]) -> bytes:
    """The tar of rows that are sorted already; USTAR, every member with time 0, owner 0 and mode 644."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, CLASSES_MEMBER, classes_json(classes))
        for row in rows:
            for suffix, content in _members(row):
                _add(tar, f"{stem(row)}.{suffix}", content)
    return buffer.getvalue()


def read_tar(shard: bytes) -> list[Row]:
    """The rows of a tar that `encode_tar` made.

    Raises:
        InputError: not a tar, or a row without image or JSON.
    """
    samples: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(shard), mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                key, _, suffix = member.name.partition(".")
                if file is not None and suffix:
                    samples.setdefault(key, {})[suffix] = file.read()
        return [_row(members) for members in samples.values()]
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a vtray tar shard ({len(shard)} bytes): {error!r}") from error


def _members(row: Row) -> Iterator[tuple[str, bytes]]:
    yield extension(row.format), row.image
    if row.label is not None:
        yield "cls", str(row.label).encode()
    if row.mask is not None:
        yield "mask.png", row.mask
    yield "json", json.dumps(_json_fields(row), sort_keys=True, ensure_ascii=False).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # time, owner and group are 0 and mode is 644 unless set
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _json_fields(row: Row) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in _IN_JSON}
    if row.soft_label is not None:
        fields["soft_label"] = [_as_float32(weight) for weight in row.soft_label]
    if row.boxes is not None:
        fields["boxes"] = [
            {side: value if side == "label" else _as_float32(value) for side, value in box.items()}
            for box in row.boxes
        ]
    return fields


def _as_float32(value: Any) -> float:
    """The number that Parquet would store, so that both formats give back the same."""
    return float(np.float32(value))


def _row(members: dict[str, bytes]) -> Row:
    fields = json.loads(members["json"])
    image = members[extension(fields["format"])]
    return row_of({**fields, "image": image, "mask": members.get("mask.png")})
