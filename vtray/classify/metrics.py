"""How often a classifier is right, and how sure it is: counts and sums that add exactly.

The tally of an input is the same to the last bit however its rows are cut into parts, and in whatever order these
are added. N rows, K classes.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vtray.classify.calibration import NUM_BINS, Floats, Labels, bin_numbers, checked_labels, log_probabilities
from vtray.manifest import Json

TOP = 5
UNITS = 2**48  # sums are whole numbers of 2**-48: finer than float64 holds a loss of 16 or more, and exact to add

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PerClass:
    """Scores of each class, (K,) each, 0 to 1, and its number of images; 0 where nothing can be divided by."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """What is known of some rows: add tallies with `+` or `sum(tallies, Tally.zero(K))`.

    confusion: int64 (K, K), rows are the true classes, columns the predicted ones.
    top5_hits: rows whose class is among the 5 most likely; of equal logits the first class counts as more likely.
    nll_units: sum of -log p(true class), in nats, in units of 2**-48.
    bin_count, bin_correct: int64 (15,), rows and right rows by confidence, as in expected_calibration_error.
    bin_confidence_units: sum of the confidence by bin, in units of 2**-48.
    """

    confusion: Counts
    top5_hits: int
    nll_units: int
    bin_count: Counts
    bin_correct: Counts
    bin_confidence_units: tuple[int, ...]

    @classmethod
    def zero(cls, num_classes: int) -> Self:
        """The tally of no rows."""
        return cls.of(np.empty((0, num_classes)), np.empty(0, np.int64))

    @classmethod
    def of(cls, logits: Tensor | Floats, labels: Tensor | Labels) -> Self:
        """The tally of (N, K) logits and (N,) labels in 0 to K - 1.

        Raises: ValueError for shapes or labels that do not fit; WeightsError if a logit is not finite.
        """
        log_shares = log_probabilities(logits)
        targets = checked_labels(labels, log_shares.shape)
        num_classes = log_shares.shape[1]
        ranks = _ranks(log_shares, targets)
        confidence = np.exp(log_shares.max(axis=1, initial=-np.inf))
        bins = bin_numbers(confidence, NUM_BINS)
        pairs = targets * num_classes + log_shares.argmax(axis=1)
        return cls(
            confusion=np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes),
            top5_hits=int((ranks < TOP).sum()),
            nll_units=_units(-log_shares[np.arange(len(targets)), targets]),
            bin_count=np.bincount(bins, minlength=NUM_BINS),
            bin_correct=np.bincount(bins[ranks == 0], minlength=NUM_BINS),
            bin_confidence_units=tuple(_units(confidence[bins == number]) for number in range(NUM_BINS)),
        )

    def __add__(self, other: "Tally") -> "Tally":
        if self.confusion.shape != other.confusion.shape:
            raise ValueError(f"tallies of {len(self.confusion)} and {len(other.confusion)} classes do not add")
        sums = zip(self.bin_confidence_units, other.bin_confidence_units, strict=True)
        return Tally(
            confusion=self.confusion + other.confusion,
            top5_hits=self.top5_hits + other.top5_hits,
            nll_units=self.nll_units + other.nll_units,
            bin_count=self.bin_count + other.bin_count,
            bin_correct=self.bin_correct + other.bin_correct,
            bin_confidence_units=tuple(ours + theirs for ours, theirs in sums),
        )

    @property
    def count(self) -> int:
        """Rows."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of rows whose most likely class is right; NaN without rows, as all shares and means here."""
        return _ratio(int(self.confusion.trace()), self.count)

    @property
    def top5(self) -> float:
        """Share of rows whose class is among the 5 most likely."""
        return _ratio(self.top5_hits, self.count)

    @property
    def nll(self) -> float:
        """Mean of -log p(true class), in nats."""
        return _ratio(self.nll_units, self.count * UNITS)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1."""
        sums = zip(self.bin_correct.tolist(), self.bin_confidence_units, strict=True)
        return _ratio(sum(abs(correct * UNITS - units) for correct, units in sums), self.count * UNITS)

    @property
    def bin_confidence(self) -> Floats:
        """Mean confidence by bin, (15,); NaN where a bin is empty."""
        sums = zip(self.bin_confidence_units, self.bin_count.tolist(), strict=True)
        return np.array([_ratio(units, count * UNITS) for units, count in sums])

    @property
    def bin_accuracy(self) -> Floats:
        """Accuracy by bin, (15,); NaN where a bin is empty."""
        sums = zip(self.bin_correct.tolist(), self.bin_count.tolist(), strict=True)
        return np.array([_ratio(correct, count) for correct, count in sums])

    @property
    def per_class(self) -> PerClass:
        """Precision, recall and F1 of each class against all others."""
        hits = self.confusion.diagonal().astype(np.float64)
        predicted, support = self.confusion.sum(axis=0), self.confusion.sum(axis=1)
        return PerClass(
            precision=hits / np.maximum(predicted, 1),
            recall=hits / np.maximum(support, 1),
            f1=2 * hits / np.maximum(predicted + support, 1),
            support=support,
        )

    def to_json(self) -> Json:
        """The tally as JSON values; of the confusion only [true, predicted, rows] where there are rows."""
        true, predicted = np.nonzero(self.confusion)
        cells = np.stack([true, predicted, self.confusion[true, predicted]], axis=1)
        return {
            "num_classes": len(self.confusion),
            "confusion": cells.tolist(),
            "top5_hits": self.top5_hits,
            "nll_units": self.nll_units,
            "bin_count": self.bin_count.tolist(),
            "bin_correct": self.bin_correct.tolist(),
            "bin_confidence_units": list(self.bin_confidence_units),
        }

    @classmethod
    def from_json(cls, values: Json) -> Self:
        """The tally of `to_json`, exactly."""
        confusion = np.zeros((values["num_classes"],) * 2, np.int64)
        for true, predicted, count in values["confusion"]:
            confusion[true, predicted] = count
        return cls(
            confusion=confusion,
            top5_hits=values["top5_hits"],
            nll_units=values["nll_units"],
            bin_count=np.array(values["bin_count"], np.int64),
            bin_correct=np.array(values["bin_correct"], np.int64),
            bin_confidence_units=tuple(values["bin_confidence_units"]),
        )


def _ranks(log_shares: Floats, targets: Labels) -> NDArray[np.intp]:
    """How many classes are more likely than the true one, (N,); of equals the one before it is."""
    true = log_shares[np.arange(len(targets)), targets][:, None]
    before = np.arange(log_shares.shape[1]) < targets[:, None]
    ranks: NDArray[np.intp] = ((log_shares > true) | ((log_shares == true) & before)).sum(axis=1)
    return ranks


def _units(values: Floats) -> int:
    """The sum of some values in units, each rounded by itself; whole numbers of Python, which cannot overflow."""
    return sum(round(value * UNITS) for value in values.tolist())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
