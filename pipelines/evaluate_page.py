"""The page that an evaluation leaves, and the sheet of the worst images with where the model looked."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from pipelines.classify import ClassifyJob
from pipelines.classify_images import read_crops
from pipelines.evaluate_measures import findings_of
from pipelines.evaluate_report import EvaluateReport
from vtray.classify.evaluation import Doubt, Evaluation
from vtray.classify.gradcam import grad_cam, overlay
from vtray.classify.model_dir import Model
from vtray.errors import ConfigError, StorageError
from vtray.report.classifier_findings import ClassifierFindings
from vtray.report.classifier_page import classifier_page
from vtray.report.sheet import Image
from vtray.report.worst_sheet import WorstImage, worst_images_lines, worst_images_sheet

log = logging.getLogger(__name__)

SHEET = "worst.png"


def preview(
    job: ClassifyJob, report: EvaluateReport, measured: tuple[Evaluation, Sequence[Doubt]]
) -> dict[str, bytes]:
    """index.html and worst.png; a sheet that cannot be made is a warning."""
    evaluation, doubts = measured
    try:
        entries = _worst(job, doubts)
    except StorageError as error:
        log.warning("no sheet of the worst images: %s", error)
        entries = []
    sheets = {SHEET: worst_images_sheet(entries)} if entries else {}
    page = classifier_page(_findings(job, report, evaluation, entries))
    return sheets | {"index.html": page.encode()}


def _worst(job: ClassifyJob, doubts: Sequence[Doubt]) -> list[WorstImage]:
    """The images as the network saw them, with a heat map for the class that it took them for."""
    crops = read_crops(job, [doubt.image_id for doubt in doubts])
    shown = [doubt for doubt in doubts if doubt.image_id in crops]
    overlays = _overlays(job.model, [(crops[doubt.image_id], doubt.class_name) for doubt in shown])
    return [
        WorstImage(
            image=crops[doubt.image_id],
            overlay=overlays[number],
            true_class=doubt.true_class,
            predicted_class=doubt.class_name,
            probability=doubt.probability,
            image_id=doubt.image_id,
        )
        for number, doubt in enumerate(shown)
    ]


def _overlays(model: Model, shown: Sequence[tuple[Image, str]]) -> list[Image | None]:
    """Each image with the heat of its class drawn over it; None for networks that have no Grad-CAM."""
    if not shown:
        return []
    planes = torch.tensor(np.stack([image for image, _ in shown])).permute(0, 3, 1, 2)
    classes = torch.tensor([model.classes.index(name) for _, name in shown])
    try:
        heats = grad_cam(model.classifier, model.preprocessing.pixels(planes), classes)
    except ConfigError as error:
        log.warning("%s", error)
        return [None] * len(shown)
    return [overlay(image, heat) for (image, _), heat in zip(shown, heats, strict=True)]


def _findings(
    job: ClassifyJob, report: EvaluateReport, evaluation: Evaluation, entries: Sequence[WorstImage]
) -> ClassifierFindings:
    backbone = job.model.classifier.backbone
    counted = f"{report.evaluated:,} of {report.images:,} images of split {report.split} were counted, each once"
    return ClassifierFindings(
        title=f"{backbone} on {report.split}",
        command=job.command,
        classes=job.model.classes,
        job=job.plan.job,
        output=report.output,
        status=report.status,
        fingerprint=job.plan.fingerprint,
        splits={report.split: findings_of(evaluation, temperature=job.model.temperature)},
        robustness={
            name: {severity: tally.top1 for severity, tally in tallies.items()}
            for name, tallies in evaluation.conditions.items()
        },
        clean_top1=evaluation.sampled.top1 if evaluation.sampled.count else None,
        worst_images=SHEET if entries else "",
        worst_examples=worst_images_lines(entries),
        config={"input": job.source.uri, "model": job.model.uri, **job.plan.work["model"]},
        notes=(f"{counted}; {report.failed:,} could not be read and are in quarantine.", *_notes(evaluation)),
        versions=job.plan.versions,
    )


def _notes(evaluation: Evaluation) -> list[str]:
    if not evaluation.conditions:
        return []
    number = evaluation.sampled.count
    return [f"Robustness is measured on the crops of {number:,} images that a hash of seed and name chose."]
