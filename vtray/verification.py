"""Is an output what its manifest says? Reads storage only."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vtray.errors import InputError, StorageMissing
from vtray.manifest import FOLDERS, MANIFEST, SUCCESS, FileRecord, Json, Ledger, sha256
from vtray.storage import Storage

HASH_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `verify` found: how many files were looked at, and one line per fault."""

    num_files: int
    num_bytes: int
    faults: tuple[str, ...]


def verify(storage: Storage, *, deep: bool = False) -> Verdict:
    """Check an output against its manifest: every file there with its size, none besides; `deep` rehashes all.

    Raises: InputError if the place holds no manifest.
    """
    ledger = Ledger(storage)
    manifest = ledger.read_json(MANIFEST)
    if manifest is None:
        raise InputError(f"{storage.uri}: no finished vtray output here (no {MANIFEST}); see: vtray status")
    records = [FileRecord(**record) for record in [*manifest["files"], *manifest["quarantine"]]]
    sizes = {entry.key: entry.size for folder in FOLDERS for entry in storage.list(folder)}
    faults = [fault for record in records if (fault := _size_fault(record, sizes.get(record.key)))]
    faults += [f"{key}: not in the manifest" for key in sorted(sizes.keys() - {record.key for record in records})]
    faults += _mark_faults(storage, manifest)
    if deep:
        check = _hash_fault(storage)
        with ThreadPoolExecutor(HASH_THREADS) as pool:
            sound = [record for record in records if sizes.get(record.key) == record.bytes]
            faults += [fault for fault in pool.map(check, sound) if fault]
    return Verdict(num_files=len(records), num_bytes=sum(sizes.values()), faults=tuple(faults))


def _size_fault(record: FileRecord, size: int | None) -> str | None:
    if size is None:
        return f"{record.key}: missing"
    return None if size == record.bytes else f"{record.key}: {size} bytes, the manifest says {record.bytes}"


def _hash_fault(storage: Storage) -> Callable[[FileRecord], str | None]:
    def check(record: FileRecord) -> str | None:
        found = sha256(storage.read(record.key))
        return (
            None if found == record.sha256 else f"{record.key}: sha256 {found}, the manifest says {record.sha256}"
        )

    return check


def _mark_faults(storage: Storage, manifest: Json) -> list[str]:
    if manifest["status"] != "complete":
        return [f"{MANIFEST}: status is {manifest['status']}"]
    try:
        mark = storage.read(SUCCESS).decode().strip()
    except StorageMissing:
        return [f"{SUCCESS}: missing"]
    found = sha256(storage.read(MANIFEST))
    return [] if mark == found else [f"{MANIFEST}: sha256 {found}, {SUCCESS} says {mark}"]
