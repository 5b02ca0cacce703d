"""Tune: a training and a space of its keys in, the best configuration and its model out.

plan -> caches, one for each boundary -> trials on Ray Tune, one process each -> the best trained in full -> model
A trial with a record is over: the same command does what is left, wherever an earlier one was killed.
"""

import json
import logging
import time
from dataclasses import dataclass

from pipelines import batch, cluster
from pipelines.cluster import Cluster
from pipelines.finetune import device_of
from pipelines.finetune_finish import example_images
from pipelines.tune_config import TuneConfig
from pipelines.tune_cost import cache_costs, known_costs, merged, search_cost
from pipelines.tune_desk import Desk
from pipelines.tune_finish import PAGE, finish
from pipelines.tune_page import WINNER, Searched
from pipelines.tune_refit import Refit, refit, to_refit, winner_of
from pipelines.tune_report import TuneReport
from pipelines.tune_room import concurrency_of, everything_returned, trial_needs
from pipelines.tune_rows import SharedStart, all_boundaries, prepare
from pipelines.tune_work import JOB, TuneWork
from vtray.classify.mlflow_model import mlflow_model
from vtray.errors import UnfinishedUnits
from vtray.manifest import PLAN, Ledger, canonical
from vtray.sources import encode_units
from vtray.storage import absolute_uri, open_storage

log = logging.getLogger("vtray.tune")

__all__ = ["TuneConfig", "TuneReport", "run"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TuneRun:
    """A search on its way through its steps, on a connected cluster."""

    work: TuneWork
    desk: Desk
    cluster: Cluster

    @property
    def ledger(self) -> Ledger:
        return self.desk.ledger

    @property
    def folder(self) -> str:
        """Where this search keeps its state; another plan in the same output has another."""
        return f"_vtray/search-{self.work.plan().fingerprint[:12]}"

    @property
    def costs_key(self) -> str:
        return f"{self.folder}/caches.json"

    def search(self) -> None:
        """Run every trial that has no record. Raises: VtrayError."""
        pending = self.desk.pending
        if not pending:
            log.info("all %d trials are booked", self.desk.num_trials)
            return
        found = self.desk.proposals
        values = [found.values(number) for number in pending] if found.known else None
        trials = all_boundaries(self.work, values)
        with everything_returned():
            start = prepare(self.work, self.ledger, trials)
            self._keep_costs(start)
            self._run(start, trials)

    def _run(self, start: SharedStart, trials: list[dict[str, object]]) -> None:
        from pipelines.tune_ray import run_trials

        needs = trial_needs(self.work, start.rows, trials)
        wanted = self.work.config.search.concurrency
        concurrency = min(concurrency_of(self.cluster, needs, wanted), len(self.desk.pending))
        log.info("%d trials to run, %d at a time, each with %s", len(self.desk.pending), concurrency, needs)
        run_trials(self.desk, start.task, needs=needs, concurrency=concurrency)

    def _keep_costs(self, start: SharedStart) -> None:
        """What the caches cost, for the report, also of a run that goes on later."""
        costs = merged(known_costs(self.ledger, self.costs_key), cache_costs(start.rows))
        self.ledger.storage.put(self.costs_key, canonical({"caches": [vars(cost) for cost in costs]}))

    def conclude(self) -> Searched:
        """Train the best in full and choose the model. Raises: VtrayError."""
        records = tuple(self.desk.records[number] for number in range(self.desk.num_trials))
        chosen = to_refit(self.work, records)
        if not chosen:
            raise UnfinishedUnits(
                f"all {len(records)} trials failed, such as {records[0].name}: {records[0].reason}; mend that and "
                "use --set replan=true to try them again"
            )
        refits: list[Refit] = [refit(self.work, record, under=self.desk.tracker) for record in chosen]
        caches = tuple(known_costs(self.ledger, self.costs_key))
        return Searched(
            work=self.work,
            records=records,
            caches=caches,
            cost=search_cost(records, caches, epochs=self.work.base.epochs),
            refits=tuple(refits),
            winner=winner_of(self.work, refits),
        )


def run(config: TuneConfig) -> TuneReport:
    """Search what is not searched yet, train the best and finish the output; a finished one is left untouched.

    Raises: VtrayError.
    """
    started = time.monotonic()
    batch.require_apart(config)
    ledger = Ledger(open_storage(absolute_uri(config.output.uri)))
    work = TuneWork.of(config, device=device_of(config, ledger.read_json(PLAN), job=JOB))
    plan, found = work.plan(), work.proposals()
    ledger.begin(plan, lambda: encode_units(work.units()), replan=config.replan)
    if ledger.is_complete():
        return _finished(ledger, seconds=time.monotonic() - started)
    ledger.log({"event": "start", "time": time.time()})
    with batch.tracked(config, plan, ledger) as tracker:
        desk = Desk(work=work, ledger=ledger, tracker=tracker, proposals=found, num_trials=work.num_trials(found))
        desk.open(again=config.replan)
        connected = cluster.connect(config.cluster)
        cluster.require_shared_paths(
            connected, [work.base.source.uri, ledger.storage.uri], shared=config.shared_paths
        )
        running = TuneRun(work=work, desk=desk, cluster=connected)
        running.search()
        search_s = time.monotonic() - started
        searched = running.conclude()
        timed = (search_s, time.monotonic() - started)
        report, files = finish(searched, ledger, state=running.folder, timed=timed)
        tracker.log_metrics(report.metrics(), step=report.trials)
        tracker.log_artifacts(files)
        model = {name: content for name, content in files.items() if name not in (PAGE, WINNER)}
        tracker.log_model(
            mlflow_model(model, example_images(work.base)),
            registered_name=config.output.register_as,
            alias=config.output.alias,
        )
    ledger.log({"event": "complete", "time": time.time(), "val_top1": report.val_top1})
    return report


def _finished(ledger: Ledger, *, seconds: float) -> TuneReport:
    """The report of an output that was finished before."""
    values = json.loads(ledger.storage.read(batch.REPORT))
    for name in ("examples", "refits", "members"):
        values[name] = tuple(values[name])
    return TuneReport(**(values | {"nothing_to_do": True, "seconds": round(seconds, 3)}))
