"""The engine `optimize`: the pixels of each image are optimized, as in the lecture, from coarse to fine.

B images, H rows, W columns; pixels are float32 (B, 3, H, W) in 0 to 1.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vtray.errors import ImageError
from vtray.seeding import rng_for
from vtray.style.engines.minimize import Minimum, Report, minimize
from vtray.style.engines.stylized import Losses, Request, Stylized, grouped, working_size
from vtray.style.features import FeatureExtractor
from vtray.style.masks import Mask, partition
from vtray.style.objective import Objective, Region, Terms
from vtray.style.optimizers import PixelOptimizer, ProjectedAdam, ProjectedLbfgs
from vtray.style.pixels import Floats, Size, resized, resized_pixels, rounded, to_images, to_pixels
from vtray.style.targets import StyleTargets
from vtray.style.work import Image, StyleWork

MIN_LEVEL_PX = 64  # a coarser level tells nothing about the strokes of the next
MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class OptimizeEngine:
    """Stylizes by optimization; made once per worker, keeps the network and the Gram matrices of the styles.

    report: told how far a batch is, every ten evaluations of each level. batch_on_cpu: optimize images together on
    a CPU too, where one after the other is at least as fast (benchmarks/style.py batch).
    """

    work: StyleWork
    extractor: FeatureExtractor
    targets: StyleTargets
    report: Report | None = None
    batch_on_cpu: bool = False

    @classmethod
    def load(cls, work: StyleWork, *, device: torch.device | str = "cpu") -> "OptimizeEngine":
        """Read the weights. Raises: ConfigError for a layer that is not there, WeightsError, StorageError."""
        torch.set_num_threads(work.threads)
        extractor = FeatureExtractor.load(work.features, device=device)
        targets = StyleTargets(
            extractor=extractor,
            styles=work.styles,
            layers=work.features.style_layers,
            scale=work.style_scale,
        )
        return cls(work=work, extractor=extractor, targets=targets)

    def stylize(self, requests: Sequence[Request]) -> list[Stylized]:
        """One result for each request, in order; images of equal working size are optimized together.

        A batch that memory cannot hold is halved, and a single image is worked on at half its size; both leave a
        warning in the results.
        """
        results: dict[int, Stylized] = {}
        sizes = [self.working_size(*request.image.shape[:2]) for request in requests]
        for members in grouped(sizes, at_most=self.batch):
            batch = [requests[index] for index in members]
            made = self._within_memory(batch, sizes[members[0]])
            results.update(zip(members, made, strict=True))
        return [results[index] for index in range(len(requests))]

    @property
    def batch(self) -> int:
        """How many images of one working size are optimized together at most."""
        on_cpu = self.extractor.device.type == "cpu"
        return 1 if on_cpu and not self.batch_on_cpu else self.work.optimize.batch

    def working_size(self, height: int, width: int) -> Size:
        """The (height, width) at which an image of that size is optimized."""
        return working_size(height, width, size_px=self.work.optimize.size_px)

    def bytes_for(self, height: int, width: int) -> int:
        """Peak memory of one image of that size in a batch: features kept for the gradient, and the optimizer."""
        rows, columns = self.working_size(height, width)
        element = 2 if self.extractor.precision == "bf16" else 4
        features, stride = 0, 1
        channels = 3
        for layer in self.extractor.layers:
            stride *= layer.stride
            tensors = self.extractor.parameters[layer.name]
            channels = tensors[0].shape[0] if layer.kind == "conv" else channels
            features += channels * (rows // stride) * (columns // stride) * element
        history = 2 * ProjectedLbfgs.memory + 10
        return int(2.5 * features + history * 12 * rows * columns + 12 * height * width)

    def _within_memory(self, batch: Sequence[Request], size: Size) -> list[Stylized]:
        try:
            return self._stylize_batch(batch, size)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(batch) > 1:
            half = len(batch) // 2
            made = [*self._within_memory(batch[:half], size), *self._within_memory(batch[half:], size)]
            return [_warned(one, f"batch of {len(batch)} did not fit into memory, made smaller") for one in made]
        smaller = (size[0] // 2, size[1] // 2)
        if min(smaller) < self.extractor.min_side_px:
            message = f"{size[1]} x {size[0]} does not fit into memory; use fewer workers or a smaller size_px"
            return [Stylized(image=None, error=ImageError("stylize", "out_of_memory", message), size=size)]
        made = self._within_memory(batch, smaller)
        return [_warned(one, f"{size[1]} x {size[0]} did not fit into memory, half as large") for one in made]

    def _stylize_batch(self, batch: Sequence[Request], size: Size) -> list[Stylized]:
        if min(size) < self.extractor.min_side_px:
            return [self._too_small(request) for request in batch]
        if self.work.loss.content_weight is None and self.work.loss.strength == 0:
            return [Stylized(image=request.image, size=size) for request in batch]
        started = time.perf_counter()
        content = to_pixels([resized(request.image, size) for request in batch], self.extractor.device)
        masks = [request.masks for request in batch]
        objective = self._objective(content, masks)
        start = self._start(batch, content)
        found = self._descend(content, masks, objective, start)
        seconds = (time.perf_counter() - started) / len(batch)
        before, after = objective.measure(rounded(start)), objective.measure(found.pixels)
        results = to_images(found.pixels)
        return [
            Stylized(
                image=_full_size(results[index], request),
                steps=int(found.steps[index]),
                seconds=seconds,
                before=_losses(before, index),
                after=_losses(after, index),
                size=size,
                warnings=_warnings(request, size),
            )
            if bool(after.total[index].isfinite()) and bool(before.total[index].isfinite())
            else _not_finite(before, after, index, size)
            for index, request in enumerate(batch)
        ]

    def _descend(
        self, content: Tensor, masks: Sequence[Sequence[Mask]], objective: Objective, start: Tensor
    ) -> Minimum:
        """The pyramid up to the working size; each level begins with the change that the one before made."""
        spec = self.work.optimize
        sizes = self.level_sizes((content.shape[-2], content.shape[-1]))
        steps = torch.zeros(len(content), dtype=torch.int64)
        begin = resized_pixels(start, sizes[0])
        for size, next_size in pairwise(sizes):
            small = resized_pixels(content, size).clamp_(0, 1)
            found = self._minimize(self._objective(small, masks), begin.clamp(0, 1), steps=spec.coarse_steps)
            steps += found.steps
            begin = resized_pixels(content, next_size) + resized_pixels(found.pixels - small, next_size)
        found = self._minimize(objective, begin.clamp(0, 1), steps=spec.steps)
        return Minimum(pixels=found.pixels, steps=found.steps + steps)

    def _minimize(self, objective: Objective, start: Tensor, *, steps: int) -> Minimum:
        tolerance = self.work.optimize.tolerance
        optimizer = self._optimizer(steps)
        return minimize(objective, start, optimizer, steps=steps, tolerance=tolerance, report=self.report)

    def _optimizer(self, steps: int) -> PixelOptimizer:
        return ProjectedAdam(steps=steps) if self.work.optimize.optimizer == "adam" else ProjectedLbfgs()

    def level_sizes(self, size: Size) -> list[Size]:
        """The pyramid of a working size, coarse to fine: each half of the next, none too small to be of use."""
        height, width = size
        least = max(MIN_LEVEL_PX, self.extractor.min_side_px)
        halvings = range(self.work.optimize.levels - 1, -1, -1)
        sizes = [(height >> level, width >> level) for level in halvings]
        return [size for size in sizes[:-1] if min(size) >= least] + sizes[-1:]

    def _objective(self, content: Tensor, masks: Sequence[Sequence[Mask]]) -> Objective:
        return Objective.of(
            content,
            self._regions(content, masks),
            extractor=self.extractor,
            features=self.work.features,
            loss=self.work.loss,
        )

    def _regions(self, content: Tensor, masks: Sequence[Sequence[Mask]]) -> tuple[Region, ...]:
        size = (content.shape[-2], content.shape[-1])
        if not any(masks):
            return (Region(grams=self.targets.blend(max(size))),)
        shares = [partition(of_image)[0] for of_image in masks]  # images of one working size may differ in size
        regions = []
        for number, grams in enumerate(self.targets.of(max(size))):
            planes = [np.asarray(resized(of_image[number], size)).clip(0, 1) for of_image in shares]
            regions.append(
                Region(grams=grams, where=torch.from_numpy(np.stack(planes)[:, None]).to(content.device))
            )
        return tuple(regions)

    def _start(self, batch: Sequence[Request], content: Tensor) -> Tensor:
        spec = self.work.optimize
        size = (content.shape[-2], content.shape[-1])
        if spec.start == "content":
            return content.clone()
        if spec.start == "image" and spec.start_image is not None:
            given = to_pixels([resized(spec.start_image.image, size)], content.device)
            return given.expand_as(content).clone()
        noise = [_noise(self.work.seed, request.image, size) for request in batch]
        return torch.from_numpy(np.stack(noise)).to(content.device)

    def _too_small(self, request: Request) -> Stylized:
        height, width = request.image.shape[:2]
        least = self.extractor.min_side_px
        message = (
            f"{width} x {height}: {self.work.features.network} to {self.extractor.layers[-1].name} needs "
            f"{least} px a side; leave the image out or use earlier layers"
        )
        return Stylized(image=None, error=ImageError("stylize", "too_small", message))


def _noise(seed: int, image: Image, size: Size) -> Floats:
    """Uniform noise, float32 (3, H, W) in 0 to 1, the same for the same image in any batch."""
    rng = rng_for("noise", seed, hashlib.sha256(image.tobytes()).hexdigest())
    return rng.random((3, *size), dtype=np.float32)


def _full_size(result: Image, request: Request) -> Image:
    """The result at the content's own size: what changed is enlarged, the content's fine detail stays.

    Where no mask allows a style, the content shows.
    """
    image = request.image
    if result.shape != image.shape:
        small = resized(image, result.shape[:2]).astype(np.float32)
        change = resized(result.astype(np.float32) - small, image.shape[:2])
        result = _to_uint8(image + change)
    if request.masks:
        rest = partition(request.masks)[1][..., None]
        result = _to_uint8(rest * image + (1 - rest) * result)
    return result


def _to_uint8(values: Floats) -> Image:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _losses(terms: Terms, index: int) -> Losses:
    return Losses(
        content=float(terms.content[index]),
        style=float(terms.style[index]),
        tv=float(terms.tv[index]),
        total=float(terms.total[index]),
    )


def _warnings(request: Request, size: Size) -> tuple[str, ...]:
    height, width = request.image.shape[:2]
    if (height, width) == size:
        return ()
    return (f"worked on at {size[1]} x {size[0]}, the change enlarged to {width} x {height}",)


def _not_finite(before: Terms, after: Terms, index: int, size: Size) -> Stylized:
    numbers = f"total loss {float(before.total[index])} before and {float(after.total[index])} after"
    message = f"not a number: {numbers}; use features.precision=fp32 or other weights"
    return Stylized(image=None, error=ImageError("stylize", "not_finite", message), size=size)


def _warned(stylized: Stylized, warning: str) -> Stylized:
    return replace(stylized, warnings=(*stylized.warnings, warning))


def _is_out_of_memory(error: BaseException) -> bool:
    """torch tells of it with RuntimeErrors: its own kind on GPUs, plain ones from the CPU allocator."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
