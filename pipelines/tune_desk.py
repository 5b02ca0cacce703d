"""The books of a search while it runs: which trials are over, what is told to whom, and what is left to do.

A trial is over if and only if its record exists; the first one wins. Ray is not needed here.
"""

import json
import logging
import time
from dataclasses import dataclass, field

from pipelines.tune_work import TuneWork
from vtray.classify.proposals import Proposals
from vtray.classify.search_space import Values
from vtray.classify.trial_record import Status, TrialRecord, ranked, score, trial_name
from vtray.manifest import Json, Ledger, canonical
from vtray.tracking import Tracker

log = logging.getLogger("vtray.tune")

TRIALS = "_vtray/trials"


def read_records(ledger: Ledger) -> list[TrialRecord]:
    """The records of all trials that are over, by number."""
    keys = sorted(entry.key for entry in ledger.storage.list(TRIALS) if entry.key.endswith(".json"))
    return [TrialRecord.from_json(json.loads(ledger.storage.read(key))) for key in keys]


@dataclass(kw_only=True, eq=False)
class _Running:
    """A trial between its begin and its end."""

    values: Values
    attempts: int = 0
    epochs: list[Json] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class Desk:
    """Where the search is told what happens; it keeps records, tells tracking and the searcher, and logs.

    num_trials: in all. records: number -> record of those that are over.
    """

    work: TuneWork
    ledger: Ledger
    tracker: Tracker
    proposals: Proposals
    num_trials: int
    records: dict[int, TrialRecord] = field(default_factory=dict)
    _running: dict[int, _Running] = field(default_factory=dict)
    _children: dict[int, Tracker] = field(default_factory=dict)

    def open(self, *, again: bool) -> None:
        """Take in what earlier runs have booked.

        again: whether failed trials are tried again. Records of other work, of a plan that was replaced, are
        dropped.
        """
        for record in read_records(self.ledger):
            if not self._fits(record) or (again and record.status == "failed"):
                self.ledger.storage.delete(_key(record.number))
                continue
            self.records[record.number] = record
            self._tell(record)
            self._track_end(record)

    def _fits(self, record: TrialRecord) -> bool:
        """Whether a record is of a trial of this search."""
        if record.number >= self.num_trials:
            return False
        wanted = record.values
        if self.proposals.known:
            wanted = self.proposals.values(record.number)
        elif record.number == 0:
            wanted = self.work.default
        return record.values == wanted and record.digest == self._digest(wanted)

    @property
    def pending(self) -> list[int]:
        """The trials that are still to be run, in order."""
        return [number for number in range(self.num_trials) if number not in self.records]

    def values(self, number: int) -> Values:
        """The values of a trial that is to be run now."""
        values = self.proposals.values(number)
        self._running[number] = _Running(values=values)
        return values

    def begin(self, number: int) -> None:
        """A trial was started, for the first time or again."""
        running = self._running[number]
        running.attempts += 1
        running.epochs.clear()
        self.ledger.log(
            {"event": "trial", "time": time.time(), "trial": trial_name(number), "attempt": running.attempts}
        )

    def epoch(self, number: int, record: Json) -> None:
        """An epoch is done."""
        running = self._running[number]
        running.epochs.append({**record, "time": time.time()})
        self._child(number, running.values).log_history([_measures(running.epochs[-1])])

    def end(self, number: int) -> None:
        """A trial came to its end, or was stopped before; one that never began has no record."""
        running = self._running.get(number)
        if running and running.epochs:
            self._book(number, "complete" if running.epochs[-1]["done"] else "stopped")

    def fail(self, number: int, reason: str) -> None:
        """A trial failed for good."""
        self._book(number, "failed", reason=reason)

    def _book(self, number: int, status: Status, *, reason: str = "") -> None:
        running = self._running.pop(number)
        record = TrialRecord(
            number=number,
            digest=self._digest(running.values),
            values=running.values,
            frozen=self.work.frozen(running.values),
            status=status,
            reason=" ".join(reason.split()),
            attempts=running.attempts,
            epochs=tuple(running.epochs),
            finished=time.time(),
            keep=self.work.config.loop.keep,
        )
        if not self.ledger.storage.create(_key(number), canonical(record.to_json())):
            record = self._booked(number)
        self.records[number] = record
        self._tell(record)
        self._track_end(record)
        log.info("%s", self._line(record))

    def _child(self, number: int, values: Values) -> Tracker:
        """The MLflow run of a trial, below that of the search."""
        if number not in self._children:
            self._children[number] = self.tracker.child(trial_name(number), values)
        return self._children[number]

    def _booked(self, number: int) -> TrialRecord:
        return TrialRecord.from_json(json.loads(self.ledger.storage.read(_key(number))))

    def _digest(self, values: Values) -> str:
        return self.work.training(values).plan().fingerprint

    def _tell(self, record: TrialRecord) -> None:
        metric = self.work.config.search.metric
        curve = [] if record.status == "failed" else [score(epoch, metric) for epoch in record.epochs]
        self.proposals.tell(record.number, record.values, curve, stopped=record.status == "stopped")

    def _track_end(self, record: TrialRecord) -> None:
        """The whole curve again, as far as the run does not hold it, and the end of the child run."""
        child = self._child(record.number, record.values)
        child.log_history(map(_measures, record.epochs))
        if record.kept:
            child.log_metrics({"best_val_top1": record.kept["val_top1"]}, step=record.kept["step"])
        child.finish("FAILED" if record.status == "failed" else "FINISHED")

    def _line(self, record: TrialRecord) -> str:
        """For people: `trial 0003 (lr 0.0012): val top-1 93.8 % in 2 epochs, stopped; best 0001 ...; 5 of 16`."""
        values = ", ".join(f"{key} {value}" for key, value in record.values.items())
        kept = record.kept
        reached = f"val top-1 {100 * kept['val_top1']:.1f} %" if kept else record.reason
        told = f"{reached} in {len(record.epochs)} epochs, {record.status}"
        best = next(iter(ranked(list(self.records.values()), self.work.config.search.metric)), None)
        so_far = f"; best {best.name} with {100 * best.kept['val_top1']:.1f} %" if best else ""
        return f"trial {record.name} ({values}): {told}{so_far}; {len(self.records)} of {self.num_trials}"


def _key(number: int) -> str:
    return f"{TRIALS}/{trial_name(number)}.json"


def _measures(record: Json) -> Json:
    """What MLflow keeps of an epoch."""
    return {key: value for key, value in record.items() if key not in ("done", "phase")}
