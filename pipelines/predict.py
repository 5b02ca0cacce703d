"""Predict: a catalog of images in, one row with the class of each image out.

open_source, units -> model -> plan -> [one row = one unit: ClassifyUnit on a worker] -> receipts -> books
"""

import time
from collections.abc import Callable, Sequence

from pipelines import batch
from pipelines.classify import ClassifyJob, cut, gpu_in_cluster, open_model, plan_of, step_of, work_of
from pipelines.predict_config import PredictConfig
from pipelines.predict_page import preview
from pipelines.predict_report import PredictReport
from vtray.classify.evaluation import Doubt, worst
from vtray.manifest import Json, Receipt

JOB = "predict"


class PredictJob(ClassifyJob):
    """A config, its model and its input, ready to run by `batch.run`."""

    def report(self, manifest: Json, receipts: Sequence[Receipt], *, seconds: float) -> PredictReport:
        return PredictReport.of(manifest, receipts, output=self.output_uri, seconds=seconds)

    def records(self, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """None: everything is in the rows."""
        return {}

    def preview(self, report: PredictReport, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """The page and its sheet: file name -> bytes."""
        records = [record for receipt in receipts for record in receipt.records]
        return preview(self, report, worst(Doubt(**doubt) for record in records for doubt in record["doubts"]))


def prepare(config: PredictConfig, *, has_gpu: Callable[[], bool]) -> PredictJob:
    """List the catalog and read the model, before anything is written; has_gpu: see `classify.step_of`.

    Raises: InputError, ConfigError, WeightsError, StorageError.
    """
    source = batch.open_input(config)
    model = open_model(config)
    step = step_of(config, model, has_gpu=has_gpu)
    units = cut(source, config)
    work, digests = work_of(config, model, source, step), {unit.unit_id: unit.digest for unit in units}
    return PredictJob(
        config=config,
        model=model,
        source=source,
        units=units,
        step=step,
        plan=plan_of(JOB, config, work=work, digests=digests),
    )


def run(config: PredictConfig) -> PredictReport:
    """Do what is not done yet and finish the output, see `batch.run`. Raises: VtrayError."""
    started = time.monotonic()
    batch.require_apart(config)
    return batch.run(prepare(config, has_gpu=lambda: gpu_in_cluster(config)), started=started)
