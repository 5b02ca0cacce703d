"""The keys of `vtray tune`: those of a training, and what is searched."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from pipelines.config import Frozen
from pipelines.finetune_config import FinetuneConfig, Stage
from vtray.classify.halving import rungs
from vtray.classify.proposals import Searcher
from vtray.classify.search_space import LogRange, Space, Values
from vtray.errors import ConfigError
from vtray.storage import absolute_uri


def _kind(value: object) -> str:
    """Which of the two a value was meant to be, so that its faults are told for that one alone."""
    return "range" if isinstance(value, dict | LogRange) else "list"


Numbers = Annotated[
    Annotated[LogRange, Tag("range")] | Annotated[tuple[float, ...], Tag("list")], Discriminator(_kind)
]
DEFAULT_TRIALS = 16  # unless a whole grid is searched
CONFIG_KEYS = {  # of the space -> of a training
    "lr": "lr",
    "freeze": "freeze",
    "train_stages": "train_stages",
    "weight_decay": "loop.weight_decay",
    "head_lr_factor": "loop.head_lr_factor",
    "recipe": "recipe",
}

AUTO = "auto"
FIXED_STAGES = ("linear_probe", "scratch")  # strategies that say themselves what is frozen


class SpaceConfig(Frozen):
    """The values that are tried, of one key each; null: the key is not searched."""

    lr: Numbers | None = Field(
        LogRange(low=1e-5, high=1e-2), description="learning rates: {low, high} on a log scale, or a list"
    )
    freeze: tuple[Stage, ...] | Literal["auto"] | None = Field(
        "auto", description="frozen stages: a list of numbers or names; auto: none, a third, two thirds, all"
    )
    train_stages: tuple[tuple[Stage, Stage], ...] | None = Field(
        None, description="surgical windows [a, b], in place of freeze"
    )
    weight_decay: Numbers | None = Field(None, description="weight decays: {low, high} or a list")
    head_lr_factor: Numbers | None = Field(None, description="learning rates of the head relative to the backbone")
    recipe: tuple[str, ...] | None = Field(None, description="augmentation recipe files; needs search.views")

    @field_validator("*")
    @classmethod
    def _not_empty(cls, axis: Any) -> Any:
        if axis == ():
            raise ValueError("no values to try; give some, or null to keep the training's own")
        return axis

    @field_validator("lr", "head_lr_factor")
    @classmethod
    def _positive(cls, axis: Any) -> Any:
        wrong = [value for value in axis if value <= 0] if isinstance(axis, tuple) else []
        if wrong:
            raise ValueError(f"{wrong[0]:g} is not allowed; allowed: above 0, such as 1e-4")
        return axis

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.train_stages is not None and isinstance(self.freeze, tuple):
            raise ValueError("freeze and train_stages: search one of them, and set the other to null")
        return self


class AshaConfig(Frozen):
    """Successive halving: which trials go on after the epochs grace_epochs * reduction_factor ** k."""

    grace_epochs: int = Field(1, ge=1, description="epochs that every trial gets; also of median stopping")
    reduction_factor: int = Field(3, ge=2, description="one trial in so many goes on at each rung")


class SearchConfig(Frozen):
    """How the search goes."""

    space: SpaceConfig = SpaceConfig()
    num_trials: int | None = Field(
        None, ge=1, description="trials, the default configuration included; default: 16, or the whole grid"
    )
    searcher: Searcher = Field("random", description="random; grid; optuna: TPE, needs vtray[optuna]")
    scheduler: Literal["asha", "median", "none"] = Field(
        "asha", description="what stops weak trials: successive halving, the median of the others, or nothing"
    )
    asha: AshaConfig = AshaConfig()
    metric: Literal["val_top1", "val_loss"] = Field("val_top1", description="what trials are compared by")
    views: int = Field(0, ge=0, description="augmented views of each training image in the caches; 0: plain ones")
    concurrency: int | None = Field(None, ge=1, description="trials at a time; default: as many as there is room")
    cpus_per_trial: int = Field(1, ge=1, description="CPUs that a trial computes with")
    wait_s: float = Field(300, gt=0, description="how long trials may wait for the cluster while none runs")
    top_k: int = Field(1, ge=1, description="how many of the best trials are trained in full")
    also_default: bool = Field(False, description="train the default configuration in full too; the better wins")
    soup: bool = Field(False, description="average the weights of those trainings, if that is better on val")

    @property
    def planned(self) -> int | None:
        """How many trials there are; None: as many as the grid has."""
        return self.num_trials or (None if self.searcher == "grid" else DEFAULT_TRIALS)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        if self.soup and self.top_k == 1 and not self.also_default:
            faults.append("soup: needs two trainings or more; raise top_k")
        if self.space.recipe is not None and not self.views:
            faults.append("space.recipe: trials see augmented images only with views; give views from 1 on")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class TuneConfig(FinetuneConfig):
    """`vtray tune`: a training, which is trial 0, and what is varied in the other trials."""

    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        search, faults = self.search, []
        if self.lr == "find" and search.space.lr is None:
            faults.append("lr find: trials need a number; search.space.lr searches it better")
        elif self.lr == "find":
            faults.append("lr find: trial 0 needs a number, such as 1e-4")
        if isinstance(search.space.freeze, tuple) and self.strategy in FIXED_STAGES:
            faults.append(f"strategy {self.strategy} leaves nothing to freeze: set search.space.freeze to null")
        if not self.axes():
            faults.append(f"search.space: nothing to search; give values for one of {', '.join(CONFIG_KEYS)}")
        if search.views and not (self.operators or self.recipe or search.space.recipe):
            faults.append(f"search.views {search.views}: views need operators or a recipe")
        if search.scheduler == "asha" and not self._rungs():
            faults.append(
                f"search.asha.grace_epochs {search.asha.grace_epochs}: with loop.epochs {self.loop.epochs} no "
                f"trial could be stopped; allowed: below {self.loop.epochs}; or use search.scheduler=none"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def axes(self) -> Space:
        """Key of a training's config -> the values to try; freeze may be `("auto",)`."""
        space: dict[str, Any] = self.search.space.model_dump(mode="json", exclude_none=True)
        fixed = self.strategy in FIXED_STAGES or self.train_stages or "train_stages" in space
        if space.get("freeze") == AUTO:
            space |= {"freeze": None if fixed else [AUTO]}
        named = {CONFIG_KEYS[name]: axis for name, axis in space.items() if axis is not None}
        return {key: LogRange(**axis) if isinstance(axis, dict) else tuple(axis) for key, axis in named.items()}

    def _rungs(self) -> tuple[int, ...]:
        asha = self.search.asha
        return rungs(
            grace_epochs=asha.grace_epochs, reduction_factor=asha.reduction_factor, epochs=self.loop.epochs
        )

    def training(self, values: Values, **others: Any) -> FinetuneConfig:
        """The config of a training with these values: dotted key -> value. others: of top-level keys.

        Raises: ConfigError for values that do not go together.
        """
        config = self.model_dump(mode="json", exclude={"search"}) | others
        for key, value in _complete(values).items():
            place = config
            *sections, name = key.split(".")
            for section in sections:
                place = place[section]
            place[name] = value
        try:
            return FinetuneConfig.model_validate(config)
        except ValidationError as error:
            shown = ", ".join(f"{key} {value}" for key, value in values.items())
            raise ConfigError(f"search.space: {shown}: {error.errors()[0]['msg']}") from error

    def default_values(self, keys: Space) -> Values:
        """The values of the training itself, which trial 0 has."""
        config: Any = self.model_dump(mode="json")
        found = {}
        for key in keys:
            section, _, name = key.rpartition(".")
            found[key] = (config[section] if section else config)[name]
        return found

    def from_anywhere(self) -> dict[str, Any]:
        values = super().from_anywhere()
        space = values["search"]["space"]
        if space["recipe"]:
            space["recipe"] = [absolute_uri(recipe) for recipe in space["recipe"]]
        return values


def _complete(values: Values) -> Values:
    """Values with what they exclude: a window is in place of frozen stages, a recipe in place of operators."""
    out = dict(values)
    if values.get("train_stages") is not None:
        out["freeze"] = "none"
    elif values.get("freeze") is not None:
        out["train_stages"] = None
    if values.get("recipe") is not None:
        out["operators"] = ()
    return out
