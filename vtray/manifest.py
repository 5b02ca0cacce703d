"""What is planned, what is done and what came out, kept beside the output.

A unit is done if and only if its receipt exists. Receipts are created exclusively, so the first attempt wins;
the manifest is written last and is all that a reader needs to trust.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from vtray.attempts import clear_attempts
from vtray.errors import InputError, PlanMismatch, StorageError, StorageMissing
from vtray.storage import Storage

SCHEMA = 1  # raise when the layout or the meaning of the output's bytes changes
PLAN, UNITS, MANIFEST = "_vtray/plan.json", "_vtray/units.parquet", "_vtray/manifest.json"
RECEIPTS, EVENTS, SUCCESS = "_vtray/receipts", "_vtray/events.jsonl", "_SUCCESS"
FOLDERS = ("data", "model", "quarantine")  # that hold what receipts name, and nothing else
READ_THREADS = 16

Json = dict[str, Any]


def sha256(content: bytes) -> str:
    """Hex SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def canonical(value: object) -> bytes:
    """The same bytes for equal JSON values, readable by people."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One final object of the output."""

    key: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What one unit became. `digest` names the work (input objects, config), so a receipt fits no other."""

    unit: str
    digest: str
    files: tuple[FileRecord, ...]
    quarantine: FileRecord | None
    num_images: int
    num_failed: int
    rows_by_class: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)  # "stage: reason" -> images
    examples: tuple[str, ...] = ()  # a few failed image ids with their reason
    seconds: dict[str, float] = field(default_factory=dict)  # per phase; never part of the manifest
    records: tuple[Json, ...] = ()  # one per image, if the job keeps them; they hold seconds: not in the manifest

    def to_json(self) -> bytes:
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        values = json.loads(content)
        files = tuple(FileRecord(**record) for record in values.pop("files"))
        quarantine = values.pop("quarantine")
        values |= {name: tuple(values.get(name, ())) for name in ("examples", "records")}
        return cls(files=files, quarantine=FileRecord(**quarantine) if quarantine else None, **values)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a job will do: `work` decides the output's bytes, `versions` the code that makes them.

    work: JSON of everything that the bytes depend on (resolved config, version of the input's listing).
    config: the whole resolved config, for people. units: unit id -> digest of its input objects.
    """

    job: str
    work: Json
    config: Json
    versions: dict[str, str]
    units: dict[str, str]

    @property
    def fingerprint(self) -> str:
        return sha256(canonical({"schema": SCHEMA, "job": self.job, "work": self.work}))

    def unit_digest(self, unit: str) -> str:
        """Names one unit's work apart from the rest of the input: its objects and the config, not the listing."""
        own = {key: value for key, value in self.work.items() if key != "input"}
        return sha256(canonical([SCHEMA, self.job, own, unit, self.units[unit]]))

    def to_json(self) -> bytes:
        values = asdict(self)
        del values["units"]
        return canonical(
            {"schema": SCHEMA, "fingerprint": self.fingerprint, "num_units": len(self.units)} | values
        )


class Ledger:
    """The books of one output: begin a plan, see what is pending, book receipts, finish."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def begin(self, plan: Plan, units: Callable[[], bytes], *, replan: bool = False) -> None:
        """Make `plan` the plan of this output, or find that it already is; `units` gives units.parquet.

        Raises: PlanMismatch if another plan is there and `replan` is false; InputError if the place holds
        something that vtray did not write.
        """
        there = self.read_json(PLAN)
        if there is None:
            self.refuse_foreign()
            if not self.storage.create(PLAN, plan.to_json()):
                return self.begin(plan, units, replan=replan)  # another driver was faster: compare with its plan
            return self.storage.put(UNITS, units())
        if replan and not self._is_settled(there, plan):
            self._clear_for(plan, there)
            self.storage.put(PLAN, plan.to_json())
            return self.storage.put(UNITS, units())
        if there["fingerprint"] != plan.fingerprint:
            raise PlanMismatch(self._difference(there, plan))
        if not self.is_complete():  # a kill may have left another plan's units, or none
            self.storage.put(UNITS, units())
        return None

    def _is_settled(self, there: Json, plan: Plan) -> bool:
        """Finished, by this plan, with nothing in quarantine that could be read now: nothing to replan."""
        manifest = self.read_json(MANIFEST) if self.is_complete() else None
        return (
            manifest is not None
            and there["fingerprint"] == plan.fingerprint
            and not any(reason.startswith("read: ") for reason in manifest["failures"])
        )

    def require_versions(self, plan: Plan) -> None:
        """Raises: PlanMismatch if libraries changed since the first units were made: bytes may differ."""
        there = self.read_json(PLAN)
        changed = _differences(there["versions"] if there else {}, plan.versions)
        if changed and not self.done():
            self.storage.put(PLAN, plan.to_json())
        elif changed:
            raise PlanMismatch(
                f"{self.storage.uri}: half made with other library versions: {'; '.join(changed)}; "
                "install those, choose a new output.uri, or start over with --set replan=true"
            )

    def done(self) -> set[str]:
        """Ids of the units that have a receipt."""
        listed = self.storage.list(RECEIPTS)
        return {
            entry.key.rpartition("/")[2].removesuffix(".json") for entry in listed if entry.key.endswith(".json")
        }

    def book(self, receipt: Receipt) -> Receipt:
        """Record that a unit is done; returns the receipt that counts, which is another's if that came first."""
        key = f"{RECEIPTS}/{receipt.unit}.json"
        if self.storage.create(key, receipt.to_json()):
            return receipt
        return Receipt.from_json(self.storage.read(key))

    def receipt(self, unit: str) -> Receipt | None:
        """The receipt of one unit, if there is one."""
        try:
            return Receipt.from_json(self.storage.read(f"{RECEIPTS}/{unit}.json"))
        except StorageMissing:
            return None

    def receipts(self, units: Iterable[str]) -> list[Receipt]:
        """The receipts of the given units, in their order."""
        with ThreadPoolExecutor(READ_THREADS) as pool:
            keys = [f"{RECEIPTS}/{unit}.json" for unit in units]
            return [Receipt.from_json(content) for content in pool.map(self.storage.read, keys)]

    def finish(self, plan: Plan, facts: Json, *, complete: bool) -> Json:
        """Write the manifest from all receipts and remove what none of them names; returns the manifest.

        The manifest has the same bytes whoever did the work, in whatever order and after whatever crashes.
        """
        receipts = self.receipts(sorted(plan.units))
        for receipt in receipts:
            if receipt.digest != plan.unit_digest(receipt.unit):
                raise StorageError(f"{self.storage.uri}: receipt {receipt.unit} belongs to other work; replan")
        status = "complete" if complete else "partial"
        manifest = {"status": status, "fingerprint": plan.fingerprint} | facts | summarize(receipts)
        self.storage.delete(SUCCESS)
        self.storage.put(MANIFEST, canonical({"schema": SCHEMA, "job": plan.job} | manifest))
        self._drop_all_but({record.key for receipt in receipts for record in _records(receipt)})
        clear_attempts(self.storage)
        self.storage.clear_scratch()
        return manifest

    def mark_complete(self) -> None:
        """Write `_SUCCESS`, the very last thing of a run; it holds the manifest's hash."""
        self.storage.put(SUCCESS, f"{sha256(self.storage.read(MANIFEST))}\n".encode())

    def _drop_all_but(self, kept: set[str]) -> None:
        """Remove files that killed attempts or an earlier plan left."""
        for folder in FOLDERS:
            for entry in self.storage.list(folder):
                if entry.key not in kept:
                    self.storage.delete(entry.key)

    def reopen(self) -> None:
        """Take back `_SUCCESS` before anything below it changes."""
        self.storage.delete(SUCCESS)
        self.storage.delete(MANIFEST)

    def is_complete(self) -> bool:
        """Whether the output is finished and marked so."""
        return self.storage.exists(SUCCESS)

    def read_json(self, key: str) -> Json | None:
        """One of the ledger's JSON files, or None if it is not there."""
        try:
            content = self.storage.read(key)
        except StorageMissing:
            return None
        try:
            values: Json = json.loads(content)
        except ValueError as error:
            raise StorageError(f"{self.storage.uri}/{key}: not valid JSON; was it changed by hand?") from error
        return values

    def log(self, event: Mapping[str, object]) -> None:
        """Append one line to the output's history; a few lines a run, so the file is rewritten whole."""
        try:
            earlier = self.storage.read(EVENTS)
        except StorageMissing:
            earlier = b""
        self.storage.put(EVENTS, earlier + json.dumps(event, ensure_ascii=False).encode() + b"\n")

    def refuse_foreign(self) -> None:
        """Raises: InputError if the place of a new output holds something that vtray did not write."""
        foreign = next((entry.key for entry in self.storage.list() if not entry.key.startswith("_vtray/")), None)
        if foreign is not None:
            raise InputError(
                f"{self.storage.uri}: holds files that vtray did not write (such as {foreign}); "
                "choose an empty or new output.uri"
            )

    def _clear_for(self, plan: Plan, there: Json) -> None:
        """Drop what does not fit `plan`: other work, other library versions, images that could not be read."""
        self.reopen()
        receipts = self.receipts(sorted(self.done()))
        same_versions = there["versions"] == plan.versions
        kept = [receipt for receipt in receipts if same_versions and _fits(receipt, plan)]
        for receipt in receipts:
            if receipt not in kept:
                self.storage.delete(f"{RECEIPTS}/{receipt.unit}.json")
        self._drop_all_but({record.key for receipt in kept for record in _records(receipt)})

    def _difference(self, there: Json, plan: Plan) -> str:
        changed = _differences(_flat(there["work"]), _flat(plan.work))
        if there["job"] != plan.job:
            changed.insert(0, f"job: {there['job']} -> {plan.job}")
        lines = "\n".join(f"  {line}" for line in changed)
        return (
            f"{self.storage.uri}: holds another plan; it differs in\n{lines}\n"
            "choose a new output.uri, or replace it with --set replan=true (unchanged units are kept)"
        )


def summarize(receipts: Sequence[Receipt]) -> Json:
    """Totals, failures by reason and the sorted list of files, from receipts in unit order."""
    files = sorted((asdict(record) for r in receipts for record in r.files), key=lambda record: str(record["key"]))
    quarantine = [asdict(r.quarantine) for r in receipts if r.quarantine]
    totals = {
        "units": len(receipts),
        "images": sum(r.num_images for r in receipts),
        "failed": sum(r.num_failed for r in receipts),
        "rows": sum(record.rows for r in receipts for record in r.files),
        "bytes": sum(record.bytes for r in receipts for record in r.files),
    }
    return {
        "totals": totals,
        "rows_by_class": _total(r.rows_by_class for r in receipts),
        "failures": _total(r.failures for r in receipts),
        "files": files,
        "quarantine": quarantine,
    }


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _fits(receipt: Receipt, plan: Plan) -> bool:
    """Whether a unit is done for this plan; what could not be read before may be readable now."""
    return (
        receipt.unit in plan.units
        and receipt.digest == plan.unit_digest(receipt.unit)
        and not any(reason.startswith("read: ") for reason in receipt.failures)
    )


def _records(receipt: Receipt) -> tuple[FileRecord, ...]:
    return (*receipt.files, receipt.quarantine) if receipt.quarantine else receipt.files


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    """Nested JSON as dotted keys, for a diff that people can read."""
    if isinstance(value, dict):
        items: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {prefix: json.dumps(value)}
    return {key: text for name, item in items for key, text in _flat(item, f"{prefix}.{name}".strip(".")).items()}


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    keys = sorted(there.keys() | here.keys())
    return [
        f"{key}: {there.get(key, 'absent')} -> {here.get(key, 'absent')}"
        for key in keys
        if there.get(key) != here.get(key)
    ]
