"""Where the images of each phase come from: stored activations, stored crops, or loaded anew in every epoch."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from pipelines import prefix_cache
from pipelines.finetune_work import FinetuneWork
from pipelines.prefix_cache import CacheSpec, PrefixCache
from vtray.augment.recipe import Recipe
from vtray.classify.backbone import Classifier
from vtray.classify.freezing import boundary_of, freeze
from vtray.classify.phases import Phase
from vtray.classify.prefix import cached_boundary, row_bytes
from vtray.classify.training import PhaseRows
from vtray.manifest import Json
from vtray.report.numbers import bytes_text
from vtray.storage import absolute_uri, join_uri, open_storage

log = logging.getLogger("vtray.finetune")

LIMIT_BYTES = 32 << 30  # of one cache that nobody asked for by name
CACHES = "_vtray/caches"


@dataclass(frozen=True, kw_only=True)
class Store:
    """What is stored for a phase. num_frozen: leading frozen stages in front of the rows, 0 for crops.

    train: whether training images are stored too, with `views` augmented views; else they are loaded on the way.
    """

    num_frozen: int
    train: bool
    views: int = 0


def store_of(work: FinetuneWork, phase: Phase, classifier: Classifier) -> Store:
    """What to store for one phase; images that are augmented anew in every epoch cannot be stored."""
    cache, boundary = work.config.cache, _num_frozen(phase, classifier)
    if isinstance(cache, int):
        return Store(num_frozen=boundary, train=True, views=cache)
    plain = work.recipe is None or phase.name == "probe"  # the head's own phase sees plain images: it is short
    if cache == "off" or not plain:
        return Store(num_frozen=0, train=False)
    store = Store(num_frozen=boundary, train=True)
    needed = stored_bytes(work, store, classifier)
    if needed > LIMIT_BYTES:
        log.info("cache auto: %s are too many to store, images are loaded in every epoch", bytes_text(needed))
        return Store(num_frozen=0, train=False)
    return store


def stored_bytes(work: FinetuneWork, store: Store, classifier: Classifier) -> int:
    """What the rows of a store take."""
    num_rows = len(work.examples.val) + (len(work.examples.train) * (1 + store.views) if store.train else 0)
    boundary = cached_boundary(classifier, store.num_frozen)
    return num_rows * row_bytes(classifier, boundary, work.preprocessing)


def build_rows(work: FinetuneWork, stores: tuple[Store, ...], classifier: Classifier) -> dict[Store, PrefixCache]:
    """Make the stores of all phases on the connected cluster; what is there already is not made again.

    Raises: TooManyFailures, UnfinishedUnits, StorageError.
    """
    return {store: _build(work, store, classifier) for store in dict.fromkeys(stores)}


def _build(work: FinetuneWork, store: Store, classifier: Classifier) -> PrefixCache:
    source = work.split_source()
    if not store.train:
        source = replace(source, refs=tuple(ref for ref in source.refs if ref.split == "val"))
    spec = CacheSpec(
        root=absolute_uri(work.config.cache_uri) if work.config.cache_uri else join_uri(work.output_uri, CACHES),
        num_frozen=store.num_frozen,
        preprocessing=work.preprocessing,
        recipe=_recipe(work, store),
        views=store.views,
        device=work.device if store.num_frozen else "cpu",
        here=work.config.here,
        splits=("train", "val") if store.train else ("val",),
        max_pixels=work.config.max_pixels,
    )
    return prefix_cache.build(spec, source, classifier, config=work.config)


def _recipe(work: FinetuneWork, store: Store) -> Recipe | None:
    return work.recipe if store.views else None


def phase_rows(store: Store, cache: PrefixCache) -> PhaseRows:
    """How a phase reads its rows."""
    return PhaseRows(val=cache.uri, train=cache.uri if store.train else None, start=cache.start, views=store.views)


def read_quarantine(rows: Sequence[PhaseRows]) -> list[Json]:
    """What is wrong with the images that have no rows, as quarantine rows."""
    found: list[Json] = []
    for uri in {each.val for each in rows} | {each.train for each in rows if each.train}:
        storage = open_storage(uri)
        for entry in storage.list("quarantine"):
            found += pq.read_table(io.BytesIO(storage.read(entry.key))).to_pylist()
    return found


def _num_frozen(phase: Phase, classifier: Classifier) -> int:
    frozen = classifier.frozen
    freeze(classifier, phase.frozen)
    boundary = min(boundary_of(classifier), len(classifier.stage_names))
    freeze(classifier, frozen)
    return boundary
