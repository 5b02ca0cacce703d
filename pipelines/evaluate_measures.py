"""The numbers of an evaluation, as metrics.json holds them and as the page shows them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vtray.classify.evaluation import Evaluation
from vtray.classify.metrics import Tally
from vtray.manifest import Json
from vtray.report.classifier_findings import SplitFindings
from vtray.report.reliability import ReliabilityBins


def measures(evaluation: Evaluation, classes: Sequence[str], *, temperature: float) -> Json:
    """metrics.json: shares 0 to 1, losses in nats; null for what cannot be said, such as a mean of no images.

    evaluated: images that were counted. calibrated: NLL and ECE with the logits divided by `temperature`.
    confusion: true class -> predicted class -> images, where there are any. robustness: top-1 of the images of
    the sample, clean and by condition and severity.
    """
    plain, calibrated, sampled = evaluation.plain, evaluation.calibrated, evaluation.sampled
    return {
        "evaluated": plain.count,
        "temperature": temperature,
        "top1": _number(plain.top1),
        "top5": _number(plain.top5),
        "nll": _number(plain.nll),
        "ece": _number(plain.ece),
        "calibrated": {"nll": _number(calibrated.nll), "ece": _number(calibrated.ece)},
        "classes": list(classes),
        "per_class": _per_class(plain, classes),
        "confusion": _confusion(plain, classes),
        "robustness": {
            "images": sampled.count,
            "clean": _number(sampled.top1),
            "top1": {
                name: {str(severity): _number(tally.top1) for severity, tally in tallies.items()}
                for name, tallies in evaluation.conditions.items()
            },
        },
    }


def _number(value: float) -> float | None:
    return round(value, 9) if math.isfinite(value) else None


def _per_class(tally: Tally, classes: Sequence[str]) -> dict[str, Any]:
    scores = tally.per_class
    return {
        name: {
            "precision": _number(float(scores.precision[label])),
            "recall": _number(float(scores.recall[label])),
            "f1": _number(float(scores.f1[label])),
            "images": int(scores.support[label]),
        }
        for label, name in enumerate(classes)
    }


def _confusion(tally: Tally, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    return {
        name: {classes[label]: int(counts[label]) for label in np.flatnonzero(counts).tolist()}
        for name, counts in zip(classes, tally.confusion, strict=True)
        if counts.any()
    }


def findings_of(evaluation: Evaluation, *, temperature: float) -> SplitFindings:
    """The same for the page."""
    plain, calibrated = evaluation.plain, evaluation.calibrated
    scores, support = plain.per_class, plain.per_class.support
    predicted = plain.confusion.sum(axis=0)
    return SplitFindings(
        count=plain.count,
        top1=plain.top1,
        top5=plain.top5,
        nll=plain.nll,
        nll_calibrated=calibrated.nll,
        ece=plain.ece,
        ece_calibrated=calibrated.ece,
        temperature=temperature,
        confusion=plain.confusion,
        reliability=_bins(plain),
        reliability_calibrated=_bins(calibrated),
        per_class=replace(
            scores,
            precision=np.where(predicted > 0, scores.precision, np.nan),  # never predicted: nothing to say
            recall=np.where(support > 0, scores.recall, np.nan),
            f1=np.where(support > 0, scores.f1, np.nan),
        ),
    )


def _bins(tally: Tally) -> ReliabilityBins:
    return ReliabilityBins(count=tally.bin_count, confidence=tally.bin_confidence, accuracy=tally.bin_accuracy)
