"""Ray Tune around a search: trials as actors of one process each, started in order, stopped by a scheduler.

Resuming is not Ray's: every run is a new experiment of the trials without a record, and the scheduler is told the
curves of the others. Imports Ray at the top, so it is imported when the cluster is there.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from pipelines.cluster import WorkerNeeds
from pipelines.tune_config import SearchConfig
from pipelines.tune_desk import Desk
from vtray.classify.search_space import Values
from vtray.classify.training import TrainTask
from vtray.classify.trial_record import Metric, TrialRecord, score
from vtray.errors import ConfigError, InputError, ResourcesError, TrainingDiverged, UnfinishedUnits
from vtray.manifest import Json
from vtray.steps.train_trial import train_trial

SCORE, EPOCHS = "score", "epochs"  # of a result: higher is better, and how many there were
WORST = {"val_top1": 0.0, "val_loss": -1e9}  # what a diverged trial counts as
RETRIES = 1
CPU_SHARE = 0.95  # as of all our workers: what else Ray starts must not starve
HOPELESS = (TrainingDiverged, ConfigError, InputError)  # the same again, however often it is tried


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """A process that does one trial after another; a step is an epoch. Nothing is kept when it dies."""

    def setup(self, config: dict[str, Any]) -> None:
        """config: the trial's `number`, `task` and the search's `metric`."""
        self._metric: Metric = config["metric"]
        self._epochs: Iterator[Json] = train_trial(config["task"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The result of one epoch, or why there will be none."""
        try:
            record = next(self._epochs)
        except HOPELESS as error:
            return {"failure": str(error), SCORE: WORST[self._metric], EPOCHS: self.iteration + 1, "done": True}
        return {
            "record": record,
            SCORE: score(record, self._metric),
            EPOCHS: record["epoch"] + 1,
            "done": record["done"],
        }


# stopping --------------------------------------------------------------------------------------------------------


class _Spares(TrialScheduler):  # type: ignore[misc]
    """Never stops trial 0: what all others are compared with is a whole training. Pauses nothing either."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action: str = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.CONTINUE or (trial.config["number"] == 0 and not result.get("done")):
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)


class Asha(_Spares, ASHAScheduler):  # type: ignore[misc]
    """Ray's own successive halving."""


class Median(_Spares, MedianStoppingRule):  # type: ignore[misc]
    """Ray's own median rule."""


def scheduler_of(search: SearchConfig, *, epochs: int) -> TrialScheduler:
    """What decides after each epoch whether a trial goes on."""
    compared = {"time_attr": EPOCHS, "metric": SCORE, "mode": "max"}
    if search.scheduler == "asha":
        asha = search.asha
        return Asha(
            **compared, max_t=epochs, grace_period=asha.grace_epochs, reduction_factor=asha.reduction_factor
        )
    if search.scheduler == "median":  # a soft stop is a pause, which does not trip over a trial that goes on
        never = float("inf")
        return Median(**compared, grace_period=search.asha.grace_epochs, min_time_slice=never, hard_stop=False)
    return FIFOScheduler()


@dataclass(frozen=True, eq=False)
class _Past:
    """A trial of an earlier run, as far as a scheduler looks at one."""

    trial_id: str
    config: dict[str, Any]


def replay(scheduler: TrialScheduler, records: Iterable[TrialRecord], metric: Metric) -> None:
    """Tell a new scheduler the curves of trials that are over, in the order in which they ended."""
    if isinstance(scheduler, FIFOScheduler) and not isinstance(scheduler, _Spares):
        return
    for record in sorted(records, key=lambda each: each.finished):
        past = _Past(f"past_{record.name}", {"number": record.number})
        results = [
            {SCORE: score(epoch, metric), EPOCHS: epoch["epoch"] + 1, "done": epoch["done"]}
            for epoch in record.epochs
        ]
        if not results:
            continue
        scheduler.on_trial_add(None, past)
        for result in results:
            scheduler.on_trial_result(None, past, result)
        scheduler.on_trial_complete(None, past, results[-1])


# starting --------------------------------------------------------------------------------------------------------


class _OfDriver:
    """Lives in the driver alone: Ray's snapshots of an experiment, which nobody restores, hold nothing of it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: object) -> Self:
        return self


class Queue(_OfDriver, Searcher):  # type: ignore[misc]
    """Gives Ray Tune the trials that are still to be run, in order, with the values that are proposed for each."""

    def __init__(self, desk: Desk, task_of: Callable[[Values], TrainTask]) -> None:
        super().__init__()
        self._desk, self._task_of = desk, task_of
        self._waiting = iter(desk.pending)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        number = next(self._waiting, None)
        if number is None:
            return str(Searcher.FINISHED)
        task = self._task_of(self._desk.values(number))
        return {"number": number, "task": task, "metric": self._desk.work.config.search.metric}

    def on_trial_complete(self, trial_id: str, result: Json | None = None, error: bool = False) -> None:
        """The desk tells the proposals itself."""

    def save(self, checkpoint_path: str) -> None:
        """Ray's snapshots are not used; it wants a file nevertheless."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Never called: see the module."""


class Patience(tune.Stopper):  # type: ignore[misc]
    """Ends the experiment when trials have waited for the cluster too long while none ran."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self.last = time.monotonic()

    def __call__(self, trial_id: str, result: Json) -> bool:
        return False

    def stop_all(self) -> bool:
        return time.monotonic() - self.last > self.wait_s


class Watch(_OfDriver, tune.Callback):  # type: ignore[misc]
    """Tells the desk what happens to trials."""

    def __init__(self, desk: Desk, patience: Patience) -> None:
        self._desk, self._patience = desk, patience
        self._failures: dict[int, str] = {}  # of trials that cannot go better

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._desk.begin(trial.config["number"])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Json, **info: Any) -> None:
        number = trial.config["number"]
        if "failure" in result:
            self._failures[number] = result["failure"]
        else:
            self._desk.epoch(number, result["record"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        if number in self._failures:
            self._desk.fail(number, self._failures[number])
        else:
            self._desk.end(number)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._desk.fail(trial.config["number"], _reason(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if any(trial.status == "RUNNING" for trial in trials):
            self._patience.last = time.monotonic()


def _reason(trial: Any) -> str:
    """The last line of what Ray says about a trial that failed for good."""
    error = trial.get_error()
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"failed {RETRIES + 1} times: {lines[-1] if lines else 'its process died'}"


# the whole -------------------------------------------------------------------------------------------------------


def run_trials(
    desk: Desk, task_of: Callable[[Values], TrainTask], *, needs: WorkerNeeds, concurrency: int
) -> None:
    """Run what the desk has pending on the connected cluster, until every trial has a record.

    Raises: ResourcesError if no trial could start; UnfinishedUnits if some have no record.
    """
    search = desk.work.config.search
    scheduler = scheduler_of(search, epochs=desk.work.base.epochs)
    replay(scheduler, desk.records.values(), search.metric)
    patience = Patience(search.wait_s)
    folder = tempfile.mkdtemp(prefix="vtray-tune-")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the desk says what failed, in a line
    tuner = tune.Tuner(
        tune.with_resources(TrialActor, _resources(needs)),
        tune_config=tune.TuneConfig(
            search_alg=Queue(desk, task_of),
            scheduler=scheduler,
            num_samples=len(desk.pending),
            max_concurrent_trials=concurrency,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            stop=patience,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            callbacks=[Watch(desk, patience)],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _require_all(desk, patience, needs)


def _resources(needs: WorkerNeeds) -> dict[str, float]:
    found = {"cpu": CPU_SHARE * needs.cpus, "gpu": float(needs.gpus), "memory": float(needs.memory_bytes)}
    return {name: amount for name, amount in found.items() if amount}


def _name(trial: Any) -> str:
    return f"trial_{trial.config['number']:04}_{trial.trial_id}"


def _require_all(desk: Desk, patience: Patience, needs: WorkerNeeds) -> None:
    import ray

    left = desk.pending
    if left and patience.stop_all():
        free = ", ".join(f"{ray.available_resources().get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
        raise ResourcesError(
            f"no trial could start within {patience.wait_s:g} s: each needs {needs} and the cluster has {free} "
            "free; another job holds the rest: wait for it, or raise search.wait_s"
        )
    if left:
        raise UnfinishedUnits(f"{len(left)} of {desk.num_trials} trials are not done; run the same command again")
