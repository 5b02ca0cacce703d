"""A few images of an input again, for the sheets of a report."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.classify import ClassifyJob
from vtray.classify.preprocessing import decode_for
from vtray.errors import ImageError
from vtray.sources import read_unit
from vtray.steps.results import encoded_of


def read_crops(job: ClassifyJob, image_ids: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """image_id -> uint8 (H, W, 3) as the network sees it; without those that cannot be read any more.

    Raises: StorageError.
    """
    wanted, crops = set(image_ids), {}
    for unit in job.units:
        refs = tuple(ref for ref in unit.refs if ref.image_id in wanted)
        for source in read_unit(replace(unit, refs=refs)) if refs else ():
            try:
                image = decode_for(job.model.preprocessing, encoded_of(source), job.config.max_pixels)
            except ImageError:
                continue
            crops[source.ref.image_id] = image
    return crops
