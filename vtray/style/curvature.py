"""What L-BFGS knows of the curvature of a loss: the last moves and how the gradient changed along them.

B images that never influence each other, M remembered moves, N numbers in an image.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vtray.style.preconditioner import coarse_to_fine

SMALLEST = 1e-30


@dataclass(kw_only=True, eq=False)
class Curvature:
    """Moves and changes, (B, M, N), in slots that are filled in turn; `order` lists the slots, oldest first.

    products: move i . change j, (B, M, M). inverse: 1 / (move . change), (B, M), 0 where a pair says nothing.
    scale: the multiple of the preconditioner that fits the newest useful pair of each image, (B,), 0 without one.
    """

    moves: Tensor
    changes: Tensor
    products: Tensor
    inverse: Tensor
    scale: Tensor
    order: list[int] = field(default_factory=list)

    @classmethod
    def empty(cls, pixels: Tensor, *, memory: int) -> "Curvature":
        """Room for `memory` pairs of images like `pixels`, (B, 3, H, W)."""
        batch, size = len(pixels), pixels[0].numel()
        return cls(
            moves=pixels.new_zeros(batch, memory, size),
            changes=pixels.new_zeros(batch, memory, size),
            products=pixels.new_zeros(batch, memory, memory),
            inverse=pixels.new_zeros(batch, memory),
            scale=pixels.new_zeros(batch),
        )

    def remember(self, move: Tensor, change: Tensor) -> None:
        """Put a pair, each (B, 3, H, W), into the next slot; the oldest one makes room."""
        slot = len(self.order) if len(self.order) < self.moves.shape[1] else self.order.pop(0)
        self.order.append(slot)
        self.moves[:, slot], self.changes[:, slot] = move.flatten(1), change.flatten(1)
        self.products[:, :, slot] = _times(self.moves, change)
        self.products[:, slot, :] = _times(self.changes, move)
        product = self.products[:, slot, slot]
        useful = product > 1e-10 * (dot(move, move) * dot(change, change)).sqrt() + SMALLEST
        self.inverse[:, slot] = torch.where(useful, 1 / product, torch.zeros_like(product))
        stiffness = dot(change, coarse_to_fine(change)).clamp_min(SMALLEST)
        self.scale = torch.where(useful, product / stiffness, self.scale)

    def forget(self, images: Tensor) -> None:
        """Drop all pairs of some images, a mask (B,)."""
        self.inverse[images] = 0
        self.scale = self.scale.masked_fill(images, 0)

    def select(self, kept: Tensor) -> "Curvature":
        """The same for some of the images."""
        return Curvature(
            moves=self.moves[kept],
            changes=self.changes[kept],
            products=self.products[kept],
            inverse=self.inverse[kept],
            scale=self.scale[kept],
            order=self.order,
        )

    def solve(self, gradient: Tensor, *, first_step: float) -> Tensor:
        """The inverse Hessian times a gradient, (B, 3, H, W); without a pair, a change of `first_step` on average.

        The two-loop recursion with its inner products taken beforehand, so that the memory is read four times and
        not twice per pair. Source: Chen et al. 2014, "Large-scale L-BFGS using MapReduce".
        """
        backward = self._backward(_times(self.moves, gradient))
        rest = gradient - _combined(self.changes, backward).view_as(gradient)
        smooth = coarse_to_fine(rest)
        scale = torch.where(self.scale > 0, self.scale, first_step / mean_size(smooth))
        result = smooth * wide(scale)
        forward = self._forward(_times(self.changes, result), backward)
        return result + _combined(self.moves, forward).view_as(gradient)

    def _backward(self, along: Tensor) -> Tensor:
        """The first loop, newest pair first: how much of each change is taken out, (B, M)."""
        taken = torch.zeros_like(along)
        for slot in reversed(self.order):
            left = along[:, slot] - (self.products[:, slot] * taken).sum(1)
            taken[:, slot] = self.inverse[:, slot] * left
        return taken

    def _forward(self, along: Tensor, taken: Tensor) -> Tensor:
        """The second loop, oldest pair first: how much of each move is put in, (B, M)."""
        given = torch.zeros_like(along)
        for slot in self.order:
            reached = along[:, slot] + (self.products[:, :, slot] * given).sum(1)
            given[:, slot] = taken[:, slot] - self.inverse[:, slot] * reached
        return given


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner product of each image, (B, ...) and (B, ...) -> (B,)."""
    products: Tensor = torch.linalg.vecdot(one.flatten(1), other.flatten(1))
    return products


def mean_size(values: Tensor) -> Tensor:
    """Mean absolute value of each image, (B, ...) -> (B,), never zero."""
    return values.abs().flatten(1).mean(1).clamp_min(SMALLEST)


def wide(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def _times(vectors: Tensor, image: Tensor) -> Tensor:
    """Inner products with all vectors of a memory, (B, M, N) and (B, 3, H, W) -> (B, M).

    Image by image, as one product of the batch sums in another order than that of a single image, and the last
    digit is 50 levels away after 80 steps.
    """
    return torch.stack([of_image @ one for of_image, one in zip(vectors, image.flatten(1), strict=True)])


def _combined(vectors: Tensor, factors: Tensor) -> Tensor:
    """Weighted sum of the vectors, (B, M, N) and (B, M) -> (B, N); image by image, see `_times`."""
    return torch.stack([of_image @ own for of_image, own in zip(factors, vectors, strict=True)])
