"""Activations at the frozen boundary on disk: the key of a cache, its files, and reading them memory-mapped.

A file is uncompressed Arrow IPC with one row per image and view, so a row is read by copying its bytes and nothing
else. N images, V views of each.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vtray.errors import InputError, StorageError
from vtray.manifest import MANIFEST, Json, Ledger, sha256
from vtray.storage import Storage, join_uri, local_path, open_storage

DType = Literal["fp16", "bf16", "uint8"]  # uint8: crops, which no stage has seen yet
DTYPES: dict[DType, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "uint8": torch.uint8}
BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.uint8: torch.uint8}  # what NumPy holds
IN_MEMORY_BYTES = 1 << 30  # a split below this is better held than mapped
FETCH_THREADS = 8

Bits = NDArray[np.int16] | NDArray[np.uint8]  # of fp16 and bf16 the bit patterns

_ACTIVATION_KEY = b"vtray.activation"  # schema metadata: shape and dtype of one row as JSON
_BOOKS = (
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("view", pa.int32(), nullable=False),
    pa.field("label", pa.int32()),
    pa.field("split", pa.string()),
    pa.field("source_sha256", pa.string(), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRow:
    """Whose activation a row holds. view: 0 is the plain image, others are the recipe's variants."""

    image_id: str
    view: int
    label: int | None
    split: str | None
    source_sha256: str


def encode_file(rows: Sequence[CachedRow], activations: Tensor) -> bytes:
    """The file of these rows; equal rows give equal bytes.

    activations: fp16, bf16 or uint8 (rows, ...) on the CPU.
    """
    shape = tuple(activations.shape[1:])
    (dtype,) = (name for name, kind in DTYPES.items() if kind == activations.dtype)
    values = activations.contiguous().view(BITS[activations.dtype]).numpy()
    kind = pa.binary(activations.itemsize * int(np.prod(shape)))
    columns = [pa.array([getattr(row, book.name) for row in rows], book.type) for book in _BOOKS]
    columns.append(pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(values)]))
    about = json.dumps({"shape": shape, "dtype": dtype}).encode()
    schema = pa.schema([*_BOOKS, pa.field("activation", kind, nullable=False)], {_ACTIVATION_KEY: about})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations:
    """The cached activations of one split, by image_id.

    image_ids: N. labels: int64 (N,), -1 for an image without one. num_views: V, at least 1. shape: of one row.
    dtype: fp16 or bf16.
    """

    image_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    num_views: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    _values: tuple[Bits, ...] = field(repr=False)  # per file (rows, items)
    _places: NDArray[np.int64] = field(repr=False)  # (N, V, 2): file, row

    @classmethod
    def open(cls, uri: str, split: str | None, *, local: str | None = None) -> Self:
        """The images of `split` in the finished cache at `uri`, mapped from its files.

        local: the folder to which files of S3 are copied, once; default: one below the temporary folder.
        Raises: InputError if the cache is not finished or has no image of this split; StorageError for damage.
        """
        files = [_MappedFile.open(path) for path in _local_files(uri, local)]
        return cls._of(files, uri, split)

    @classmethod
    def load(cls, uri: str, split: str | None, *, local: str | None = None) -> Self:
        """As `open`, and held in memory if that takes less than IN_MEMORY_BYTES."""
        mapped = cls.open(uri, split, local=local)
        return mapped.in_memory() if mapped.num_bytes < IN_MEMORY_BYTES else mapped

    @classmethod
    def _of(cls, files: Sequence["_MappedFile"], uri: str, split: str | None) -> Self:
        places: defaultdict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
        labels: dict[str, int | None] = {}
        for number, file in enumerate(files):
            for index, row in enumerate(file.rows):
                if row.split == split:
                    places[row.image_id][row.view] = (number, index)
                    labels[row.image_id] = row.label
        if not places:
            splits = sorted({str(row.split) for file in files for row in file.rows})
            raise InputError(f"{uri}: no cached image of split {split}; it has {', '.join(splits) or 'none'}")
        ids = sorted(places)
        num_views = len(places[ids[0]])
        if any(set(views) != set(range(num_views)) for views in places.values()):
            raise StorageError(f"{uri}: a view of an image is missing; delete the folder, it will be made again")
        return cls(
            image_ids=tuple(ids),
            labels=np.array([-1 if (label := labels[name]) is None else label for name in ids], np.int64),
            num_views=num_views,
            shape=files[0].shape,
            dtype=files[0].dtype,
            _values=tuple(file.values for file in files),
            _places=np.array([[places[name][view] for view in range(num_views)] for name in ids], np.int64),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def num_bytes(self) -> int:
        """Of all rows of this split."""
        return len(self) * self.num_views * self.dtype.itemsize * int(np.prod(self.shape))

    def indexes_of(self, image_ids: Iterable[str]) -> NDArray[np.int64]:
        """Where these images are. Raises: InputError naming those that are not cached."""
        known = {name: index for index, name in enumerate(self.image_ids)}
        wanted = list(image_ids)
        missing = [name for name in wanted if name not in known]
        if missing:
            raise InputError(f"{len(missing)} images are not in the prefix cache, such as {missing[0]!r}")
        return np.array([known[name] for name in wanted], np.int64)

    def rows(self, indexes: ArrayLike, view: ArrayLike = 0) -> Tensor:
        """The activations (n, *shape) of n images, a copy of these rows only.

        indexes: int (n,). view: one for all, or int (n,), 0 <= view < num_views. Raises: IndexError.
        """
        places = self._places[np.asarray(indexes, np.int64), np.asarray(view, np.int64)]
        if len(self._values) == 1:
            return self._tensor(self._values[0].take(places[:, 1], axis=0))
        values = np.empty((len(places), self._values[0].shape[1]), self._values[0].dtype)
        for to, (file, row) in enumerate(places.tolist()):  # one memory copy each: faster than to sort by file
            values[to] = self._values[file][row]
        return self._tensor(values)

    def in_memory(self) -> Self:
        """The same rows in one piece of memory, from which a batch is gathered by one call."""
        order = np.arange(len(self) * self.num_views).reshape(len(self), self.num_views)
        every = np.indices(order.shape).reshape(2, -1)
        values = self.rows(*every).flatten(1).view(BITS[self.dtype]).numpy()
        places = np.stack([np.zeros_like(order), order], axis=-1)
        return replace(self, _values=(values,), _places=places)

    def _tensor(self, values: Bits) -> Tensor:
        return torch.from_numpy(values).view(self.dtype).reshape(len(values), *self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class _MappedFile:
    """One file of a cache; `values` are its bytes on disk."""

    rows: tuple[CachedRow, ...]
    values: Bits
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises: StorageError for a file that is not one of ours."""
        try:
            with pa.memory_map(str(path)) as file:  # closed, it stays mapped while its values are in use
                batch = pa.ipc.open_file(file).get_batch(0)
            about = json.loads(batch.schema.metadata[_ACTIVATION_KEY])
        except (pa.ArrowException, OSError, LookupError, TypeError) as error:
            raise StorageError(f"{path}: no file of activations ({error}); delete the cache's folder") from error
        kind = np.uint8 if about["dtype"] == "uint8" else np.int16
        bits: Bits = np.frombuffer(batch.column("activation").buffers()[1], kind)  # type: ignore[assignment]
        items = int(np.prod(about["shape"]))
        return cls(
            rows=tuple(CachedRow(**row) for row in batch.select([book.name for book in _BOOKS]).to_pylist()),
            values=bits[: items * batch.num_rows].reshape(batch.num_rows, items),
            shape=tuple(about["shape"]),
            dtype=DTYPES[about["dtype"]],
        )


def _local_files(uri: str, local: str | None) -> list[Path]:
    """The data files of a finished cache, all of them on this machine and of the promised size."""
    storage = open_storage(uri)
    ledger = Ledger(storage)
    manifest = ledger.read_json(MANIFEST) if ledger.is_complete() else None
    if manifest is None:
        raise InputError(f"{uri}: no finished prefix cache; build it first")
    folder = local_path(uri) if storage.is_local else _fetch(storage, manifest["files"], local)
    paths = [folder / record["key"] for record in manifest["files"]]
    for path, record in zip(paths, manifest["files"], strict=True):
        if not path.is_file() or path.stat().st_size != record["bytes"]:
            raise StorageError(f"{path}: missing or cut short; delete the folder {uri}, it will be made again")
    return paths


def _fetch(storage: Storage, files: Sequence[Json], local: str | None) -> Path:
    """Copy what is not there yet; a file's name tells its content, so one that is there is right."""
    folder = local or join_uri(gettempdir(), f"vtray-activations/{storage.uri.rpartition('/')[2]}")
    kept = open_storage(folder)
    there = {entry.key: entry.size for entry in kept.list()}

    def copy(record: Json) -> None:
        content = storage.read(record["key"])
        if sha256(content) != record["sha256"]:
            raise StorageError(f"{storage.uri}/{record['key']}: damaged; delete the folder {storage.uri}")
        kept.put(record["key"], content)

    missing = [record for record in files if there.get(record["key"]) != record["bytes"]]
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        list(pool.map(copy, missing))
    return local_path(folder)
