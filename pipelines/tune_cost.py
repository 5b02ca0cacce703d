"""What a search cost, and what the same trials would have cost without stored rows and without stopping."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from pipelines.tune_rows import SharedRows
from vtray.classify.trial_record import TrialRecord
from vtray.manifest import Json, Ledger
from vtray.storage import open_storage


@dataclass(frozen=True, kw_only=True)
class CacheCost:
    """One cache. seconds: of all its workers together, whoever built it and when. rows: images and views."""

    frozen: int
    rows: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchCost:
    """Seconds of work, added up over all processes.

    uncached: the same trials to their last epoch with every image decoded and run through the frozen stages in
    every epoch, computed from the speeds that were measured here.
    """

    caches: float
    trials: float
    uncached: float

    @property
    def total(self) -> float:
        return self.caches + self.trials

    @property
    def share(self) -> float:
        """Of what uncached trials would have taken."""
        return self.total / self.uncached if self.uncached else 0.0

    def to_json(self) -> Json:
        return asdict(self) | {"total": self.total, "share": self.share}


def cache_costs(rows: SharedRows) -> list[CacheCost]:
    """What the receipts of the caches say."""
    return [_cost(store.num_frozen, cache.uri) for (store, _), cache in rows.caches.items()]


def _cost(frozen: int, uri: str) -> CacheCost:
    ledger = Ledger(open_storage(uri))
    receipts = ledger.receipts(sorted(ledger.done()))
    files = [file for receipt in receipts for file in receipt.files]
    return CacheCost(
        frozen=frozen,
        rows=sum(file.rows for file in files),
        bytes=sum(file.bytes for file in files),
        seconds=sum(sum(receipt.seconds.values()) for receipt in receipts),
    )


def search_cost(records: Sequence[TrialRecord], caches: Sequence[CacheCost], *, epochs: int) -> SearchCost:
    """epochs: of a trial that is not stopped."""
    per_row = {cache.frozen: cache.seconds / cache.rows for cache in caches if cache.rows}
    return SearchCost(
        caches=sum(cache.seconds for cache in caches),
        trials=sum(record.seconds for record in records),
        uncached=sum(_uncached(record, per_row, epochs) for record in records if record.epochs),
    )


def _uncached(record: TrialRecord, per_row: Mapping[int, float], epochs: int) -> float:
    """One trial: its own speed, and the rows of its boundary computed again in every epoch."""
    last = record.epochs[-1]
    rows = int(last["images"]) + int(last["val_images"])
    own = record.seconds / len(record.epochs)
    return epochs * (own + rows * per_row.get(record.frozen, 0.0))


def known_costs(ledger: Ledger, key: str) -> list[CacheCost]:
    """Those that an earlier run has kept."""
    kept: Mapping[str, list[Json]] = ledger.read_json(key) or {"caches": []}
    return [CacheCost(**cache) for cache in kept["caches"]]


def merged(kept: Sequence[CacheCost], new: Sequence[CacheCost]) -> list[CacheCost]:
    """One for each boundary, the new one where there are two."""
    found = {cache.frozen: cache for cache in (*kept, *new)}
    return [found[frozen] for frozen in sorted(found)]
