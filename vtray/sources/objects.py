"""The objects of an input: the place that was listed, what a format found in it, and how to open one object."""

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TypeVar

from vtray.errors import StorageMissing
from vtray.sources.unit import ImageRef
from vtray.storage import S3_BLOCK_BYTES, Entry, Storage, is_local, join_uri, open_storage

REMOTE_THREADS = 8  # requests in flight against a remote store; each one mostly waits

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A listed input: keys of `entries` are relative to `storage`; image ids begin there."""

    storage: Storage
    entries: tuple[Entry, ...]

    def uri(self, entry: Entry) -> str:
        return join_uri(self.storage.uri, entry.key)

    def map(self, plan: Callable[[Entry], T], entries: Sequence[Entry]) -> list[T]:
        """`plan` of every entry in order; remote objects are looked at several at a time."""
        if self.storage.is_local or len(entries) < 2:
            return [plan(entry) for entry in entries]
        with ThreadPoolExecutor(REMOTE_THREADS) as pool:
            return list(pool.map(plan, entries))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a format made of a place: references (still without label), the objects used, the names passed over."""

    format: str
    refs: Sequence[ImageRef]
    inputs: Sequence[Entry]
    skipped: Sequence[str] = ()


def suffix(key: str) -> str:
    """The extension of a key's file name in lower case with its dot, or nothing."""
    return os.path.splitext(key)[1].lower()  # noqa: PTH122 (keys are no paths of this machine)


def is_hidden(key: str) -> bool:
    """Whether a key names what operating systems strew about: dot files, __MACOSX, Thumbs.db."""
    parts = key.split("/")
    return parts[-1] == "Thumbs.db" or any(part.startswith(".") or part == "__MACOSX" for part in parts)


def sift(entries: Iterable[Entry], suffixes: Iterable[str]) -> tuple[list[Entry], list[str]]:
    """The visible entries with one of the extensions, and the keys of all others."""
    wanted, others = [], []
    for entry in entries:
        if suffix(entry.key) in suffixes and not is_hidden(entry.key):
            wanted.append(entry)
        else:
            others.append(entry.key)
    return wanted, others


def storage_for(uri: str) -> tuple[Storage, str]:
    """The storage that holds an absolute address and the key in it; one storage per bucket and process."""
    if is_local(uri):
        return _storage("/"), uri.lstrip("/")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return _storage(f"s3://{bucket}"), key


@lru_cache(maxsize=16)
def _storage(root: str) -> Storage:
    return open_storage(root)


def find_entry(storage: Storage, key: str) -> Entry | None:
    """One object as a listing would show it, without listing its neighbours; None if it is not there."""
    if not storage.is_local:
        return next((entry for entry in storage.list(key) if entry.key == key), None)
    try:
        with storage.open(key) as file:
            status = os.fstat(file.fileno())
    except StorageMissing:
        return None
    return Entry(key, status.st_size, str(status.st_mtime_ns))


def open_object(storage: Storage, key: str) -> IO[bytes]:
    """An object as a seekable file whose reads are retried like every other storage request."""
    file = storage.open(key)
    if storage.is_local:
        return file
    with file:
        size = file.seek(0, io.SEEK_END)
    return io.BufferedReader(RangeFile(storage, key, size=size), S3_BLOCK_BYTES)


class RangeFile(io.RawIOBase):
    """A remote object read by ranges; faults are StorageError, so they differ from a broken file's OSError."""

    def __init__(self, storage: Storage, key: str, *, size: int) -> None:
        self._storage, self._key, self._size, self._position = storage, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        content = self._storage.read(self._key, start=self._position, end=end)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
