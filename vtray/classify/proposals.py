"""Which values each trial of a search gets. Trial 0 is the default configuration: a search cannot lose to none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vtray.classify.search_space import LogRange, Space, Values, drawn, grid
from vtray.errors import ConfigError
from vtray.seeding import seed_for

Searcher = Literal["random", "grid", "optuna"]
Curve = Sequence[float]  # what a trial reached after each epoch, higher is better


class Proposals(Protocol):
    """What proposes the values of a trial."""

    @property
    def known(self) -> bool:
        """Whether values depend on nothing but the number."""

    def values(self, number: int) -> Values:
        """The values of a trial that is to be run."""

    def tell(self, number: int, values: Values, curve: Curve, *, stopped: bool) -> None:
        """What became of a trial, of this run or an earlier one; no curve: it failed."""


class Listed:
    """Values that are known beforehand: drawn at random, or a grid."""

    known = True

    def __init__(self, listed: Sequence[Values]) -> None:
        self.listed = tuple(listed)

    def values(self, number: int) -> Values:
        """The values of a trial. Raises: IndexError for one that is not planned."""
        return dict(self.listed[number])

    def tell(self, number: int, values: Values, curve: Curve, *, stopped: bool) -> None:
        """Nothing follows from it."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What is searched. default: the values of trial 0. num_trials: None for a whole grid."""

    space: Space
    default: Values
    seed: int
    num_trials: int | None


def drawn_trials(ground: Ground) -> Listed:
    """The default and random draws."""
    numbers = range(1, ground.num_trials or 1)
    return Listed([ground.default, *(drawn(ground.space, seed=ground.seed, number=n) for n in numbers)])


def grid_trials(ground: Ground) -> Listed:
    """The default and the combinations of the grid, the default only once; `num_trials` of them at most."""
    others = (values for values in grid(ground.space, seed=ground.seed) if values != ground.default)
    return Listed([ground.default, *others][: ground.num_trials])


class Optuna:
    """Tree-structured Parzen estimators of Optuna, which learn from the trials before.

    The values of a trial follow from the seed, its number and what was told before; after a crash the told trials
    are told again.
    """

    known = False

    def __init__(self, ground: Ground) -> None:
        """Raises: ConfigError if Optuna is not installed."""
        self._optuna = _import_optuna()
        self._space, self._default, self._seed = ground.space, ground.default, ground.seed
        self._study = self._optuna.create_study(direction="maximize")
        self._asked: dict[int, Any] = {}

    def values(self, number: int) -> Values:
        """The default for trial 0, else what the study suggests."""
        trial = self._asked[number] = self._ask(number)
        if number == 0:
            return dict(self._default)
        return {key: _suggest(trial, key, axis) for key, axis in self._space.items()}

    def tell(self, number: int, values: Values, curve: Curve, *, stopped: bool) -> None:
        """Take in a trial; one that was stopped early counts as far as it came."""
        known = all(_holds(self._space[key], value) for key, value in values.items())
        if not known:  # the default may lie outside of the space: nothing can be learned from it
            return
        states = self._optuna.trial.TrialState
        state = states.FAIL if not curve else states.PRUNED if stopped else states.COMPLETE
        told = self._optuna.trial.create_trial(
            params={key: _encoded(self._space[key], value) for key, value in values.items()},
            distributions={key: self._distribution(axis) for key, axis in self._space.items()},
            intermediate_values=dict(enumerate(curve)),
            value=max(curve) if curve and not stopped else None,
            state=state,
        )
        self._forget(number)
        self._study.add_trial(told)

    def _ask(self, number: int) -> Any:
        seed = seed_for(self._seed, "optuna", number) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
        return self._study.ask()

    def _forget(self, number: int) -> None:
        """End the question behind a trial, whose answer is added as a trial of its own."""
        if asked := self._asked.pop(number, None):
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)

    def _distribution(self, axis: Any) -> Any:
        kinds = self._optuna.distributions
        if isinstance(axis, LogRange):
            return kinds.FloatDistribution(axis.low, axis.high, log=True)
        return kinds.CategoricalDistribution(range(len(axis)))


def _suggest(trial: Any, key: str, axis: Any) -> Any:
    if isinstance(axis, LogRange):
        return float(f"{trial.suggest_float(key, axis.low, axis.high, log=True):.4g}")
    return axis[trial.suggest_categorical(key, range(len(axis)))]


def _encoded(axis: Any, value: Any) -> Any:
    """As Optuna holds it: choices by their place, since not all of them are numbers or words."""
    return value if isinstance(axis, LogRange) else axis.index(value)


def _holds(axis: Any, value: Any) -> bool:
    return axis.low <= value <= axis.high if isinstance(axis, LogRange) else value in axis


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "search.searcher optuna: Optuna is not installed; pip install 'vtray[optuna]', or use random or grid"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def proposals(searcher: Searcher, ground: Ground) -> Proposals:
    """Raises: ConfigError if the searcher is not installed."""
    if searcher == "optuna":
        return Optuna(ground)
    return grid_trials(ground) if searcher == "grid" else drawn_trials(ground)
