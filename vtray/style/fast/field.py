"""Features of an image too large to be held whole: a `Field` stands for all and computes what is asked for.

It goes through a network's own `forward` in place of a tensor: torch hands every operation on it to
`vtray.style.fast.operations`, which notes what belongs there instead of computing it. What needs all positions,
mean and variance of a channel, walks over tiles at once. C channels, H rows, W columns; the shape is (1, C, H, W).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtray.style.work import Image

Span = tuple[int, int]  # from, to
Statistics = tuple[Tensor, Tensor]  # variance and mean of each channel, float32 (1, C, 1, 1)


@dataclass(kw_only=True, eq=False)
class Canvas:
    """How the fields of one image are walked over, and the statistics that were found on the way.

    size: of the image. tile_px: side of a tile at full size, less where features are smaller. device: of windows.
    operations: what torch's functions do with fields. given: the statistics of another image, to be used in their
    order instead of the image's own.
    """

    size: tuple[int, int]
    tile_px: int
    device: torch.device
    operations: Mapping[Callable[..., Any], Callable[..., Any]]
    given: Sequence[Statistics] | None = None
    found: list[Statistics] = field(default_factory=list)

    def statistics(self, features: "Field") -> Statistics:
        """The biased variance and mean of each channel over all positions.

        Features of less than full size are kept, as all that comes next asks for them again.
        """
        if self.given is None:
            walked = _Moments(channels=features.shape[1])
            self._walk(features, walked.add)
            self.found.append(walked.statistics(self.device))
        else:
            self.found.append(self.given[len(self.found)])
        return self.found[-1]

    def keep(self, features: "Field") -> None:
        """Compute the features and keep them, if they are of less than full size."""
        if self._is_small(features):
            self._walk(features, lambda _: None)

    def _walk(self, features: "Field", look: Callable[[Tensor], None]) -> None:
        kept = torch.empty(features.shape, dtype=features.dtype) if self._is_small(features) else None
        for rows, columns in self.tiles(features):
            tile = features.window(rows, columns)
            look(tile)
            if kept is not None:
                kept[..., slice(*rows), slice(*columns)] = tile.to(kept.device)
        if kept is not None:
            features.fix(kept)

    def tiles(self, features: "Field") -> Iterator[tuple[Span, Span]]:
        """All positions, each once, in tiles of about equal sides."""
        height, width = features.shape[-2:]
        side = max(1, ceil(self.tile_px * height / self.size[0]), ceil(self.tile_px * width / self.size[1]))
        for rows in _cut(height, side):
            for columns in _cut(width, side):
                yield rows, columns

    def _is_small(self, features: "Field") -> bool:
        height, width = features.shape[-2:]
        return not features.is_fixed and bool(height < self.size[0] and width < self.size[1])


@dataclass(kw_only=True)
class _Moments:
    """Mean and sum of squared differences over the tiles seen so far, merged in float64."""

    channels: int
    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, tile: Tensor) -> None:
        """Source: Chan, Golub and LeVeque 1979, the pairwise merge of variances."""
        count = tile.shape[-2] * tile.shape[-1]
        variance, mean = (each.double().cpu() for each in torch.var_mean(tile.float(), dim=(2, 3), correction=0))
        total, apart = self.count + count, mean - self.mean
        self.squares = self.squares + variance * count + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total

    def statistics(self, device: torch.device) -> Statistics:
        shape = (1, self.channels, 1, 1)
        variance, mean = self.squares / self.count, self.mean
        return variance.view(shape).float().to(device), mean.view(shape).float().to(device)


class Field(ABC):
    """Features (1, C, H, W) of a `dtype` that are computed window by window, from `sources` and numbers."""

    def __init__(self, shape: Sequence[int], *sources: Any, canvas: Canvas, dtype: torch.dtype) -> None:
        self.canvas, self.shape, self.dtype = canvas, torch.Size(shape), dtype
        self.ndim = 4
        self._sources, self._fixed = sources, None

    _fixed: Tensor | None

    def window(self, rows: Span, columns: Span) -> Tensor:
        """The features at those positions, all inside."""
        if self._fixed is None:
            return self._compute(rows, columns, *self._sources)
        return self._fixed[..., slice(*rows), slice(*columns)].to(self.canvas.device)

    @abstractmethod
    def _compute(self, rows: Span, columns: Span, *sources: Any) -> Tensor:
        """The features at those positions from the sources."""

    @property
    def is_fixed(self) -> bool:
        return self._fixed is not None

    def fix(self, features: Tensor) -> None:
        """Keep what was computed and let go of what it was computed from."""
        self._fixed, self._sources = features, ()

    def size(self, axis: int | None = None) -> Any:
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        return self.ndim

    @property
    def is_cuda(self) -> bool:
        return self.canvas.device.type == "cuda"

    def float(self) -> "Field":
        """Itself: only statistics ask for it, and they are taken in fp32."""
        return self

    def to(self, *, dtype: torch.dtype, memory_format: torch.memory_format = torch.preserve_format) -> "Field":
        return Pointwise(partial(Tensor.to, dtype=dtype, memory_format=memory_format), self, dtype=dtype)

    def __getitem__(self, index: Any) -> "Field":
        """Only `[..., :height, :width]`."""
        first, rows, columns = index
        assert first is ...
        assert not rows.start
        assert not columns.start
        height, width = len(range(self.shape[2])[rows]), len(range(self.shape[3])[columns])
        return Cropped(self, (height, width))

    def __add__(self, other: Any) -> "Field":
        return added(self, other)

    def __radd__(self, other: Any) -> "Field":
        return added(self, other)

    def __mul__(self, other: Any) -> "Field":
        return Pointwise(torch.mul, self, other)

    def __rmul__(self, other: Any) -> "Field":
        return Pointwise(torch.mul, self, other)

    def __truediv__(self, other: Any) -> "Field":
        return Pointwise(torch.div, self, other)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        canvas = next(each.canvas for each in args if isinstance(each, Field))
        operation = canvas.operations.get(func)
        if operation is None:
            raise NotImplementedError(f"{func} is not known for fields")
        return operation(*args, **(kwargs or {}))


class Pixels(Field):
    """The pixels 0 to 1 of an image, float32 (1, 3, H, W)."""

    def __init__(self, canvas: Canvas, image: Image) -> None:
        super().__init__((1, 3, *image.shape[:2]), image, canvas=canvas, dtype=torch.float32)

    def _compute(self, rows: Span, columns: Span, image: Image) -> Tensor:
        part = np.ascontiguousarray(image[slice(*rows), slice(*columns)].transpose(2, 0, 1)[None])
        return torch.from_numpy(part).to(self.canvas.device).float().div_(255)


class Pointwise(Field):
    """A function of single positions, of fields of one size and of tensors or numbers that hold everywhere."""

    def __init__(self, function: Callable[..., Tensor], *operands: Any, dtype: torch.dtype | None = None) -> None:
        first = next(operand for operand in operands if isinstance(operand, Field))
        super().__init__(first.shape, *operands, canvas=first.canvas, dtype=dtype or first.dtype)
        self._function = function

    def _compute(self, rows: Span, columns: Span, *operands: Any) -> Tensor:
        return self._function(
            *(each.window(rows, columns) if isinstance(each, Field) else each for each in operands)
        )


class Cropped(Field):
    """The upper left part."""

    def __init__(self, source: Field, size: tuple[int, int]) -> None:
        super().__init__((*source.shape[:2], *size), source, canvas=source.canvas, dtype=source.dtype)

    def _compute(self, rows: Span, columns: Span, source: Field) -> Tensor:
        return source.window(rows, columns)


def added(one: Any, other: Any) -> Field:
    """The sum; of two fields it is kept where it is small, else both would be computed for every window."""
    total = Pointwise(torch.add, one, other)
    if isinstance(one, Field) and isinstance(other, Field):
        total.canvas.keep(total)
    return total


def _cut(length: int, side: int) -> list[Span]:
    """About equal parts of at most `side`."""
    number = ceil(length / side)
    edges = [length * part // number for part in range(number + 1)]
    return list(pairwise(edges))
