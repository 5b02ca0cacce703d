"""A watch over losses and norms that names the images with which a training went wrong."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vtray.classify.train_spec import Batch
from vtray.errors import TrainingDiverged

SHOWN_IDS = 8

Place = tuple[int, int]  # epoch, batch in it


class FiniteGuard:
    """Collects values that have to be finite, and looks at many at once where a look waits for the device."""

    def __init__(self, *, every: int) -> None:
        self._every = every
        self._waiting: list[tuple[str, Tensor, Place, tuple[str, ...]]] = []

    def watch(self, what: str, value: Tensor, place: Place, batches: Sequence[Batch]) -> None:
        """Note a value of one element, what it is, and the batches that it comes from."""
        image_ids = tuple(image_id for batch in batches for image_id in batch.image_ids)
        self._waiting.append((what, value.detach().double(), place, image_ids))

    def check_if_due(self) -> None:
        """Check, once enough values wait. Raises: TrainingDiverged."""
        if len(self._waiting) >= self._every:
            self.check()

    def check(self) -> None:
        """Look at all that wait. Raises: TrainingDiverged with the images of the first that is NaN or infinite."""
        waiting, self._waiting = self._waiting, []
        values = torch.stack([value for _, value, _, _ in waiting]).tolist() if waiting else []
        bad = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
        if bad is not None:
            what, _, (epoch, step), image_ids = waiting[bad]
            raise TrainingDiverged(
                f"the {what} is {values[bad]} in epoch {epoch}, batch {step} ({_listed(image_ids)}); "
                "lower lr, set clip_norm, or choose precision: fp32"
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_IDS} more" if len(names) > SHOWN_IDS else ""
    return f"images {', '.join(names[:SHOWN_IDS])}{more}"
