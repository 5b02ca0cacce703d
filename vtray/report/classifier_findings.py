"""What the page of a classifier tells, in plain values and numpy arrays; K is the number of classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtray.report.reliability import ReliabilityBins


@dataclass(frozen=True, kw_only=True)
class HeadEntry:
    """Where one row of the head came from: `reused`, `imprinted` or `random`, and of what (`n07579787 plate`)."""

    class_name: str
    source: str
    origin: str = ""


class PerClass(Protocol):
    """What `classify.metrics.PerClass` has: scores, float (K,), 0 to 1, and the images of each class, int (K,).

    Scores that are not finite are shown as a dash.
    """

    @property
    def precision(self) -> ArrayLike: ...
    @property
    def recall(self) -> ArrayLike: ...
    @property
    def f1(self) -> ArrayLike: ...
    @property
    def support(self) -> ArrayLike: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitFindings:
    """How the classifier does on one split; whatever was not measured is None.

    top1, top5, ece: shares. nll: mean negative log-likelihood in nats. `calibrated`: the same after the logits
    were divided by `temperature`. confusion: int64 (K, K), rows are the true classes.
    """

    count: int
    top1: float | None = None
    top5: float | None = None
    nll: float | None = None
    nll_calibrated: float | None = None
    ece: float | None = None
    ece_calibrated: float | None = None
    temperature: float | None = None
    confusion: NDArray[np.int64] | None = None
    reliability: ReliabilityBins | None = None
    reliability_calibrated: ReliabilityBins | None = None
    per_class: PerClass | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierFindings:
    """Everything on the page; what is empty or None has no section.

    title: the model's name. output: the address of what was written. command: the line that repeats the run.
    epochs: numbers by name, see `curves.training_curves`. splits: by name, the one that counts most first.
    robustness: condition -> severity -> top-1, of the images with `clean_top1` under no condition. worst_images:
    a PNG beside the page, `worst_examples` the same in words. config: nested mappings become dotted names.
    failures, examples and seconds are as on augment's page; failures is None where nothing could fail.
    """

    title: str
    command: str
    classes: tuple[str, ...]
    job: str = "finetune"
    output: str = ""
    status: str = "complete"
    fingerprint: str = ""
    head: tuple[HeadEntry, ...] = ()
    epochs: tuple[Mapping[str, Any], ...] = ()
    splits: Mapping[str, SplitFindings] = field(default_factory=dict)
    robustness: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    clean_top1: float | None = None
    worst_images: str = ""
    worst_examples: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failures: Mapping[str, int] | None = None
    examples: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
