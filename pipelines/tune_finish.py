"""The end of a search: the winner's model, the page and the report, and the output's books are closed."""

from pipelines import batch
from pipelines.finetune_finish import Closing, close, examples_of, model_files
from pipelines.finetune_rows import read_quarantine
from pipelines.tune_page import WINNER, Searched, page
from pipelines.tune_refit import winner_yaml
from pipelines.tune_report import TuneReport
from vtray.classify.model_dir import FOLDER
from vtray.classify.training import PhaseRows
from vtray.classify.trial_record import TrialRecord
from vtray.manifest import Json, Ledger
from vtray.steps.results import put
from vtray.storage import absolute_uri, join_uri

PAGE = "report/index.html"

Finished = tuple[TuneReport, dict[str, bytes]]  # with the files for tracking


def finish(searched: Searched, ledger: Ledger, *, state: str, timed: tuple[float, float]) -> Finished:
    """Write model, page and books; returns the report and the files for tracking.

    state: the folder of the search's state. timed: seconds of the search and of the whole run.
    """
    storage, work, winner = ledger.storage, searched.work, searched.winner
    files = winner.files
    records = tuple(put(storage, f"{FOLDER}/{name}", files[name], rows=0) for name in sorted(files))
    broken = read_quarantine([PhaseRows(val=absolute_uri(winner.best.config.output.uri))])
    report = report_of(searched, broken, timed=timed)
    html = page(searched)
    storage.put(PAGE, html)
    storage.put(WINNER, winner_yaml(winner.best))
    storage.put(batch.CONFIG, batch.config_yaml(work.config))
    closing = Closing(records=records, broken=broken, images=report.images, report=report.to_json(), state=state)
    close(ledger, work.base, work.plan(), closing)
    return report, model_files(files) | {PAGE: html, WINNER: winner_yaml(winner.best)}


def report_of(searched: Searched, broken: list[Json], *, timed: tuple[float, float]) -> TuneReport:
    """The report of a search that was done now."""
    work, winner, records = searched.work, searched.winner, searched.records
    output = work.base.output_uri
    search_s, seconds = timed
    return TuneReport(
        status="complete",
        output=output,
        model=join_uri(output, FOLDER),
        backbone=work.config.backbone,
        classes=len(work.base.classes),
        images=len(work.base.refs),
        failed=len(broken),
        examples=examples_of(broken),
        trials=len(records),
        stopped=_count(records, "stopped"),
        trials_failed=_count(records, "failed"),
        best=searched.best.name,
        values=searched.best.values,
        trial_top1=searched.best.kept["val_top1"],
        default_top1=records[0].kept.get("val_top1"),
        refits=tuple(each.trial.name for each in searched.refits),
        members=winner.members,
        val_top1=winner.val_top1,
        val_loss=winner.val_loss,
        cost=searched.cost.to_json(),
        command=searched.command,
        search_s=round(search_s, 3),
        seconds=round(seconds, 3),
    )


def _count(records: tuple[TrialRecord, ...], status: str) -> int:
    return sum(record.status == status for record in records)
