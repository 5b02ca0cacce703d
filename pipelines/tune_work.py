"""From a config and its input to everything definite: the space, the plan, and each trial as a training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipelines.finetune_config import FinetuneConfig
from pipelines.finetune_work import Device, FinetuneWork
from pipelines.tune_config import AUTO, TuneConfig
from vtray.classify.freezing import frozen_stages, window_stages
from vtray.classify.proposals import Ground, Proposals, proposals
from vtray.classify.search_space import Space, Values
from vtray.errors import ConfigError
from vtray.manifest import Plan
from vtray.sources import Unit

JOB = "tune"
SEARCHED = ("space", "num_trials", "searcher", "scheduler", "asha", "metric", "views")
THEN = ("top_k", "also_default", "soup")  # what happens after the trials
AUTO_PARTS = 3  # auto freezes none, one, two or three thirds of the stages


@dataclass(frozen=True, kw_only=True, eq=False)
class TuneWork:
    """A search that is ready to begin; nothing is started or written. base: the training as it is configured."""

    config: TuneConfig
    base: FinetuneWork

    @classmethod
    def of(cls, config: TuneConfig, *, device: Device) -> "TuneWork":
        """List the input, read the weights, check every value of the space.

        Raises: InputError, ConfigError, WeightsError, StorageError.
        """
        base = FinetuneWork.of(config.training({}), device=device)
        work = cls(config=config, base=base)
        for key, values in work.space.items():
            for value in values if isinstance(values, tuple) else ():
                work.training({key: value})
        return work

    @cached_property
    def space(self) -> Space:
        """Key -> values, with frozen stages as numbers."""
        axes = dict(self.config.axes())
        if "freeze" in axes:
            axes["freeze"] = self._depths(axes["freeze"])
        for window in axes.get("train_stages", ()):
            self._named("train_stages", lambda window=window: window_stages(self.stage_names, window))
        return axes

    @property
    def stage_names(self) -> tuple[str, ...]:
        return self.base.stage_names

    def _depths(self, axis: Any) -> tuple[int, ...]:
        """How many stages are frozen, each number once. Raises: ConfigError with the stages for a wrong one."""
        count = len(self.stage_names)
        if axis == (AUTO,):
            return tuple(sorted({round(part * count / AUTO_PARTS) for part in range(AUTO_PARTS + 1)}))
        return tuple(dict.fromkeys(self.depth(stage) for stage in axis))

    def depth(self, stage: int | str) -> int:
        """A value of freeze as the number of frozen stages."""
        frozen: frozenset[int] = self._named("freeze", lambda: frozen_stages(self.stage_names, stage))
        return len(frozen)

    def _named(self, key: str, call: Any) -> Any:
        try:
            return call()
        except ConfigError as error:
            raise ConfigError(f"search.space.{key}: {str(error).removeprefix(f'{key}: ')}") from error

    @cached_property
    def default(self) -> Values:
        """The values of trial 0."""
        values = self.config.default_values(self.space)
        return values | ({"freeze": self.depth(values["freeze"])} if "freeze" in values else {})

    def proposals(self) -> Proposals:
        """What proposes the trials. Raises: ConfigError if the searcher is not installed."""
        return proposals(
            self.config.search.searcher,
            Ground(
                space=self.space,
                default=self.default,
                seed=self.config.seed,
                num_trials=self.config.search.planned,
            ),
        )

    def num_trials(self, found: Proposals) -> int:
        """How many trials there are in all."""
        listed: Sequence[Values] | None = getattr(found, "listed", None)
        return len(listed) if listed is not None else self.config.search.planned or 0

    def training(self, values: Values) -> FinetuneWork:
        """A trial as a training on stored rows: plain images, or as many augmented views as the search has.

        Raises: ConfigError for values that do not go together.
        """
        views = self.config.search.views
        config = self.config.training(values)
        others: dict[str, Any] = {"cache": views} if views else {"cache": AUTO, "operators": (), "recipe": None}
        return self.base.under(FinetuneConfig.model_validate(config.model_dump(mode="json") | others))

    def frozen(self, values: Values) -> int:
        """How many leading stages are frozen under these values."""
        frozen = self.training(values).phases[-1].frozen
        return next((n for n in range(len(self.stage_names)) if n not in frozen), len(self.stage_names))

    def plan(self) -> Plan:
        """The plan of the training with the search on top; cluster and tracking do not count."""
        base, search = self.base.plan(), self.config.search.model_dump(mode="json")
        names = (*SEARCHED, *THEN)
        chosen = {name: search[name] for name in names} | {"num_trials": self.config.search.planned}
        recipes = [self.config.training({"recipe": r}).augmentation() for r in self.space.get("recipe", ()) if r]
        chosen["recipes"] = [recipe.digest for recipe in recipes if recipe]
        if chosen["scheduler"] == "none":
            del chosen["asha"]
        return replace(
            base,
            job=JOB,
            work=base.work | {"search": chosen},
            config=self.config.without_secrets().model_dump(mode="json"),
        )

    def units(self) -> tuple[Unit, ...]:
        """The images of the search, for the output's books."""
        return self.base.units()
