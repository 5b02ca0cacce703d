"""What the page of a search says, out of its records."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import batch
from pipelines.tune_cost import CacheCost, SearchCost
from pipelines.tune_refit import Refit, Winner
from pipelines.tune_work import TuneWork
from vtray.classify.trial_record import TrialRecord, trial_name
from vtray.report.numbers import bytes_text, count_text
from vtray.report.search_findings import CostRow, SearchFindings, TrainedRow, TrialRow
from vtray.report.search_page import depth_name, search_page, value_text
from vtray.storage import join_uri

WINNER = "winner.yaml"


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A search that came to its end."""

    work: TuneWork
    records: tuple[TrialRecord, ...]
    caches: tuple[CacheCost, ...]
    cost: SearchCost
    refits: tuple[Refit, ...]
    winner: Winner

    @property
    def best(self) -> TrialRecord:
        return self.winner.best.trial

    @property
    def command(self) -> str:
        """What repeats the winner's training, in a place to be chosen."""
        file = shlex.quote(join_uri(self.work.base.output_uri, WINNER))
        return f"vtray finetune --config {file} --set output.uri=OUTPUT"


def page(searched: Searched) -> bytes:
    """The page, UTF-8."""
    work, stages = searched.work, searched.work.stage_names
    plan, output = work.plan(), work.base.output_uri
    findings = SearchFindings(
        title=f"{work.config.backbone} for {len(work.base.classes)} classes",
        output=output,
        best=searched.best.name,
        trials=tuple(_row(work, record) for record in searched.records),
        stages=stages,
        epochs=work.base.epochs,
        command=searched.command,
        again=f"vtray tune --config {shlex.quote(join_uri(output, batch.CONFIG))}",
        trained=tuple(
            TrainedRow(name=each.trial.name, top1=each.report.val_top1, seconds=each.report.seconds)
            for each in searched.refits
        ),
        members=tuple(map(trial_name, searched.winner.members)),
        model_top1=searched.winner.val_top1,
        caches=_caches(searched.caches, stages),
        caches_s=searched.cost.caches,
        trials_s=searched.cost.trials,
        uncached_s=searched.cost.uncached,
        config=plan.config,
        fingerprint=plan.fingerprint,
        versions=plan.versions,
    )
    return search_page(findings).encode()


def _row(work: TuneWork, record: TrialRecord) -> TrialRow:
    return TrialRow(
        name=record.name,
        lr=float(work.training(record.values).config.lr),
        depth=record.frozen,
        values={key: value_text(value) for key, value in record.values.items()},
        status=record.status,
        curve=tuple(float(epoch["val_top1"]) for epoch in record.epochs),
        top1=record.kept.get("val_top1"),
        seconds=record.seconds,
        attempts=record.attempts,
        reason=record.reason,
    )


def _caches(caches: Sequence[CacheCost], stages: tuple[str, ...]) -> tuple[CostRow, ...]:
    return tuple(
        CostRow(
            name=depth_name(cache.frozen, stages) if cache.frozen else "crops",
            contents=f"{count_text(cache.rows)} rows, {bytes_text(cache.bytes)}",
            seconds=cache.seconds,
        )
        for cache in caches
    )
