"""What all trials of a search share: rows stored at each boundary, the weights they begin with, the arithmetic."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from safetensors.torch import save

from pipelines.finetune_begin import Beginning, give_head, num_images
from pipelines.finetune_choices import Trial, choose
from pipelines.finetune_rows import LIMIT_BYTES, Store, build_rows, phase_rows, store_of, stored_bytes
from pipelines.finetune_work import FinetuneWork
from pipelines.prefix_cache import PrefixCache
from pipelines.tune_work import TuneWork
from vtray.classify.backbone import Classifier
from vtray.classify.search_space import Values
from vtray.classify.training import INITIAL, PhaseRows, TrainTask, as_tensors
from vtray.errors import ConfigError
from vtray.manifest import Json, Ledger
from vtray.report.numbers import bytes_text

Key = tuple[Store, str | None]  # the second: digest of the recipe of its views


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedRows:
    """The caches of a search by what they hold; each is built once, when a trial first needs it."""

    work: TuneWork
    classifier: Classifier
    caches: dict[Key, PrefixCache] = field(default_factory=dict)

    def stores(self, trial: FinetuneWork) -> list[Key]:
        """What the phases of a trial read. Raises: ConfigError if rows would be too many to store."""
        found = []
        for phase in trial.phases:
            store = store_of(trial, phase, self.classifier)
            if not store.train:
                _refuse(trial, store, self.classifier)
            found.append((store, trial.recipe.digest if store.views and trial.recipe else None))
        return found

    def of(self, trial: FinetuneWork) -> tuple[PhaseRows, ...]:
        """The rows of each phase of a trial; what is not there yet is computed on the cluster.

        Raises: TooManyFailures, UnfinishedUnits, StorageError.
        """
        keys = self.stores(trial)
        for key in keys:
            if key not in self.caches:
                (self.caches[key],) = build_rows(trial, (key[0],), self.classifier).values()
        return tuple(phase_rows(key[0], self.caches[key]) for key in keys)


def _refuse(trial: FinetuneWork, store: Store, classifier: Classifier) -> None:
    needed = stored_bytes(trial, replace(store, train=True), classifier)
    raise ConfigError(
        f"search: trials train on stored rows, and {bytes_text(needed)} are more than {bytes_text(LIMIT_BYTES)}; "
        "freeze more stages, choose a smaller preprocess.crop_px, or search on a part of the images"
    )


def all_boundaries(work: TuneWork, trials: Iterable[Values] | None) -> list[Values]:
    """Values that together need every cache of a search. trials: None if they are not known beforehand."""
    if trials is not None:
        return list(trials)
    cut = ("freeze", "train_stages", "recipe")
    return [work.default, *({key: value} for key in cut for value in work.space.get(key, ()))]


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedStart:
    """Everything a trial needs besides its values. folder: of the search's state, in the output."""

    work: TuneWork
    rows: SharedRows
    folder: str
    choices: Json

    def task(self, values: Values) -> TrainTask:
        """A trial as what its worker is told."""
        trial = self.work.training(values)
        return Beginning(
            work=trial,
            rows=self.rows.of(trial),
            folder=self.folder,
            choices=self.choices | {"lr": trial.config.lr},
            threads=self.work.config.search.cpus_per_trial,
        ).task()


def prepare(work: TuneWork, ledger: Ledger, trials: Sequence[Values]) -> SharedStart:
    """Build the caches of these trials, keep the weights that all begin with, and measure the arithmetic.

    Raises: ConfigError, TooManyFailures, UnfinishedUnits, StorageError.
    """
    rows = SharedRows(work=work, classifier=work.base.pretrained())
    folder = f"_vtray/search-{work.plan().fingerprint[:12]}"
    works = [work.training(values) for values in trials]
    found = {trial: rows.of(trial) for trial in works}
    costliest = min(works, key=lambda trial: found[trial][-1].start)
    give_head(costliest, rows.classifier, found[costliest][0])
    ledger.storage.create(f"{folder}/{INITIAL}", save(dict(as_tensors(rows.classifier))))
    sampling = costliest.sampling(num_images(costliest, found[costliest]))
    choices = choose(
        Trial(
            work=costliest,
            classifier=rows.classifier,
            rows=found[costliest][-1],
            sampling=sampling,
            load=None,
            threads=work.config.search.cpus_per_trial,
        ),
        ledger,
        folder,
    )
    return SharedStart(work=work, rows=rows, folder=folder, choices=choices)
