"""The engines `feedforward`, `msgnet`, `adain` and `microast`: one pass through a network for an image.

B images, H rows, W columns; pixels are float32 (B, 3, H, W) in 0 to 1.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtray.errors import ImageError
from vtray.style.engines.stylized import Request, Stylized, grouped, is_out_of_memory, too_small
from vtray.style.fast.onnx import onnx_painter
from vtray.style.fast.painter import Painter, load_painter
from vtray.style.fast.tiles import bytes_in_tiles, paint_in_tiles
from vtray.style.pixels import Size, to_images, to_pixels
from vtray.style.work import FastWork, Image

MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class FastEngine:
    """Stylizes each image in its own size; made once per worker, keeps the network with the styles encoded.

    paint: the painter, or another runtime that does the same; images in tiles are always the painter's.
    """

    work: FastWork
    painter: Painter
    paint: Callable[[Tensor], Tensor]
    device: torch.device

    @classmethod
    def load(cls, work: FastWork, *, device: torch.device | str = "cpu") -> "FastEngine":
        """Read the weights and encode the styles. Raises: ConfigError, WeightsError, StorageError."""
        torch.set_num_threads(work.threads)
        painter = load_painter(work, device=device)
        paint = onnx_painter(painter, threads=work.threads) if work.fast.runtime == "onnxruntime" else painter
        return cls(work=work, painter=painter, paint=paint, device=torch.device(device))

    @property
    def batch(self) -> int:
        return self.work.fast.batch

    @property
    def min_side_px(self) -> int:
        return self.painter.min_side_px

    @property
    def weights_bytes(self) -> int:
        return self.painter.weights_bytes

    def working_size(self, height: int, width: int) -> Size:
        """The size itself."""
        return height, width

    def steps_for(self, working: Size) -> tuple[int, ...]:
        """None: one pass does it."""
        return ()

    def is_tiled(self, height: int, width: int) -> bool:
        """Whether an image of that size is painted in tiles."""
        whole = self.painter.bytes_for(height, width)
        return self.work.fast.tiling != "off" and whole > self.work.fast.memory_mb * MEBIBYTE

    def bytes_for(self, height: int, width: int) -> int:
        """Peak memory of one image of that size in a batch."""
        if self.is_tiled(height, width):
            return bytes_in_tiles(self.painter, height, width)
        return self.painter.bytes_for(height, width)

    def stylize(self, requests: Sequence[Request]) -> list[Stylized]:
        """One result for each request, in order; only images of exactly one size go through the network together.

        What memory cannot hold is painted in smaller batches, then in tiles; both leave a warning in the results.
        """
        results: dict[int, Stylized] = {}
        sizes = [(request.image.shape[0], request.image.shape[1]) for request in requests]
        for members in grouped(sizes, at_most=self.batch):
            size = sizes[members[0]]
            for part in _parts(members, at_most=self._fitting(size)):
                images = [requests[index].image for index in part]
                results.update(zip(part, self._of_one_size(images, size), strict=True))
        return [results[index] for index in range(len(requests))]

    def _fitting(self, size: Size) -> int:
        """How many images of that size `memory_mb` holds."""
        return max(1, self.work.fast.memory_mb * MEBIBYTE // self.painter.bytes_for(*size))

    def _of_one_size(self, images: Sequence[Image], size: Size) -> list[Stylized]:
        if min(size) < self.min_side_px:
            error = too_small(size, needs=f"engine {self.work.engine}", least=self.min_side_px)
            return [Stylized(image=None, error=error, size=size) for _ in images]
        if self.is_tiled(*size):
            return [self._tiled(image, size) for image in images]
        try:
            return self._whole(images, size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return self._smaller(images, size)

    def _smaller(self, images: Sequence[Image], size: Size) -> list[Stylized]:
        """What did not fit, in halves or in tiles."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(images) > 1:
            half = len(images) // 2
            made = [*self._of_one_size(images[:half], size), *self._of_one_size(images[half:], size)]
            return [_warned(one, f"batch of {len(images)} did not fit into memory, made smaller") for one in made]
        if self.work.fast.tiling == "off":
            message = f"{size[1]} x {size[0]} does not fit into memory; use engine.tiling=exact or fewer workers"
            return [Stylized(image=None, error=ImageError("stylize", "out_of_memory", message), size=size)]
        return [_warned(self._tiled(images[0], size), f"{size[1]} x {size[0]} did not fit into memory whole")]

    @torch.inference_mode()
    def _whole(self, images: Sequence[Image], size: Size) -> list[Stylized]:
        started = time.perf_counter()
        painted = self.paint(to_pixels(images, self.device))
        finite = painted.isfinite().flatten(1).all(1).tolist()
        made = to_images(painted.nan_to_num_())
        seconds = (time.perf_counter() - started) / len(images)
        return [
            self._result(image if good else None, size, seconds) for image, good in zip(made, finite, strict=True)
        ]

    def _tiled(self, image: Image, size: Size) -> Stylized:
        started = time.perf_counter()
        exact = self.work.fast.tiling != "fast"
        made = paint_in_tiles(self.painter, image, device=self.device, exact=exact)
        result = self._result(made, size, time.perf_counter() - started)
        how = "statistics of the whole image" if exact else "statistics of a small copy"
        return _warned(result, f"painted in tiles, {how}")

    def _result(self, image: Image | None, size: Size, seconds: float) -> Stylized:
        if image is not None:
            return Stylized(image=image, seconds=seconds, size=size)
        message = "the network gave NaN or infinity; use engine.precision=fp32 or other weights"
        return Stylized(image=None, error=ImageError("stylize", "not_finite", message), size=size)


def _parts(members: Sequence[int], *, at_most: int) -> list[Sequence[int]]:
    return [members[start : start + at_most] for start in range(0, len(members), at_most)]


def _warned(stylized: Stylized, warning: str) -> Stylized:
    return replace(stylized, warnings=(*stylized.warnings, warning))
