"""The demo's own transfer task: a network that knows one half of the products learns the other half.

Products of one brand that differ in colour only stand on different sides, so that the second half is new but not
strange. The pictures are as small as small networks need them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from vtray.demo.catalog import CatalogImage
from vtray.demo.products import CLASS_NAMES
from vtray.demo.scene import MACHINE, SHOWROOM, photograph
from vtray.images import encode
from vtray.seeding import rng_for
from vtray.storage import open_storage

KNOWN = ("coffee_can", "cola_can", "iced_tea_bottle", "juice_carton", "lemon_can", "water_bottle")
SIZE_PX = 96
PRETRAINING_COUNTS: Mapping[str, int] = {"train": 100, "val": 10}  # images of each product
TARGET_COUNTS: Mapping[str, int] = {"train": 14, "val": 4, "test": 20, "showroom": 20}

_SETTINGS = {"train": MACHINE, "val": MACHINE, "test": MACHINE, "showroom": SHOWROOM}
_JPEG_QUALITY = 92


def split_products() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The six products that a network is pre-trained on, and the six that it learns afterwards."""
    return KNOWN, tuple(name for name in CLASS_NAMES if name not in KNOWN)


def write_pretraining_set(
    folder: Path, *, seed: int = 0, counts: Mapping[str, int] = PRETRAINING_COUNTS, size_px: int = SIZE_PX
) -> int:
    """Write pictures of the first six as `<folder>/<split>/<class>/<name>.jpg`; returns how many are new or other.

    A picture depends on its seed, split, class, number and size only, and is the catalog's with the same.
    Raises: StorageError if the folder cannot be written.
    """
    first, _ = split_products()
    return _write(folder, _drawn(first, counts, seed=seed, size_px=size_px))


def write_target_set(
    folder: Path, *, seed: int = 0, counts: Mapping[str, int] = TARGET_COUNTS, size_px: int = SIZE_PX
) -> int:
    """The same of the other six: few to learn from, and in `test` and `showroom` enough to measure on.

    Raises: StorageError if the folder cannot be written.
    """
    _, second = split_products()
    return _write(folder, _drawn(second, counts, seed=seed, size_px=size_px))


def _drawn(
    class_names: tuple[str, ...], counts: Mapping[str, int], *, seed: int, size_px: int
) -> Iterator[CatalogImage]:
    for split, count in counts.items():
        for class_name in class_names:
            for index in range(count):
                rng = rng_for(seed, split, class_name, index)
                image = photograph(class_name, rng, setting=_SETTINGS[split], size_px=size_px)
                name = f"{class_name}-{index:03d}"
                yield CatalogImage(split=split, class_name=class_name, name=name, image=image)


def _write(folder: Path, pictures: Iterator[CatalogImage]) -> int:
    """A file appears whole or not at all, and one that holds these bytes is left alone."""
    storage = open_storage(str(folder))
    num_written = 0
    for picture in pictures:
        key = f"{picture.split}/{picture.class_name}/{picture.name}.jpg"
        content = encode(picture.image, format="jpeg", quality=_JPEG_QUALITY)
        if not storage.exists(key) or storage.read(key) != content:
            storage.put(key, content)
            num_written += 1
    return num_written
