"""Opening an input: what is it, which images does it hold, and do they have names of their own."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter

from vtray.errors import ConfigError, InputError
from vtray.manifest import MANIFEST, PLAN, SUCCESS, Ledger
from vtray.sources import folder, listing, tar
from vtray.sources.labels import label_refs
from vtray.sources.objects import Found, Place, find_entry, is_hidden, suffix
from vtray.sources.unit import ImageRef, Unit, cut_units
from vtray.storage import Entry, absolute_uri, is_local, join_uri, local_path, open_storage

FORMATS = ("auto", "folder", "webdataset", "parquet", "list")
LAYOUTS = ("auto", "split", "class", "flat")
PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened input: its images, sorted by image_id, and what they are called.

    classes: sorted class names, empty if unlabelled. version: SHA-256 (hex) of the listing (name, size and storage
    version of each input object), so it changes when a file does; contents are not read. skipped: how many files
    were passed over because they are no images, with one of them as example.
    """

    uri: str
    format: str
    classes: tuple[str, ...]
    version: str
    refs: tuple[ImageRef, ...] = field(repr=False)
    skipped: int = 0
    skipped_example: str | None = None

    def units(self, *, max_bytes: int, max_images: int) -> list[Unit]:
        """The images as units of bounded bytes and images, the same for any number of workers."""
        return cut_units(self.refs, format=self.format, max_bytes=max_bytes, max_images=max_images)


def open_source(uri: str, *, format: str = "auto", layout: str = "auto") -> Source:
    """List an input. `layout` says what the folders of a folder input mean, see `folder.find_images`.

    Raises: InputError if it is missing, empty, mixed, broken or has two images of one name; ConfigError for an
    unknown format or layout; StorageError if storage fails.
    """
    _require_one_of("input.format", format, FORMATS)
    _require_one_of("input.layout", layout, LAYOUTS)
    root = absolute_uri(uri)
    place = _look(root)
    found = _find(place, format=_detect(place) if format == "auto" else format, layout=layout)
    if not found.refs:
        raise InputError(f"{root}: {_nothing_found(place, found.format)}")
    refs = sorted(found.refs, key=attrgetter("image_id"))
    _require_unique(refs)
    classes, labelled = label_refs(refs)
    return Source(
        uri=root,
        format=found.format,
        classes=classes,
        version=_version(found.inputs),
        refs=labelled,
        skipped=len(found.skipped),
        skipped_example=min(found.skipped, default=None),
    )


def _require_one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}: {value!r} is not known; allowed: {', '.join(allowed)}")


def _look(uri: str) -> Place:
    """The objects at an address: those of a folder, or the one object of that name."""
    storage = open_storage(uri)
    entries = storage.list()
    if entries:
        return _inside_output(uri, entries) or Place(storage=storage, entries=tuple(entries))
    parent, _, name = uri.rpartition("/")
    if name and parent != "s3:/":
        storage = open_storage(parent or "/")
        if entry := find_entry(storage, name):
            return Place(storage=storage, entries=(entry,))
    if is_local(uri) and local_path(uri).is_dir():
        raise InputError(f"{uri}: the folder is empty; check input.uri")
    raise InputError(f"{uri}: no such file or folder; check input.uri")


def _inside_output(uri: str, entries: Iterable[Entry]) -> Place | None:
    """The data of one of our own outputs, without its previews and books; None for any other folder."""
    keys = {entry.key for entry in entries}
    if PLAN not in keys:
        return None
    manifest = Ledger(open_storage(uri)).read_json(MANIFEST)
    if manifest is None or SUCCESS not in keys:
        raise InputError(f"{uri}: an output of vtray that is not finished; run its command again first")
    storage = open_storage(join_uri(uri, "data"))
    named = {record["key"].removeprefix("data/") for record in manifest["files"]}
    files = [entry for entry in storage.list() if entry.key in named]
    tables = [entry for entry in files if suffix(entry.key) in PARQUET_SUFFIXES]
    return Place(storage=storage, entries=tuple(tables or files))  # image files of ours come with an index


def _detect(place: Place) -> str:
    """The format, from the extensions of what is there."""
    if len(place.entries) == 1 and suffix(place.entries[0].key) == ".csv":
        return "list"
    counts = Counter(_kind(entry.key) for entry in place.entries)
    present = [kind for kind in ("folder", "webdataset", "parquet") if counts[kind]]
    if len(present) > 1:
        seen = ", ".join(f"{counts[kind]} for {kind}" for kind in present)
        raise InputError(
            f"{place.storage.uri}: files of several formats ({seen}); set input.format to one of them"
        )
    return present[0] if present else "folder"


def _kind(key: str) -> str | None:
    ending = suffix(key)
    if is_hidden(key):
        return None
    if ending in folder.IMAGE_SUFFIXES:
        return "folder"
    if ending in PARQUET_SUFFIXES:
        return "parquet"
    return "webdataset" if ending == ".tar" else None


def _find(place: Place, *, format: str, layout: str) -> Found:
    if format == "folder":
        return folder.find_images(place, layout=layout)
    if format == "webdataset":
        return tar.find_members(place)
    if format == "list" and any(suffix(entry.key) == ".csv" for entry in place.entries):
        return listing.find_listed(place)
    from vtray.sources import parquet  # pyarrow takes half a second that the other formats need not pay

    return parquet.find_rows(place)


def _nothing_found(place: Place, kind: str) -> str:
    wanted = {
        "folder": " ".join(sorted(folder.IMAGE_SUFFIXES)),
        "webdataset": "images in .tar",
        "parquet": "rows in .parquet .pq",
        "list": "rows in .csv or .parquet",
    }
    counts = Counter(suffix(entry.key) or "no extension" for entry in place.entries)
    seen = ", ".join(f"{ending} ({count})" for ending, count in counts.most_common(5))
    return f"no image found; looked for {wanted[kind]}; saw instead: {seen}"


def _require_unique(refs: Sequence[ImageRef]) -> None:
    """Neighbours of a sorted sequence must differ. Raises: InputError naming both places."""
    for one, other in pairwise(refs):
        if one.image_id == other.image_id:
            raise InputError(
                f"image_id {one.image_id!r} stands for two images: {_where(one)} and {_where(other)}; "
                "ids must be unique in an input"
            )


def _where(ref: ImageRef) -> str:
    return ref.uri if ref.row is None else f"{ref.uri} row group {ref.row_group} row {ref.row}"


def _version(inputs: Iterable[Entry]) -> str:
    listed = sorted((entry.key, entry.size, entry.version) for entry in inputs)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
