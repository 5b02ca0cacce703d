"""The end of a training: the kept weights become a model folder with a page, and the output's books are closed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipelines import batch
from pipelines.evaluate_measures import findings_of
from pipelines.finetune_report import FinetuneReport, training_facts
from pipelines.finetune_rows import read_quarantine
from pipelines.finetune_stream import read_broken
from pipelines.finetune_work import UNIT, FinetuneWork
from vtray.augment.operator import Image
from vtray.classify.activations import Activations
from vtray.classify.backbone import Classifier
from vtray.classify.batches import StoredRows
from vtray.classify.calibration import fit_temperature
from vtray.classify.checkpoint import Checkpoint
from vtray.classify.evaluation import Evaluation
from vtray.classify.model_dir import FOLDER, Model, encode_model
from vtray.classify.preprocessing import decode_for
from vtray.classify.training import PhaseRows, TrainTask, kept_weights, read_epochs
from vtray.errors import StorageError, TooManyFailures
from vtray.manifest import FileRecord, Json, Ledger, Plan, Receipt, canonical
from vtray.report.classifier_findings import ClassifierFindings, HeadEntry
from vtray.report.classifier_page import classifier_page
from vtray.shards import QuarantineRow, encode_quarantine
from vtray.sources import Unit, read_unit
from vtray.steps.results import encoded_of, put
from vtray.storage import join_uri

METRICS = "metrics.jsonl"
PAGE = "report/index.html"
MEASURED = ("seconds", "images_per_s")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A training that came to its end. head: where the rows of the head came from. choices: the measured ones."""

    work: FinetuneWork
    task: TrainTask
    ledger: Ledger
    head: tuple[Json, ...]
    choices: Json

    @property
    def history(self) -> list[Json]:
        return read_epochs(self.ledger.storage, self.task.folder)

    def kept(self) -> Checkpoint:
        """The checkpoint that becomes the model. Raises: StorageError if it is not there any more."""
        checkpoints = self.task.checkpoints(self.ledger.storage)
        keep = self.work.config.loop.keep
        wanted = training_facts(self.history, keep=keep)["kept_epoch"]
        found = checkpoints.best() if keep == "best" else checkpoints.newest()
        if found is None or found.epoch != wanted:
            raise StorageError(
                f"{self.ledger.storage.uri}/{self.task.folder}: the checkpoint of epoch {wanted} is damaged; "
                "remove that folder to train again, or choose a new output.uri"
            )
        return found


def example_images(work: FinetuneWork) -> list[Image]:
    """One of the validation images as a crop, for the model's example in MLflow."""
    ref = work.examples.val[0]
    (source,) = read_unit(Unit(unit_id="example", format=work.source.format, refs=(ref,)))
    return [decode_for(work.preprocessing, encoded_of(source), work.config.max_pixels)]


def model_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those of a run's files that are the model itself."""
    return {name: content for name, content in files.items() if name != PAGE}


def finish(trained: Trained, *, seconds: float) -> tuple[FinetuneReport, dict[str, bytes]]:
    """Write model, page and books; returns the report and all files of the model."""
    storage, work = trained.ledger.storage, trained.work
    history = trained.history
    classifier = kept_weights(trained.task, trained.kept())
    logits, labels = validation_logits(work, trained.task.rows[-1], classifier)
    temperature = fit_temperature(logits, labels)
    model = Model(
        classifier=classifier, classes=work.classes, preprocessing=work.preprocessing, temperature=temperature
    )
    files = encode_model(model, config_yaml=batch.config_yaml(work.config)) | {METRICS: _lines(history)}
    broken = _broken(trained)
    _judge(trained, broken)
    records = tuple(put(storage, f"{FOLDER}/{name}", files[name], rows=0) for name in sorted(files))
    report = _report(trained, history, temperature=temperature, broken=broken, seconds=seconds)
    page = _page(trained, history, report, Evaluation.of(logits, labels, temperature=temperature))
    storage.put(PAGE, page)
    storage.put(batch.CONFIG, batch.config_yaml(work.config))
    closing = Closing(
        records=records, broken=broken, images=report.images, report=report.to_json(), state=trained.task.folder
    )
    close(trained.ledger, work, work.plan(), closing)
    return report, files | {PAGE: page}


def _judge(trained: Trained, broken: Sequence[Json]) -> None:
    """Raises: TooManyFailures before anything looks finished."""
    config, num_images = trained.work.config, len(trained.work.refs)
    if len(broken) > batch.allowed_failures(config, num_images):
        raise TooManyFailures(
            f"{len(broken)} of {num_images} images are broken, max_failed={config.max_failed} allows "
            f"{batch.allowed_failures(config, num_images)}; such as {broken[0]['image_id']} "
            f"({broken[0]['message']}); raise max_failed or mend the input"
        )


def _broken(trained: Trained) -> list[Json]:
    """The images that could not be used, each once, by image_id."""
    stored = read_quarantine(trained.task.rows)
    met = read_broken(trained.ledger.storage, trained.task.folder)
    found = {note["image_id"]: note for note in (*stored, *met)}
    return [found[name] for name in sorted(found)]


@dataclass(frozen=True, kw_only=True)
class Closing:
    """What the books of a finished training or search hold. state: the folder it kept for going on."""

    records: tuple[FileRecord, ...]
    broken: Sequence[Json]
    images: int
    report: Json
    state: str


def close(ledger: Ledger, work: FinetuneWork, plan: Plan, closing: Closing) -> None:
    """Receipt, manifest, report and `_SUCCESS`."""
    quarantine, broken = None, closing.broken
    if broken:
        rows = [QuarantineRow(**note) for note in broken]
        quarantine = put(ledger.storage, f"quarantine/{UNIT}.parquet", encode_quarantine(rows), rows=len(rows))
    ledger.book(
        Receipt(
            unit=UNIT,
            digest=plan.unit_digest(UNIT),
            files=closing.records,
            quarantine=quarantine,
            num_images=closing.images,
            num_failed=len(broken),
            examples=examples_of(broken),
        )
    )
    ledger.finish(plan, {"classes": list(work.classes)}, complete=True)
    ledger.storage.put(batch.REPORT, canonical(closing.report))
    ledger.mark_complete()
    kind = closing.state.partition("-")[0]
    for entry in ledger.storage.list("_vtray"):  # what a plan before this one kept for going on
        if entry.key.startswith(f"{kind}-") and not entry.key.startswith(f"{closing.state}/"):
            ledger.storage.delete(entry.key)


def examples_of(broken: Sequence[Json]) -> tuple[str, ...]:
    """A few broken images with their reason."""
    return tuple(f"{note['image_id']} ({note['message']})" for note in broken[:3])


@torch.inference_mode()
def validation_logits(
    work: FinetuneWork, rows: PhaseRows, classifier: Classifier
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, K) of the validation images in fp32, and their labels (N,)."""
    batches = list(StoredRows(rows=Activations.load(rows.val, "val")).evaluation())
    ready = work.preprocessing.pixels if rows.start == 0 else torch.Tensor.float
    logits = [classifier(ready(each.inputs), start=rows.start) for each in batches]
    return torch.cat(logits), torch.cat([each.labels for each in batches])


def _report(
    trained: Trained, history: Sequence[Json], *, temperature: float, broken: Sequence[Json], seconds: float
) -> FinetuneReport:
    work = trained.work
    facts = training_facts(history, keep=work.config.loop.keep)
    return FinetuneReport(
        status="complete",
        output=trained.ledger.storage.uri,
        model=join_uri(trained.ledger.storage.uri, FOLDER),
        backbone=work.config.backbone,
        classes=len(work.classes),
        images=len(work.refs),
        failed=len(broken),
        examples=examples_of(broken),
        temperature=temperature,
        lr=trained.choices["lr"],
        precision=trained.choices["precision"],
        layout=trained.choices["layout"],
        head_reused=sum(row["source"] == "reused" for row in trained.head),
        seconds=round(seconds, 3),
        **facts,
    )


def _page(trained: Trained, history: Sequence[Json], report: FinetuneReport, evaluation: Evaluation) -> bytes:
    plan = trained.work.plan()
    findings = ClassifierFindings(
        title=f"{report.backbone} for {report.classes} classes",
        command=f"vtray finetune --config {join_uri(report.output, batch.CONFIG)}",
        classes=trained.work.classes,
        output=report.output,
        fingerprint=plan.fingerprint,
        head=tuple(
            HeadEntry(class_name=row["class_name"], source=row["source"], origin=row["origin"])
            for row in trained.head
        ),
        epochs=tuple(history),
        splits={"val": findings_of(evaluation, temperature=report.temperature)},
        config=plan.config,
        examples=report.examples,
        versions=plan.versions,
    )
    return classifier_page(findings).encode()


def _lines(history: Sequence[Json]) -> bytes:
    """One line of JSON per epoch, without what differs from run to run."""
    lines = ({key: value for key, value in record.items() if key not in MEASURED} for record in history)
    return b"".join(json.dumps(line, sort_keys=True).encode() + b"\n" for line in lines)
