"""Reading a unit on a worker: the encoded bytes of every reference, or the reason why there are none."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from vtray.errors import ImageError, StorageDenied, StorageMissing
from vtray.sources import tar
from vtray.sources.objects import REMOTE_THREADS, storage_for
from vtray.sources.unit import ImageRef, Unit
from vtray.storage import Storage, is_local

FAULTS = {
    "missing": "there is no such object any more",
    "denied": "storage gave no permission to read it",
    "empty": "it holds no bytes",
    "truncated": "the shard ends before the image does",
    "unreadable_row": "the Parquet row holds no image, or its row group is broken",
    "truncated_shard": "the tar shard is broken here; what follows is lost",
    "bad_label": "the label beside the image is no valid JSON or text",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceImage:
    """One image as it is stored: its encoded bytes or, exactly one of both, the error (stage read)."""

    ref: ImageRef
    encoded: bytes | None
    error: ImageError | None = None


def read_unit(unit: Unit) -> Iterator[SourceImage]:
    """Every image of a unit, in the order of its references, which is by image_id.

    Raises: StorageError for faults that may pass; the unit should then be tried again as a whole.
    """
    early: dict[str, SourceImage] = {}  # read before its turn, where storage has another order
    stored = _read_in_place(sorted(unit.refs, key=attrgetter("place")))
    for ref in unit.refs:
        while ref.image_id not in early:
            image = next(stored)
            early[image.ref.image_id] = image
        yield early.pop(ref.image_id)


def _read_in_place(refs: Sequence[ImageRef]) -> Iterator[SourceImage]:
    for (kind, _), group in groupby(refs, key=_reader):
        members = list(group)
        if kind == "fault":
            yield from (_failed(ref, ref.fault or "") for ref in members)
        elif kind == "file":
            yield from _read_files(members)
        else:
            yield from _read_inside(members, kind=kind)


def _reader(ref: ImageRef) -> tuple[str, str]:
    """What reads a reference, and the object it has to stay with."""
    if ref.fault:
        return "fault", ""
    if ref.row is not None:
        return "parquet", ref.uri
    return ("tar", ref.uri) if ref.offset is not None else ("file", "")


def _failed(ref: ImageRef, reason: str) -> SourceImage:
    message = f"{ref.image_id}: {FAULTS[reason]} ({ref.uri})"
    return SourceImage(ref=ref, encoded=None, error=ImageError("read", reason, message))


def _read_files(refs: Sequence[ImageRef]) -> Iterator[SourceImage]:
    """Whole objects; remote ones are asked for some images ahead, because each request mostly waits."""
    if all(is_local(ref.uri) for ref in refs):
        yield from map(_read_file, refs)
        return
    waiting: deque[Future[SourceImage]] = deque()
    with ThreadPoolExecutor(REMOTE_THREADS) as pool:
        for ref in refs:
            waiting.append(pool.submit(_read_file, ref))
            if len(waiting) > REMOTE_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_file(ref: ImageRef) -> SourceImage:
    storage, key = storage_for(ref.uri)
    try:
        encoded = storage.read(key)
    except StorageMissing:
        return _failed(ref, "missing")
    except StorageDenied:
        return _failed(ref, "denied")
    return SourceImage(ref=ref, encoded=encoded) if encoded else _failed(ref, "empty")


def _read_inside(refs: Sequence[ImageRef], *, kind: str) -> Iterator[SourceImage]:
    """Images inside one tar or Parquet file; if the file itself cannot be had, all of them fail."""
    storage, key = storage_for(refs[0].uri)
    done = 0
    try:
        for image in _read_tar(storage, key, refs) if kind == "tar" else _read_parquet(storage, key, refs):
            done += 1
            yield image
    except StorageMissing:
        yield from (_failed(ref, "missing") for ref in refs[done:])
    except StorageDenied:
        yield from (_failed(ref, "denied") for ref in refs[done:])


def _read_tar(storage: Storage, key: str, refs: Sequence[ImageRef]) -> Iterator[SourceImage]:
    for ref, encoded in tar.read_members(storage, key, refs):
        if len(encoded) < ref.num_bytes:
            yield _failed(ref, "truncated")
        else:
            yield SourceImage(ref=ref, encoded=encoded) if encoded else _failed(ref, "empty")


def _read_parquet(storage: Storage, key: str, refs: Sequence[ImageRef]) -> Iterator[SourceImage]:
    from vtray.sources import parquet  # pyarrow takes half a second that folders and tars need not pay

    for ref, encoded in parquet.read_rows(storage, key, refs):
        yield SourceImage(ref=ref, encoded=encoded) if encoded else _failed(ref, "unreadable_row")
