"""What one stylized image takes, measured: a few steps on one image of the input, in this process."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.machine import gpu_here
from pipelines.stylize import StylizeJob
from vtray.errors import ImageError
from vtray.images.picture import read_picture, write_picture
from vtray.sources import ImageRef, Unit, read_unit
from vtray.steps.style_masks import masks_of
from vtray.steps.stylize_unit import Content, Device, load_engine
from vtray.style.colour import keep_colour

if TYPE_CHECKING:
    from vtray.style.engines.optimize import OptimizeEngine
    from vtray.style.engines.stylized import Request, Stylized

FIRST_STEPS = 2
MOST_STEPS = 10
PROBE_SECONDS = 10.0  # for the second, longer look; the first one takes two steps whatever they take
MAX_TRIES = 5

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Seconds of one worker on one image: `step_s` per step at `working`, `fixed_s` around all steps, `file_s` for
    reading and writing a file of `full` size. Scaled to other sizes by their pixels."""

    full: Size
    working: Size
    step_s: float
    fixed_s: float
    file_s: float

    def seconds_for(self, full: Size, working: Size, *, steps: float) -> float:
        """The same for an image of another size and so many steps at its working size."""
        engine_s = (self.fixed_s + steps * self.step_s) * _pixels(working) / _pixels(self.working)
        return engine_s + self.file_s * _pixels(full) / _pixels(self.full)


def probe_image(job: StylizeJob, refs: Iterable[ImageRef]) -> Probe | None:
    """A probe of the first reference that can be stylized; None if none of the first five can.

    Raises: ConfigError, WeightsError, StorageError.
    """
    for ref, _ in zip(refs, range(MAX_TRIES), strict=False):
        started = time.perf_counter()
        source = next(read_unit(Unit(unit_id="probe", format=job.source.format, refs=(ref,))))
        try:
            picture = read_picture(source.encoded or b"", max_pixels=job.config.max_pixels)
            size = (picture.image.shape[0], picture.image.shape[1])
            masks = masks_of(job.step.masks, job.step.names.path_of(ref.image_id), size=size)
            content = Content(source=source, picture=picture, masks=masks)
            read_s = time.perf_counter() - started
            return _probe(job, content, read_s)
        except ImageError:
            continue
    return None


def probe_device(job: StylizeJob) -> Device:
    """Where this process can do the job's work: a machine without a GPU can only tell of its CPU."""
    return "cuda" if job.step.device == "cuda" and gpu_here() else "cpu"


def _probe(job: StylizeJob, content: Content, read_s: float) -> Probe:
    engine = load_engine(job.work, probe_device(job))
    batch = [content.request] * engine.batch
    _stylize(engine, batch, steps=1)  # the first time is slower: libraries choose their kernels, targets are made
    few = _stylize(engine, batch, steps=FIRST_STEPS)
    more = _stylize(engine, batch, steps=FIRST_STEPS + _more_steps(few.seconds * len(batch)))
    step_s = max(more.seconds - few.seconds, 0.0) / max(more.steps - few.steps, 1)
    return Probe(
        full=content.size,
        working=few.size,
        step_s=step_s,
        fixed_s=max(few.seconds - few.steps * step_s, 0.0),
        file_s=read_s + _write_s(job, content, few),
    )


def _more_steps(few_s: float) -> int:
    return max(1, min(MOST_STEPS, int(PROBE_SECONDS / (few_s / FIRST_STEPS))))


def _stylize(engine: "OptimizeEngine", batch: Sequence["Request"], *, steps: int) -> "Stylized":
    """The first image of a batch after so many steps at its working size. Raises: ImageError."""
    optimize = replace(engine.work.optimize, levels=1, steps=steps, tolerance=0.0)
    made = replace(engine, work=replace(engine.work, optimize=optimize)).stylize(batch)[0]
    if made.image is None:
        raise made.error or ImageError("stylize", "no_image", "the engine gave no image")
    return made


def _write_s(job: StylizeJob, content: Content, stylized: "Stylized") -> float:
    started = time.perf_counter()
    image = content.picture.image if stylized.image is None else stylized.image
    image = keep_colour(image, content.picture.image, job.step.colour)
    write_picture(content.picture, image, format=job.config.output.format, quality=job.step.quality)
    return time.perf_counter() - started


def _pixels(size: Size) -> int:
    return size[0] * size[1]
