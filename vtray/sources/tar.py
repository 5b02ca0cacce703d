"""webdataset tar shards: members with one key are one sample, `shard.tar/key` is its image_id.

A shard is indexed by its headers; images are read later by byte range, neighbours in one request.
Source: webdataset's grouping (key = name up to the first dot of the base name); unlike it, members of a key need
not follow each other, and a shard cut short keeps its readable images and adds one failing reference.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

from vtray.errors import InputError, StorageMissing
from vtray.sources.folder import IMAGE_SUFFIXES
from vtray.sources.labels import class_name_of
from vtray.sources.objects import Found, Place, is_hidden, open_object, sift, suffix
from vtray.sources.unit import ImageRef
from vtray.storage import Entry, Storage

LABEL_SUFFIXES = ("cls", "json")
QUIET_SUFFIXES = ("txt", "mask.png")  # captions and masks: used for nothing here and not worth a mention
MAX_LABEL_BYTES = 1 << 20
MAX_GAP_BYTES = 256 << 10  # reading over a gap is cheaper than another request
MAX_SPAN_BYTES = 16 << 20
CLASSES = "classes.txt"

_KEY_AND_SUFFIX = re.compile(r"^((?:.*/)?[^/.]+)\.([^/]*)$")
_IS_META = re.compile(r"^__[^/]*__$")  # webdataset's readers pass over such names too
_END_BLOCK = bytes(tarfile.BLOCKSIZE)


@dataclass(slots=True)
class _Sample:
    """What a shard holds under one key: the image's place in the file and the raw label members."""

    offset: int = -1
    num_bytes: int = 0
    labels: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """One tar file, and the names of integer labels in it."""

    entry: Entry
    uri: str
    names: Sequence[str]


def find_members(place: Place) -> Found:
    """The images of all tar shards of a place; classes.txt in its root names integer labels."""
    entries, others = sift(place.entries, {".tar"})
    names = _class_names(place.storage)
    plans = place.map(
        lambda entry: _index_shard(place.storage, _Shard(entry=entry, uri=place.uri(entry), names=names)), entries
    )
    return Found(
        format="webdataset",
        refs=[ref for refs, _ in plans for ref in refs],
        inputs=entries + [entry for entry in place.entries if entry.key == CLASSES],
        skipped=[key for key in others if key != CLASSES] + [key for _, keys in plans for key in keys],
    )


def _class_names(storage: Storage) -> Sequence[str]:
    try:
        return storage.read(CLASSES).decode("utf-8-sig").splitlines()
    except StorageMissing:
        return ()


def _index_shard(storage: Storage, shard: _Shard) -> tuple[list[ImageRef], list[str]]:
    """The references of one shard and the members that were passed over."""
    samples: dict[str, _Sample] = {}
    skipped: list[str] = []
    with open_object(storage, shard.entry.key) as file:
        archive = _open_archive(file, shard.uri)
        while (member := _next_whole(archive, shard.entry.size)) is not None:
            if not _take(archive, member, samples):
                skipped.append(f"{shard.entry.key}/{member.name}")
        lost_at = _lost_at(archive, file, shard.entry.size)
    refs = [_ref(shard, key, sample) for key, sample in samples.items() if sample.offset >= 0]
    if lost_at is not None:
        lost = _Sample(offset=lost_at)
        refs.append(replace(_ref(shard, f"@{lost_at}", lost), fault="truncated_shard"))
    return refs, skipped


def _open_archive(file: IO[bytes], uri: str) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except tarfile.ReadError as error:
        raise InputError(
            f"{uri}: broken tar header at byte 0 ({error}); only uncompressed .tar files can be read"
        ) from error


def _next_whole(archive: tarfile.TarFile, size: int) -> tarfile.TarInfo | None:
    """The next member that lies in the file entirely; None at the end or where the shard is broken."""
    archive.members.clear()  # type: ignore[attr-defined]  # a huge shard has too many to keep
    try:
        member = archive.next()
    except tarfile.ReadError:
        return None
    return member if member is None or member.offset_data + member.size <= size else None


def _lost_at(archive: tarfile.TarFile, file: IO[bytes], size: int) -> int | None:
    """Where the readable part ends, if that is not at the zero block that closes every whole tar."""
    if archive.offset < size:
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) == _END_BLOCK:
            return None
    return min(archive.offset, size)


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, samples: dict[str, _Sample]) -> bool:
    """Put a member into its sample; False if it is of no use here and worth a mention."""
    name = member.name.removeprefix("./")
    found = _KEY_AND_SUFFIX.match(name)
    if member.isdir() or _IS_META.match(name):
        return True
    if not member.isreg() or member.issparse() or found is None or is_hidden(name):
        return False
    key, ending = found[1], found[2].lower()
    sample = samples.setdefault(key, _Sample())
    if ending in LABEL_SUFFIXES and member.size <= MAX_LABEL_BYTES:
        content = archive.extractfile(member)
        sample.labels[ending] = content.read() if content else b""
        return True
    if suffix(name) in IMAGE_SUFFIXES and sample.offset < 0:
        sample.offset, sample.num_bytes = member.offset_data, member.size
        return True
    return ending in QUIET_SUFFIXES


def _ref(shard: _Shard, key: str, sample: _Sample) -> ImageRef:
    class_name, split, fault = _read_labels(sample.labels, shard.names)
    return ImageRef(
        image_id=f"{shard.entry.key}/{key}",
        uri=shard.uri,
        num_bytes=sample.num_bytes,
        version=shard.entry.version,
        class_name=class_name,
        split=split,
        offset=sample.offset,
        fault=fault,
    )


def _read_labels(labels: dict[str, bytes], names: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """Class name, split and fault; class_name in the .json comes first, then the .cls, then label in the .json."""
    try:
        values = json.loads(labels.get("json", b"{}"))
        text = labels.get("cls", b"").decode()
    except ValueError:
        return None, None, "bad_label"
    if not isinstance(values, dict):
        values = {}
    class_name = (
        class_name_of(values.get("class_name"))
        or class_name_of(text, names)
        or class_name_of(values.get("label"), names)
    )
    split = values.get("split")
    return class_name, split if isinstance(split, str) else None, None


def read_members(storage: Storage, key: str, refs: Sequence[ImageRef]) -> Iterator[tuple[ImageRef, bytes]]:
    """The bytes of some members of one shard in the order of their place; fewer bytes than stated if it shrank.

    Raises: as Storage.read.
    """
    for span in _spans(refs):
        start, end = span[0].offset or 0, (span[-1].offset or 0) + span[-1].num_bytes
        content = storage.read(key, start=start, end=end)
        for ref in span:
            first = (ref.offset or 0) - start
            yield ref, content[first : first + ref.num_bytes]


def _spans(refs: Sequence[ImageRef]) -> Iterator[list[ImageRef]]:
    """Members sorted by offset in runs that are worth one request each."""
    span: list[ImageRef] = []
    start = end = 0
    for ref in refs:
        offset = ref.offset or 0
        if span and (offset - end > MAX_GAP_BYTES or offset + ref.num_bytes - start > MAX_SPAN_BYTES):
            yield span
            span = []
        if not span:
            start = offset
        span.append(ref)
        end = offset + ref.num_bytes
    if span:
        yield span
