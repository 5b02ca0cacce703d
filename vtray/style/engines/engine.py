"""What the stylize job needs of an engine, whichever it is, and the engine of a piece of work."""

from collections.abc import Sequence
from typing import Protocol

import torch

from vtray.style.engines.fast import FastEngine
from vtray.style.engines.optimize import OptimizeEngine
from vtray.style.engines.stylized import Request, Stylized
from vtray.style.pixels import Size
from vtray.style.work import FastWork, Work


class Engine(Protocol):
    """Made once per process from a piece of work: `load` reads the weights and encodes the styles."""

    @property
    def batch(self) -> int:
        """How many images of one working size are stylized together at most."""

    @property
    def min_side_px(self) -> int:
        """Images with a shorter side cannot be stylized."""

    @property
    def weights_bytes(self) -> int:
        """What the network takes in memory."""

    def stylize(self, requests: Sequence[Request]) -> list[Stylized]:
        """One result for each request, in order."""

    def working_size(self, height: int, width: int) -> Size:
        """The (height, width) at which an image of that size is worked on."""

    def steps_for(self, working: Size) -> tuple[int, ...]:
        """Evaluations at each size from coarse to fine, at most; empty where one pass does it."""

    def bytes_for(self, height: int, width: int) -> int:
        """Peak memory of one image of that size in a batch."""


def engine_for(work: Work, *, device: torch.device | str = "cpu") -> Engine:
    """The engine, ready to stylize. Raises: ConfigError, WeightsError, StorageError."""
    if isinstance(work, FastWork):
        return FastEngine.load(work, device=device)
    return OptimizeEngine.load(work, device=device)
