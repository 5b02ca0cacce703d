"""Lists of images: CSV (or Parquet, see parquet.py) with a uri and, if known, label, class_name and split."""

import csv
import io
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtray.errors import InputError, StorageDenied
from vtray.sources.labels import class_name_of
from vtray.sources.objects import Found, Place, sift, storage_for
from vtray.sources.unit import ImageRef
from vtray.storage import Entry, absolute_uri, is_local, join_uri

URI_COLUMNS = ("uri", "url", "path")
MAX_LISTINGS = 256  # with images in more folders than this, their common folder is listed instead


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """One row of a list: `where` names it for people (file and line)."""

    where: str
    uri: str
    image_id: str
    class_name: str | None
    split: str | None


def find_listed(place: Place) -> Found:
    """The images named by the CSV files of a place."""
    lists, others = sift(place.entries, {".csv"})
    images = [image for entry in lists for image in _read_csv(place, entry)]
    return find_named(place, images, inputs=lists, skipped=others)


def _read_csv(place: Place, entry: Entry) -> list[ListedImage]:
    uri = place.uri(entry)
    try:
        text = place.storage.read(entry.key).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: not UTF-8 text (byte {error.start}); save the list as UTF-8 CSV") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    if uri_column(rows.fieldnames or ()) is None:
        header = ", ".join(rows.fieldnames or ()) or "nothing"
        raise InputError(f"{uri}: the first line must name a column uri (or url, path); it has: {header}")
    try:
        return [listed_image(row, list_uri=uri, where=f"{uri} line {rows.line_num}") for row in rows]
    except csv.Error as error:
        raise InputError(f"{uri} line {rows.line_num}: not CSV: {error}") from error


def uri_column(names: Iterable[str]) -> str | None:
    """The column that names the image files, if there is one."""
    present = set(names)
    return next((name for name in URI_COLUMNS if name in present), None)


def listed_image(row: Mapping[str, Any], *, list_uri: str, where: str, names: Sequence[str] = ()) -> ListedImage:
    """One row of a list; its uri may be absolute or relative to the list's folder."""
    column = uri_column(row) or URI_COLUMNS[0]
    named = (row[column] or "").strip()
    if not named:
        raise InputError(f"{where}: the {column} is empty")
    if "://" in named and not named.startswith(("s3://", "file://")):
        raise InputError(f"{where}: {named}: only local paths, file:// and s3:// can be read")
    folder = list_uri.rpartition("/")[0]
    uri = _resolve(folder, named)
    class_name = class_name_of(row.get("class_name")) or class_name_of(row.get("label"), names)
    image_id = stored_id(row) or _id_under(folder, uri)
    split = str(row["split"]) if row.get("split") else None
    return ListedImage(where=where, uri=uri, image_id=image_id, class_name=class_name, split=split)


def stored_id(row: Mapping[str, Any]) -> str | None:
    """The stored id; variants of one image in our own shards get the variant's number behind it."""
    image_id, variant = row.get("image_id"), row.get("variant")
    if image_id is None:
        return None
    return f"{image_id}#v{variant}" if variant else str(image_id)


def _resolve(folder: str, named: str) -> str:
    uri = join_uri(folder, named)
    if is_local(uri):
        return absolute_uri(uri)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return f"s3://{bucket}/{posixpath.normpath(key)}"


def _id_under(folder: str, uri: str) -> str:
    """The path below the list's folder; for images elsewhere the whole path without scheme."""
    return (
        uri.removeprefix(f"{folder}/") if uri.startswith(f"{folder}/") else uri.removeprefix("s3://").lstrip("/")
    )


def find_named(
    place: Place, images: Sequence[ListedImage], *, inputs: Sequence[Entry], skipped: Sequence[str]
) -> Found:
    """References to listed images with the sizes and versions that storage knows; the rest fails when read.

    Raises: InputError if two rows name the same image.
    """
    _require_unique(images)
    stored = _stored([image.uri for image in images])
    refs = [_ref(image, stored.get(image.uri)) for image in images]
    files = [Entry(ref.image_id, ref.num_bytes, ref.version) for ref in refs]
    return Found(format="list", refs=refs, inputs=[*inputs, *files], skipped=skipped)


def _require_unique(images: Sequence[ListedImage]) -> None:
    seen: dict[str, str] = {}
    for image in images:
        first = seen.setdefault(image.image_id, image.where)
        if first != image.where:
            raise InputError(
                f"{image.image_id} is listed twice: {first} and {image.where}; list every image once "
                "or give the rows an image_id of their own"
            )


def _ref(image: ListedImage, entry: Entry | None) -> ImageRef:
    return ImageRef(
        image_id=image.image_id,
        uri=image.uri,
        num_bytes=entry.size if entry else 0,
        version=entry.version if entry else "",
        class_name=image.class_name,
        split=image.split,
    )


def _stored(uris: Sequence[str]) -> dict[str, Entry]:
    """What storage knows of the named files, from one listing per folder instead of one request per file."""
    stored: dict[str, Entry] = {}
    for folder in _folders(uris):
        storage, key = storage_for(folder)
        try:
            found = storage.list(key)
        except StorageDenied:  # reading may be allowed where listing is not
            continue
        stored.update((join_uri(storage.uri, entry.key), entry) for entry in found)
    return stored


def _folders(uris: Iterable[str]) -> list[str]:
    """The folders to list: each holds some of the files, and none lies in another."""
    folders = sorted({f"{uri.rpartition('/')[0]}/" for uri in uris})
    if len(folders) > MAX_LISTINGS:
        roots = {"/".join(folder.split("/")[:3]) + "/" if "://" in folder else "/" for folder in folders}
        folders = [_common_folder([f for f in folders if f.startswith(root)]) for root in sorted(roots)]
    outer: list[str] = []
    for folder in folders:
        if not outer or not folder.startswith(outer[-1]):
            outer.append(folder)
    return [folder.rstrip("/") or "/" for folder in outer]


def _common_folder(folders: Sequence[str]) -> str:
    first, last = min(folders), max(folders)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rindex("/", 0, shared) + 1]
