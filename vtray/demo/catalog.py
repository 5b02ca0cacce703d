"""The vending-machine catalog: a labelled data set of photographs that were never taken.

train, val and test come from the machine; `showroom` shows the same products under warm, dim light on a desk that
mirrors. A picture depends on its seed, split, class and number only, never on how many others there are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtray.demo.products import CLASS_NAMES
from vtray.demo.scene import MACHINE, SHOWROOM, photograph
from vtray.images import encode
from vtray.seeding import rng_for

COUNTS: Mapping[str, int] = {"train": 14, "val": 4, "test": 4, "showroom": 4}  # images of each class
SIZE_PX = 320
SMALLEST_PX = 64

_SETTINGS = {"train": MACHINE, "val": MACHINE, "test": MACHINE, "showroom": SHOWROOM}
_JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True, eq=False)
class CatalogImage:
    """One picture: `image` is uint8 (H, W, 3) RGB, `name` is unique within its class and split."""

    split: str
    class_name: str
    name: str
    image: NDArray[np.uint8]


def catalog_images(
    *, seed: int = 0, counts: Mapping[str, int] = COUNTS, size_px: int = SIZE_PX
) -> Iterator[CatalogImage]:
    """Every picture of the catalog, by split, class and number; `counts` is the number of each class per split.

    The same seed gives the same pixels for the same versions of NumPy, OpenCV and Pillow.

    Raises:
        ValueError: an unknown split, a negative number, or pictures smaller than 64 pixels.
    """
    _check(counts, size_px)
    for split, count in counts.items():
        for class_name in CLASS_NAMES:
            for index in range(count):
                rng = rng_for(seed, split, class_name, index)
                image = photograph(class_name, rng, setting=_SETTINGS[split], size_px=size_px)
                yield CatalogImage(
                    split=split, class_name=class_name, name=f"{class_name}-{index:03d}", image=image
                )


def write_catalog(
    folder: Path, *, seed: int = 0, counts: Mapping[str, int] = COUNTS, size_px: int = SIZE_PX
) -> int:
    """Write `<folder>/<split>/<class>/<name>.jpg` and return how many files were new or different.

    A file appears whole or not at all; one that already holds the same bytes is left alone. Files of an earlier
    run with larger counts stay.

    Raises:
        ValueError: as `catalog_images`.
        OSError: the folder cannot be written.
    """
    num_written = 0
    for picture in catalog_images(seed=seed, counts=counts, size_px=size_px):
        path = folder / picture.split / picture.class_name / f"{picture.name}.jpg"
        num_written += _write_if_new(path, encode(picture.image, format="jpeg", quality=_JPEG_QUALITY))
    return num_written


def _check(counts: Mapping[str, int], size_px: int) -> None:
    unknown = sorted(set(counts) - set(_SETTINGS))
    if unknown:
        raise ValueError(f"the catalog has no split {', '.join(unknown)}; choose from {', '.join(_SETTINGS)}")
    if negative := {split: count for split, count in counts.items() if count < 0}:
        raise ValueError(f"the number of images per class must be 0 or more, not {negative}")
    if size_px < SMALLEST_PX:
        raise ValueError(f"size_px is {size_px}; products need at least {SMALLEST_PX} pixels to be recognised")


def _write_if_new(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
    return True
