"""The page and the sheet that a predict run leaves: images per class, and the least certain ones."""

import logging
from collections.abc import Sequence

from pipelines.classify import ClassifyJob
from pipelines.classify_images import read_crops
from pipelines.predict_report import PredictReport
from vtray.classify.evaluation import Doubt
from vtray.errors import StorageError
from vtray.images import encode
from vtray.report import fragments as html
from vtray.report.document import Heading, count_bars, document, failures, how_made, time_by_phase
from vtray.report.numbers import bytes_text, count_text, share_text
from vtray.report.sheet import Cell, SheetRow, contact_sheet

log = logging.getLogger(__name__)

SHEET = "least_certain.png"
COLUMNS = 4
PHASE_ORDER = ("load", "read", "decode", "classify", "write")


def preview(job: ClassifyJob, report: PredictReport, doubts: Sequence[Doubt]) -> dict[str, bytes]:
    """index.html and least_certain.png; a sheet that cannot be made is a warning."""
    try:
        sheets = {SHEET: _sheet(job, doubts)} if doubts else {}
    except StorageError as error:
        log.warning("no contact sheet: %s", error)
        sheets = {}
    return sheets | {"index.html": _page(job, report, shown=bool(sheets)).encode()}


def _sheet(job: ClassifyJob, doubts: Sequence[Doubt]) -> bytes:
    """As the network saw them, the least certain first."""
    crops = read_crops(job, [doubt.image_id for doubt in doubts])
    cells = [
        Cell(
            image=crops.get(doubt.image_id),
            caption=f"{doubt.class_name} {share_text(doubt.probability, 1)}, {doubt.image_id}",
        )
        for doubt in doubts
    ]
    rows = [SheetRow(label="", cells=cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)]
    return encode(contact_sheet(rows, columns=("",) * COLUMNS), format="png")


def _page(job: ClassifyJob, report: PredictReport, *, shown: bool) -> str:
    tiles = {
        "images": count_text(report.images),
        "failed": count_text(report.failed),
        "classes found": f"{len(report.rows_by_class)} of {len(job.model.classes)}",
        "size": bytes_text(report.bytes),
    }
    sections = {
        "Totals": [html.tiles(tiles)],
        "Images per class": [count_bars(report.rows_by_class)] if report.rows_by_class else [],
        "Least certain": [html.figure(SHEET, caption="The images that the model is least sure of")] * shown,
        "Failures": failures(report.failures, report.examples),
        "Where the time went": time_by_phase(report.phase_seconds, order=PHASE_ORDER),
        "Model": [html.pairs((name, str(value)) for name, value in job.plan.work["model"].items())],
        "Run it again": [html.code(job.command), how_made(job.plan.fingerprint, job.plan.versions)],
    }
    return document(Heading(job=job.plan.job, output=report.output, status=report.status), sections)
