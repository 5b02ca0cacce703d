"""One door to files and objects: local folders and s3:// behind the same few verbs.

Objects appear whole or not at all: a local put is temporary file, fsync, rename; an S3 put is one request. Nothing
is renamed on S3, listings are never cached, and throttled requests are retried with growing, jittered pauses.
"""

import errno
import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from vtray.errors import ConfigError, StorageDenied, StorageError, StorageMissing

SCRATCH = "_vtray/tmp"  # where local puts are prepared; never listed, never part of an output
S3_ATTEMPTS = 8
S3_BLOCK_BYTES = 4 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed object: key below the root, bytes, and a version that changes with the content (etag, mtime)."""

    key: str
    size: int
    version: str


class Storage(Protocol):
    """A root folder or prefix; keys are relative to it and use forward slashes."""

    uri: str
    is_local: bool

    def list(self, prefix: str = "") -> list[Entry]:
        """All objects whose key starts with the folder `prefix`, recursively, sorted by key; empty if none."""

    def read(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or bytes [start, end). Raises: StorageMissing, StorageDenied, StorageError."""

    def open(self, key: str) -> IO[bytes]:
        """The object as a seekable binary file for reading."""

    def put(self, key: str, content: bytes) -> None:
        """Write the object whole, replacing an older one; readers see the old or the new bytes only."""

    def create(self, key: str, content: bytes) -> bool:
        """Write the object whole only if there is none; False if there was one (which is left as it is)."""

    def exists(self, key: str) -> bool:
        """Whether the object is there now."""

    def delete(self, key: str) -> None:
        """Remove the object; a missing one is fine."""

    def clear_scratch(self) -> None:
        """Remove what killed processes left in the scratch folder."""

    def arrow_filesystem(self) -> tuple[Any, str]:
        """A pyarrow filesystem and the root path in it, for readers such as Ray Data and pyarrow.parquet."""


def open_storage(uri: str) -> Storage:
    """The storage at a local path, file:// or s3:// address. Raises: ConfigError for any other scheme."""
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme in ("", "file"):
        return LocalStorage(local_path(uri))
    if scheme == "s3":
        return S3Storage(uri)
    raise ConfigError(f"{uri}: storage {scheme}:// is not known; allowed: a local path, file://, s3://")


def is_local(uri: str) -> bool:
    """Whether an address names this machine's own file system."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The absolute path of a local address."""
    text = unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
    return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 (resolve() would follow links)


def absolute_uri(uri: str) -> str:
    """The same place by a name that holds in any working directory."""
    if is_local(uri):
        return str(local_path(uri))
    scheme, _, path = uri.partition("://")
    return f"{scheme}://{path.rstrip('/')}"


def join_uri(root: str, key: str) -> str:
    """The address of `key` below `root`; an absolute `key` stays as it is."""
    if "://" in key or key.startswith("/"):
        return key
    return f"{root.rstrip('/')}/{key}"


def read_uri(uri: str) -> bytes:
    """The bytes of one object by its full address. Raises: as Storage.read."""
    if is_local(uri):
        path = local_path(uri)
        return LocalStorage(path.parent).read(path.name)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return _bucket(bucket).read(key)


@lru_cache(maxsize=16)
def _bucket(name: str) -> "S3Storage":
    return S3Storage(f"s3://{name}")


class LocalStorage:
    """A folder of this machine or of a shared mount."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.uri = str(root)
        self._root = root

    def __repr__(self) -> str:
        return f"LocalStorage({self.uri!r})"

    def list(self, prefix: str = "") -> list[Entry]:
        base = self._root / prefix if prefix else self._root
        with _local_errors(base):
            if not base.is_dir():
                return []
            return sorted(_walk(base, prefix.strip("/")), key=lambda entry: entry.key)

    def read(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        path = self._root / key
        with _local_errors(path), path.open("rb") as file:
            if start is None:
                return file.read()
            file.seek(start)
            return file.read(-1 if end is None else end - start)

    def open(self, key: str) -> IO[bytes]:
        path = self._root / key
        with _local_errors(path):
            return path.open("rb")

    def put(self, key: str, content: bytes) -> None:
        with _local_errors(self._root / key):
            try:
                self._prepare(key, content).replace(self._root / key)
            except FileNotFoundError:  # another driver cleared the scratch folder between the two steps
                self._prepare(key, content).replace(self._root / key)
            _fsync_folder((self._root / key).parent)

    def create(self, key: str, content: bytes) -> bool:
        path = self._root / key
        with _local_errors(path):
            prepared = self._prepare(key, content)
            try:
                _link_new(prepared, path)
            except FileExistsError:
                return False
            finally:
                prepared.unlink(missing_ok=True)
            _fsync_folder(path.parent)
        return True

    def exists(self, key: str) -> bool:
        return (self._root / key).is_file()

    def delete(self, key: str) -> None:
        with _local_errors(self._root / key):
            (self._root / key).unlink(missing_ok=True)

    def clear_scratch(self) -> None:
        shutil.rmtree(self._root / SCRATCH, ignore_errors=True)

    def arrow_filesystem(self) -> tuple[Any, str]:
        from pyarrow import fs

        return fs.LocalFileSystem(), self.uri

    def _prepare(self, key: str, content: bytes) -> Path:
        """The bytes as a durable file in the scratch folder; the final folder exists afterwards."""
        (self._root / key).parent.mkdir(parents=True, exist_ok=True)
        prepared = self._root / SCRATCH / uuid.uuid4().hex
        prepared.parent.mkdir(parents=True, exist_ok=True)
        with prepared.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return prepared


def _walk(folder: Path, prefix: str, *, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Entry]:
    """Files below a folder; symlinks are followed, but never back into a folder that they lie in."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above or prefix == SCRATCH:
        return
    with os.scandir(folder) as items:
        for item in items:
            key = f"{prefix}/{item.name}" if prefix else item.name
            if _is_broken_link(item):
                continue
            if item.is_dir():
                yield from _walk(Path(item.path), key, above=above | {identity})
            elif item.is_file():
                found = item.stat()
                yield Entry(key, found.st_size, str(found.st_mtime_ns))


def _is_broken_link(item: os.DirEntry[str]) -> bool:
    """Whether a symlink leads nowhere, or to itself, which is_dir() would raise for."""
    return item.is_symlink() and not Path(item.path).exists()


def _link_new(prepared: Path, path: Path) -> None:
    """Give a prepared file its final name; unlike rename, link refuses to replace. Raises: FileExistsError.

    Mounts without hard links (FUSE, exFAT) get a look and a rename: whole as well, exclusive but for a small gap.
    """
    try:
        os.link(prepared, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        prepared.replace(path)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours, with the path and the remedy."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise StorageMissing(f"{path}: no such file") from error
    except PermissionError as error:
        raise StorageDenied(f"{path}: no permission; check its owner and mode") from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


class S3Storage:
    """A prefix of a bucket; credentials and endpoint come from the environment as in every AWS client."""

    is_local = False

    def __init__(self, uri: str) -> None:
        import s3fs

        self.uri = uri.rstrip("/")
        self._root = uri.removeprefix("s3://").strip("/")
        if not self._root:
            raise ConfigError(f"{uri}: no bucket; write s3://bucket/prefix")
        self._fs = s3fs.S3FileSystem(
            use_listings_cache=False,  # a cached listing hides new objects, even from exists()
            skip_instance_cache=True,
            config_kwargs={"retries": {"max_attempts": 5, "mode": "standard"}},
        )

    def __repr__(self) -> str:
        return f"S3Storage({self.uri!r})"

    def list(self, prefix: str = "") -> list[Entry]:
        base = self._path(prefix) if prefix else self._root
        try:
            found = self._retry("list", prefix, lambda: self._fs.find(base, detail=True))
        except StorageMissing:
            return []
        start = len(self._root) + 1
        entries = (
            Entry(path[start:], item["size"], item.get("ETag", "").strip('"')) for path, item in found.items()
        )
        return sorted((e for e in entries if e.key and not e.key.endswith("/")), key=lambda entry: entry.key)

    def read(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        content: bytes = self._retry("read", key, lambda: self._fs.cat_file(self._path(key), start=start, end=end))
        return content

    def open(self, key: str) -> IO[bytes]:
        file: IO[bytes] = self._retry(
            "open", key, lambda: self._fs.open(self._path(key), "rb", block_size=S3_BLOCK_BYTES)
        )
        return file

    def put(self, key: str, content: bytes) -> None:
        self._retry("put", key, lambda: self._fs.pipe_file(self._path(key), content))

    def create(self, key: str, content: bytes) -> bool:
        try:
            self._retry("create", key, lambda: self._fs.pipe_file(self._path(key), content, mode="create"))
        except FileExistsError:
            return False
        return True

    def exists(self, key: str) -> bool:
        return bool(self._retry("look up", key, lambda: self._fs.exists(self._path(key))))

    def delete(self, key: str) -> None:
        try:
            self._retry("delete", key, lambda: self._fs.rm_file(self._path(key)))
        except StorageMissing:
            return

    def clear_scratch(self) -> None:
        """Nothing to do: an S3 put has no temporary object."""

    def arrow_filesystem(self) -> tuple[Any, str]:
        from pyarrow import fs

        return fs.PyFileSystem(fs.FSSpecHandler(self._fs)), self._root

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _retry(self, verb: str, key: str, call: Callable[[], T]) -> T:
        return with_retries(call, what=f"{verb} {join_uri(self.uri, key)}")


def with_retries(call: Callable[[], T], *, what: str, attempts: int = S3_ATTEMPTS, base_s: float = 0.1) -> T:
    """Run a storage request; a passing fault (503, time-out, reset connection) is tried again after a pause.

    Pauses grow from `base_s` to 10 s and are jittered, so workers throttled together do not return together.
    Raises: StorageMissing, StorageDenied at once; FileExistsError as it is; StorageError after `attempts` tries.
    """
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    jitter = random.SystemRandom()
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            raise StorageMissing(f"{what}: no such object or bucket") from error
        except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
            raise StorageDenied(f"{what}: {error}; check credentials and the bucket's policy") from error
        except (OSError, BotoCoreError, ClientError, aiohttp.ClientError) as error:
            if "PreconditionFailed" in str(error) or "At least one of the pre-conditions" in str(error):
                raise FileExistsError(what) from error  # stores that do not name the condition in their 412
            if attempt == attempts:
                raise StorageError(f"{what}: failed {attempts} times, last with: {error}") from error
            time.sleep(jitter.uniform(0.5, 1) * min(10, base_s * 2**attempt))
    raise AssertionError("unreachable")
