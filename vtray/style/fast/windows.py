"""Fields that look at other positions than their own: padding, convolution, pooling and upsampling.

H rows, W columns; windows are given in the coordinates of the field itself, from and to.
"""

from collections.abc import Sequence
from functools import partial
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from vtray.style.fast.field import Field, Span


class Padded(Field):
    """With mirrored rows and columns around it, as many as `margins` say: left, right, top, bottom."""

    def __init__(self, source: Field, margins: Sequence[int]) -> None:
        left, right, top, bottom = margins
        height, width = source.shape[-2] + top + bottom, source.shape[-1] + left + right
        super().__init__((*source.shape[:2], height, width), source, canvas=source.canvas, dtype=source.dtype)
        self._top, self._left = top, left

    def _compute(self, rows: Span, columns: Span, source: Field) -> Tensor:
        down = _mirrored(rows, self._top, source.shape[-2])
        along = _mirrored(columns, self._left, source.shape[-1])
        window = source.window(_span(down), _span(along))
        for axis, positions in ((2, down), (3, along)):
            if positions[-1] - positions[0] != len(positions) - 1:  # mirrored at an edge of the image
                there = torch.tensor([position - min(positions) for position in positions], device=window.device)
                window = window.index_select(axis, there)
        return window


class Convolved(Field):
    """A convolution without padding."""

    def __init__(self, source: Field, weight: Tensor, bias: Tensor | None, *, stride: int, groups: int) -> None:
        self._kernel, self._stride = (weight.shape[-2], weight.shape[-1]), stride
        size = (
            (side - kernel) // stride + 1 for side, kernel in zip(source.shape[-2:], self._kernel, strict=True)
        )
        super().__init__((1, weight.shape[0], *size), source, canvas=source.canvas, dtype=source.dtype)
        self._function = partial(functional.conv2d, weight=weight, bias=bias, stride=stride, groups=groups)

    def _compute(self, rows: Span, columns: Span, source: Field) -> Tensor:
        seen = [
            (start * self._stride, (end - 1) * self._stride + kernel)
            for (start, end), kernel in zip((rows, columns), self._kernel, strict=True)
        ]
        return self._function(source.window(*seen))


class Upsampled(Field):
    """Twice the size, by `nearest` or `bilinear` interpolation."""

    def __init__(self, source: Field, mode: str) -> None:
        height, width = source.shape[-2:]
        size = (2 * height, 2 * width)
        super().__init__((*source.shape[:2], *size), source, canvas=source.canvas, dtype=source.dtype)
        self._mode = mode

    def _compute(self, rows: Span, columns: Span, source: Field) -> Tensor:
        margin = 0 if self._mode == "nearest" else 1  # neighbours that interpolation looks at
        seen = [
            (max(0, start // 2 - margin), min(side, (end - 1) // 2 + 1 + margin))
            for (start, end), side in zip((rows, columns), source.shape[-2:], strict=True)
        ]
        window = functional.interpolate(source.window(*seen), scale_factor=2, mode=self._mode)
        (top, _), (left, _) = seen
        down, along = (slice(a - 2 * at, b - 2 * at) for (a, b), at in ((rows, top), (columns, left)))
        return window[..., down, along]


class Pooled(Field):
    """The largest of 2 x 2 positions; an odd last row or column counts alone."""

    def __init__(self, source: Field) -> None:
        size = (ceil(side / 2) for side in source.shape[-2:])
        super().__init__((*source.shape[:2], *size), source, canvas=source.canvas, dtype=source.dtype)

    def _compute(self, rows: Span, columns: Span, source: Field) -> Tensor:
        height, width = source.shape[-2:]
        seen = (2 * rows[0], min(height, 2 * rows[1])), (2 * columns[0], min(width, 2 * columns[1]))
        return functional.max_pool2d(source.window(*seen), 2, 2, ceil_mode=True)


def _mirrored(span: Span, margin: int, length: int) -> list[int]:
    """Positions of the source for those of the padded one; the edge itself is not repeated."""
    positions = (position - margin for position in range(*span))
    return [length - 1 - abs(length - 1 - abs(position)) for position in positions]


def _span(positions: Sequence[int]) -> Span:
    return min(positions), max(positions) + 1
