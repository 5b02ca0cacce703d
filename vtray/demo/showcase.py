"""The few images of a folder that the demo stylizes, as a list."""

import csv
from collections.abc import Sequence
from pathlib import Path

from vtray.sources.folder import IMAGE_SUFFIXES

NUM_IMAGES = 12  # one of each product of the drawn catalog


def choose_images(root: Path, *, at_most: int = NUM_IMAGES) -> tuple[str, ...]:
    """Relative names of image files below a folder, evenly spread over all of them in the order of their names.

    Raises:
        ValueError: a number below 1.
    """
    if at_most < 1:
        raise ValueError(f"at_most is {at_most}; choose at least 1 image")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if _is_image(path, root))
    number = min(at_most, len(names))
    return tuple(names[index * len(names) // number] for index in range(number))


def write_showcase(path: Path, names: Sequence[str], *, root: Path) -> None:
    """Write a list (CSV) of those images; in a job that reads it they keep their relative names.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("uri", "image_id"))
        rows.writerows(((root / name).resolve().as_posix(), name) for name in names)


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
