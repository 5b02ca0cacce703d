"""Which precision and layout computes the features fastest here, and whether the loss stays the same."""

import time
from dataclasses import dataclass, replace
from itertools import product
from statistics import median

import numpy as np
import torch

from vtray.style.features import FeatureExtractor
from vtray.style.objective import Objective, Region
from vtray.style.pixels import to_pixels
from vtray.style.targets import StyleTargets
from vtray.style.work import Layout, Precision, StyleWork

PROBE_PX = 128
REPEATS = 3
LOSS_TOLERANCE = 0.01  # relative, of the total of a drawn image against its mirror image


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """One way to compute features, what one evaluation takes and how far its loss is from that of fp32."""

    precision: Precision
    layout: Layout
    seconds: float
    deviation: float


def choose_numerics(
    work: StyleWork, *, precision: Precision | None = None, layout: Layout | None = None, device: str = "cpu"
) -> tuple[Numerics, tuple[Numerics, ...]]:
    """The fastest of the allowed ways whose loss agrees with fp32 within LOSS_TOLERANCE; and all that were tried.

    precision, layout: fixed by the user, or None to try both kinds. Raises: ConfigError, WeightsError.
    """
    torch.set_num_threads(work.threads)
    precisions: tuple[Precision, ...] = (precision,) if precision else ("fp32", "bf16")
    layouts: tuple[Layout, ...] = (layout,) if layout else ("nchw", "nhwc")
    reference = FeatureExtractor.load(replace(work.features, precision="fp32", layout="nchw"), device=device)
    expected = _time(work, reference)[1]
    tried = []
    for one, other in product(precisions, layouts):
        seconds, loss = _time(work, reference.to(device, precision=one, layout=other))
        tried.append(
            Numerics(precision=one, layout=other, seconds=seconds, deviation=abs(loss - expected) / abs(expected))
        )
    agreeing = [numerics for numerics in tried if numerics.deviation <= LOSS_TOLERANCE] or tried
    return min(agreeing, key=lambda numerics: numerics.seconds), tuple(tried)


def _time(work: StyleWork, extractor: FeatureExtractor) -> tuple[float, float]:
    """Median seconds of one evaluation on a drawn image, and the loss there."""
    side = max(PROBE_PX, extractor.min_side_px)
    rows, columns = np.mgrid[0:side, 0:side]
    waves = [127 + 120 * np.sin(rows * turn / 9 + columns / (5 + turn)) for turn in range(1, 4)]
    pixels = to_pixels([np.stack(waves, axis=-1).astype(np.uint8)], extractor.device)
    targets = StyleTargets(extractor=extractor, styles=work.styles, layers=work.features.style_layers)
    objective = Objective.of(
        pixels,
        (Region(grams=targets.blend(side)),),
        extractor=extractor,
        features=work.features,
        loss=work.loss,
    )
    seconds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        loss, _ = objective.evaluate(pixels.flip(3))  # mirrored, so that the content loss is not zero
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:]), float(loss[0])
