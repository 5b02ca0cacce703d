"""What every engine gives back for one image, and the sizes at which engines work."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vtray.errors import ImageError
from vtray.style.masks import Mask
from vtray.style.pixels import Size
from vtray.style.work import Image

SIZE_STEP_PX = 8


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of an 8-bit image: the lecture's three, unweighted, and the weighted total that was minimized."""

    content: float
    style: float
    tv: float
    total: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One content image, uint8 (H, W, 3) RGB, with a mask (H, W) for each style or without masks."""

    image: Image
    masks: tuple[Mask, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Stylized:
    """One stylized image of the content's size, or the reason why there is none.

    steps: evaluations of loss and gradient, over all pyramid levels. seconds: the image's share of its batch.
    size: the (height, width) that was worked on.
    """

    image: Image | None
    error: ImageError | None = None
    steps: int = 0
    seconds: float = 0.0
    before: Losses | None = None
    after: Losses | None = None
    size: Size = (0, 0)
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The numbers as JSON values, flat."""
        before = {f"{name}_before": value for name, value in asdict(self.before).items()} if self.before else {}
        after = {f"{name}_after": value for name, value in asdict(self.after).items()} if self.after else {}
        size = {"working_height": self.size[0], "working_width": self.size[1]}
        return (
            size | {"steps": self.steps, "seconds": self.seconds, "warnings": list(self.warnings)} | before | after
        )


def working_size(height: int, width: int, *, size_px: int) -> Size:
    """The size itself, or proportions kept with a longer side of `size_px` and the other in steps of 8 px."""
    longer = max(height, width)
    if longer <= size_px:
        return height, width
    sides = (
        max(SIZE_STEP_PX, round(side * size_px / longer / SIZE_STEP_PX) * SIZE_STEP_PX) for side in (height, width)
    )
    shorter_height, shorter_width = sides
    return (size_px, shorter_width) if height >= width else (shorter_height, size_px)


def grouped(sizes: Sequence[Size], *, at_most: int) -> list[list[int]]:
    """Indices of equal sizes together, in groups of at most that many; in order of first appearance."""
    by_size: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(size, []).append(index)
    return [
        members[start : start + at_most]
        for members in by_size.values()
        for start in range(0, len(members), at_most)
    ]
