"""Whether a classifier's confidence can be believed, and the one number that corrects it.

N rows, K classes; everything in float64 on the CPU, row by row, so that no result depends on how rows are batched.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vtray.errors import WeightsError

NUM_BINS = 15
COLDEST, HOTTEST = 0.1, 10.0
NEWTON_STEPS = 100  # it needs 5 to 10; halving alone would need 60
TOLERANCE = 1e-12  # of the temperature, relative

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def log_probabilities(logits: Tensor | Floats) -> Floats:
    """Log-softmax of (N, K) logits of any float dtype, on any device.

    Raises: WeightsError if a logit is NaN or infinite.
    """
    scores = _matrix(logits)
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        raise WeightsError(
            f"the model gives NaN or infinity for {len(broken)} of {len(scores)} images; its weights have "
            "diverged or are damaged: use an earlier checkpoint or other weights"
        )
    scores = scores - scores.max(axis=1, keepdims=True, initial=-np.inf)
    log_shares: Floats = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return log_shares


def fit_temperature(logits: Tensor | Floats, labels: Tensor | Labels) -> float:
    """The T for which softmax(logits / T) has the least NLL on these rows, between 0.1 and 10.

    Where every row is right, a smaller T is always better and T is 0.1. The same T for the same rows, always.
    Raises: ValueError without rows or for labels that do not fit; WeightsError as log_probabilities.
    Source: Guo et al. 2017, "On calibration of modern neural networks". They run L-BFGS on T; the NLL is convex in
    1 / T, so we take Newton steps on that, and halve the bracket where they leave it.
    """
    scores = log_probabilities(logits)  # the logits but for a constant per row, which softmax does not see
    targets = checked_labels(labels, scores.shape)
    if not len(targets):
        raise ValueError("a temperature needs images to fit it on")
    if _derivatives(scores, targets, 1.0)[0] == 0:  # nothing to gain, as with constant logits
        return 1.0
    if _derivatives(scores, targets, 1 / COLDEST)[0] <= 0:
        return COLDEST
    if _derivatives(scores, targets, 1 / HOTTEST)[0] >= 0:
        return HOTTEST
    return 1 / _root(scores, targets)


def expected_calibration_error(
    probabilities: Tensor | Floats, labels: Tensor | Labels, *, bins: int = NUM_BINS
) -> float:
    """Mean gap between confidence and accuracy, 0 to 1, over equal bins of the confidence; NaN without rows.

    probabilities: (N, K), of which the largest is the confidence.
    Source: Guo et al. 2017; a bin holds its upper edge, as theirs does.
    """
    shares = _matrix(probabilities)
    targets = checked_labels(labels, shares.shape)
    if not len(targets):
        return float("nan")
    confidence = shares.max(axis=1)
    gap = (shares.argmax(axis=1) == targets) - confidence
    return float(np.abs(np.bincount(bin_numbers(confidence, bins), gap, bins)).sum() / len(targets))


def bin_numbers(confidence: Floats, bins: int) -> NDArray[np.intp]:
    """The bin of each confidence: bin i holds (i / bins, (i + 1) / bins], and the first one 0 too."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")


def checked_labels(labels: Tensor | Labels, shape: tuple[int, ...]) -> Labels:
    """The labels as int64 (N,). Raises: ValueError unless each of the (N, K) rows has one in 0 to K - 1."""
    targets = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    num_rows, num_classes = shape
    if targets.shape != (num_rows,):
        raise ValueError(f"labels of shape {targets.shape} for {num_rows} rows")
    if num_rows and (targets.min() < 0 or targets.max() >= num_classes):
        raise ValueError(f"labels {targets.min()} to {targets.max()} for {num_classes} classes")
    return targets.astype(np.int64)


def _matrix(values: Tensor | Floats) -> Floats:
    """Values as contiguous float64 (N, K): the memory's order decides in which order numpy adds."""
    plain = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else values
    matrix = np.ascontiguousarray(plain, np.float64)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(f"values of shape {matrix.shape}; rows x classes are needed")
    return matrix


def _root(scores: Floats, targets: Labels) -> float:
    """The 1 / T where the NLL's slope is 0; at the lower bound it is below 0, at the upper one above 0."""
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(NEWTON_STEPS):
        slope, curvature = _derivatives(scores, targets, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else high
        earlier, inverse = inverse, step if low <= step <= high else (low + high) / 2
        if abs(inverse - earlier) <= TOLERANCE * inverse:
            break
    return inverse


def _derivatives(scores: Floats, targets: Labels, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean NLL of softmax(inverse * scores) by `inverse`."""
    shares = np.exp(log_probabilities(scores * inverse))
    mean = (shares * scores).sum(axis=1)
    variance = (shares * (scores - mean[:, None]) ** 2).sum(axis=1)
    return float((mean - scores[np.arange(len(targets)), targets]).mean()), float(variance.mean())
