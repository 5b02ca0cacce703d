"""Which precision and layout paints fastest here, and whether the pixels stay the same to the eye."""

import time
from dataclasses import replace
from itertools import product
from statistics import median

import numpy as np
import torch

from vtray.seeding import rng_for
from vtray.style.fast.painter import load_painter
from vtray.style.pixels import to_pixels
from vtray.style.probe import Numerics
from vtray.style.work import FastWork, Image, Layout, Precision

PROBE_PX = 256
REPEATS = 3
LEVELS_APART = 1.5  # mean difference of 8-bit levels that nobody sees


@torch.inference_mode()
def choose_fast_numerics(
    work: FastWork, *, precision: Precision | None = None, layout: Layout | None = None, device: str = "cpu"
) -> tuple[Numerics, tuple[Numerics, ...]]:
    """The fastest of the allowed ways within LEVELS_APART of the pixels of fp32; and all that were tried.

    precision, layout: fixed by the user, or None to try both. Raises: ConfigError, WeightsError, StorageError.
    """
    torch.set_num_threads(work.threads)
    precisions: tuple[Precision, ...] = (precision,) if precision else ("fp32", "bf16")
    layouts: tuple[Layout, ...] = (layout,) if layout else ("nchw", "nhwc")
    expected = _timed(work, "fp32", "nchw", device)[1]
    tried = []
    for one, other in product(precisions, layouts):
        seconds, painted = _timed(work, one, other, device)
        apart = float((painted - expected).abs().mean())
        tried.append(Numerics(precision=one, layout=other, seconds=seconds, deviation=apart))
    alike = [numerics for numerics in tried if numerics.deviation <= LEVELS_APART] or tried
    return min(alike, key=lambda numerics: numerics.seconds), tuple(tried)


def _timed(work: FastWork, precision: Precision, layout: Layout, device: str) -> tuple[float, torch.Tensor]:
    """Median seconds of one pass over a drawn image, and its levels 0 to 255."""
    spec = replace(work.fast, precision=precision, layout=layout)
    painter = load_painter(replace(work, fast=spec), device=device)
    pixels = to_pixels([_drawn()], device)
    seconds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        painted = painter(pixels).clamp(0, 1).mul(255).cpu()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:]), painted


def _drawn() -> Image:
    """Waves of colour with edges and grain."""
    rows, columns = np.mgrid[0:PROBE_PX, 0:PROBE_PX]
    waves = [127 + 90 * np.sin(rows * turn / 29 + columns / (11 + 7 * turn)) for turn in range(1, 4)]
    blocks = 40 * ((rows // 37 + columns // 53) % 2)[..., None]
    grain = rng_for("numerics").normal(0, 8, (PROBE_PX, PROBE_PX, 1))
    return np.asarray((np.stack(waves, axis=-1) - blocks + grain).clip(0, 255).astype(np.uint8))
