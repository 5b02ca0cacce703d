"""Reliability diagram: whether images predicted with 80 % confidence are right in 80 % of the cases.

Source: Guo et al. 2017, "On calibration of modern neural networks"; below it we draw how many images each bin has.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtray.report import fragments as html
from vtray.report.axes import Axes, svg
from vtray.report.numbers import count_text
from vtray.report.ratios import percent_text

SIZE = (340, 380)
PLOT, STRIP = 300, 56  # heights of the diagram and of the counts below
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LEFT = 42
ROUNDING = 1e-6  # by which a mean of float32 confidences may be above 1

STYLE = """
.found { fill: var(--accent); fill-opacity: .75; }
.gap { fill: #b9706a; fill-opacity: .35; stroke: #b9706a; }
.ideal { stroke: var(--faint); stroke-dasharray: 4 3; }
.many { fill: var(--faint); fill-opacity: .6; }
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityBins:
    """Equal bins of the confidence from 0 to 1: images, mean confidence and accuracy, each an array (bins,).

    Mean confidence and accuracy of empty bins are ignored.
    """

    count: ArrayLike
    confidence: ArrayLike
    accuracy: ArrayLike


def reliability_diagram(bins: ReliabilityBins, *, label: str) -> str:
    """One `<svg>`: accuracy against confidence, the gap to each bin's mean confidence, and the counts.

    Raises: ValueError if the arrays are not of one length above 0, or a bin with images has a value outside 0
    to 1.
    """
    count, confidence, accuracy = _checked(bins)
    axes = Axes(x=(0.0, 1.0), y=(0.0, 1.0), width=SIZE[0], height=PLOT, left=LEFT)
    ticks = {tick: f"{100 * tick:.0f} %" for tick in TICKS}
    parts = axes.frame(ticks, ticks)
    for place in np.flatnonzero(count):
        parts += _bin(axes, (int(place), len(count)), float(confidence[place]), float(accuracy[place]))
    parts += [_ideal(axes), *_counts(axes, count)]
    return svg(parts, size=SIZE, label=label)


def reliability_key() -> str:
    """What the colours of the diagrams mean."""
    samples = {"found": "accuracy", "gap": "gap to the mean confidence", "many": "images"}
    spans = "".join(
        f'<span><svg viewBox="0 0 22 10" aria-hidden="true">'
        f'<rect class="{kind}" x="5" y="0.5" width="12" height="9"></rect></svg>{html.text(words)}</span>'
        for kind, words in samples.items()
    )
    return f'<p class="key">{spans}</p>\n'


def _checked(bins: ReliabilityBins) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    count = np.asarray(bins.count, np.int64)
    confidence, accuracy = (np.asarray(values, np.float64) for values in (bins.confidence, bins.accuracy))
    if count.ndim != 1 or not len(count) or not count.shape == confidence.shape == accuracy.shape:
        raise ValueError(
            f"reliability bins need three arrays of one length, got {count.shape}, {confidence.shape} and "
            f"{accuracy.shape}"
        )
    values = np.concatenate([confidence[count > 0], accuracy[count > 0]])
    if not ((values >= -ROUNDING) & (values <= 1 + ROUNDING)).all():
        raise ValueError(f"confidence and accuracy lie within 0 and 1, got {values.min()} to {values.max()}")
    return count, confidence.clip(0, 1), accuracy.clip(0, 1)


def _bin(axes: Axes, place: tuple[int, int], confidence: float, accuracy: float) -> list[str]:
    number, num_bins = place
    left, right = axes.across(number / num_bins) + 1, axes.across((number + 1) / num_bins) - 1
    low, high = sorted((confidence, accuracy))
    words = f"confidence {percent_text(confidence)}, accuracy {percent_text(accuracy)}"
    return [
        _rect("found", (left, right), (axes.down(0), axes.down(accuracy)), ""),
        _rect("gap", (left, right), (axes.down(low), axes.down(high)), words),
    ]


def _rect(kind: str, x: tuple[float, float], y: tuple[float, float], words: str) -> str:
    """From x[0] to x[1], and from the bottom y[0] up to y[1]."""
    title = f"<title>{html.text(words)}</title>" if words else ""
    return (
        f'<rect class="{kind}" x="{x[0]:.1f}" y="{y[1]:.1f}" width="{x[1] - x[0]:.1f}" height="{y[0] - y[1]:.1f}">'
        f"{title}</rect>"
    )


def _ideal(axes: Axes) -> str:
    return (
        f'<line class="ideal" x1="{axes.across(0):.1f}" y1="{axes.down(0):.1f}" x2="{axes.across(1):.1f}" '
        f'y2="{axes.down(1):.1f}"></line>'
    )


def _counts(axes: Axes, count: NDArray[np.int64]) -> list[str]:
    """Bars below the diagram, the highest for the fullest bin."""
    most, bottom = max(int(np.max(count)), 1), SIZE[1] - 8
    edges = [axes.across(number / len(count)) for number in range(len(count) + 1)]
    bars = [
        _rect(
            "many",
            (edges[place] + 1, edges[place + 1] - 1),
            (bottom, bottom - max(1, STRIP * count[place] / most)),
            f"{count_text(int(count[place]))} images",
        )
        for place in np.flatnonzero(count)
    ]
    line = f'<line class="grid" x1="{edges[0]:.1f}" x2="{edges[-1]:.1f}" y1="{bottom}" y2="{bottom}"></line>'
    return [line, *bars]
