"""Evaluate: labelled images in, how good a model is on them and where it fails out.

open_source, split -> model -> plan -> [one row = one unit: ClassifyUnit with checks] -> page
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipelines import batch
from pipelines.classify import ClassifyJob, cut, gpu_in_cluster, open_model, plan_of, step_of, work_of
from pipelines.evaluate_config import EvaluateConfig
from pipelines.evaluate_input import checks_of, open_labelled
from pipelines.evaluate_measures import measures
from pipelines.evaluate_page import preview
from pipelines.evaluate_report import METRICS, EvaluateReport
from vtray.classify.evaluation import Doubt, Evaluation, total, worst
from vtray.classify.model_dir import Model
from vtray.manifest import Json, Ledger, Receipt, canonical, sha256
from vtray.sources import Source, Unit
from vtray.steps.classify_unit import Checks
from vtray.storage import open_storage

JOB = "evaluate"


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(ClassifyJob):
    """A config, its model and the images of one split, ready to run by `batch.run`."""

    split: str

    @property
    def facts(self) -> Json:
        return super().facts | {"split": self.split}

    def report(self, manifest: Json, receipts: Sequence[Receipt], *, seconds: float) -> EvaluateReport:
        measured = self._measures(receipts) if receipts else self._stored()
        counted = manifest["totals"]["images"] - manifest["totals"]["failed"]
        assert measured["evaluated"] == counted, (
            f"{measured['evaluated']} images were counted, {counted} are there"
        )
        known = manifest | {"measured": measured}
        return EvaluateReport.of(known, receipts, output=self.output_uri, seconds=seconds)

    def records(self, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """The measures for programs."""
        return {METRICS: canonical(self._measures(receipts))}

    def preview(self, report: EvaluateReport, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """The page and the sheet of the worst images: file name -> bytes."""
        records = [record for receipt in receipts for record in receipt.records]
        doubts = worst(Doubt(**doubt) for record in records for doubt in record["doubts"])
        return preview(self, report, (self._total(receipts), doubts))

    def _total(self, receipts: Sequence[Receipt]) -> Evaluation:
        records = [record["evaluation"] for receipt in receipts for record in receipt.records]
        parts = [Evaluation.from_json(record) for record in records]
        return total(parts, num_classes=len(self.model.classes))

    def _measures(self, receipts: Sequence[Receipt]) -> Json:
        return measures(self._total(receipts), self.model.classes, temperature=self.model.temperature)

    def _stored(self) -> Json:
        """The measures of a run that was finished before, added up again if somebody removed their file."""
        ledger = Ledger(open_storage(self.output_uri))
        stored = ledger.read_json(METRICS)
        return stored if stored is not None else self._measures(ledger.receipts(sorted(self.plan.units)))


def prepare(config: EvaluateConfig, *, has_gpu: Callable[[], bool]) -> EvaluateJob:
    """List the input, read the model and check that they belong together, before anything is written.

    has_gpu: see `classify.step_of`. Raises: InputError, ConfigError, WeightsError, StorageError.
    """
    model = open_model(config)
    return prepare_images(config, model, open_labelled(config, model.classes), has_gpu=has_gpu)


def prepare_images(
    config: EvaluateConfig, model: Model, labelled: tuple[Source, str], *, has_gpu: Callable[[], bool]
) -> EvaluateJob:
    """The job for images that are chosen already: a source with only these, and the name of what they are.

    Raises: InputError if the output holds what vtray did not write; StorageError.
    """
    source, split = labelled
    checks = checks_of(config, source)
    step = replace(step_of(config, model, has_gpu=has_gpu), checks=checks)
    units = cut(source, config)
    work = work_of(config, model, source, step) | {"split": split, "robustness": _describe(config, checks)}
    digests = {unit.unit_id: _unit_digest(unit, checks) for unit in units}
    return EvaluateJob(
        config=config,
        model=model,
        source=source,
        units=units,
        step=step,
        plan=plan_of(JOB, config, work=work, digests=digests),
        split=split,
    )


def _describe(config: EvaluateConfig, checks: Checks) -> Json:
    """What is measured besides the clean images, as JSON values."""
    return {
        "conditions": list(checks.conditions),
        "severities": list(checks.severities),
        "max_images": config.robustness.max_images,
        "seed": checks.seed,
    }


def _unit_digest(unit: Unit, checks: Checks) -> str:
    """Names the unit's images, and which of them are in the sample."""
    sampled = [ref.image_id for ref in unit.refs if ref.image_id in checks.sample]
    return sha256(canonical([unit.digest, sampled])) if sampled else unit.digest


def run(config: EvaluateConfig) -> EvaluateReport:
    """Do what is not done yet and finish the output, see `batch.run`. Raises: VtrayError."""
    started = time.monotonic()
    batch.require_apart(config)
    return batch.run(prepare(config, has_gpu=lambda: gpu_in_cluster(config)), started=started)
