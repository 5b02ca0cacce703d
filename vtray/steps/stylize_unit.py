"""What a worker does with one unit: read, decode, stylize batches of one size, encode, write, book the receipt.

Pixels stay inside; only the receipt, with a record for each image, leaves it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from vtray.errors import ImageError
from vtray.images.picture import Picture, read_picture, write_picture, writing_notes
from vtray.manifest import FileRecord, Json, Receipt
from vtray.report.records import LOSSES
from vtray.shards import QuarantineRow
from vtray.sources import SourceImage, Unit, read_unit
from vtray.steps.file_names import FileNames
from vtray.steps.results import (
    booked,
    encoded_of,
    failures_of,
    ledger_at,
    put,
    put_quarantine,
    quarantine_row,
)
from vtray.steps.style_masks import MaskSource, masks_of
from vtray.steps.worker import prepare_worker
from vtray.stopwatch import Stopwatch
from vtray.storage import Storage
from vtray.style.colour import ColourMode, keep_colour
from vtray.style.masks import Mask
from vtray.style.work import StyleWork

if TYPE_CHECKING:  # the engine imports torch, which only the workers' processes and the driver's checks need
    from vtray.style.engines.optimize import OptimizeEngine
    from vtray.style.engines.stylized import Request, Stylized

ENGINE = "optimize"
WAITING_PIXELS = 48 << 20  # decoded images that wait for others of their size; about 150 MB

Size = tuple[int, int]  # height, width
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StylizeUnit:
    """The stylize step, made once by the driver and called on workers with one unit after the other.

    masks: one per style, or none at all. quality: of JPEG and lossy WebP.
    """

    work: StyleWork
    device: Device
    names: FileNames
    output_uri: str
    quality: int
    colour: ColourMode
    masks: tuple[MaskSource | None, ...]
    max_pixels: int

    def __call__(self, unit: Unit, digest: str) -> Receipt:
        """Do the unit and return the receipt that counts. Raises: StorageError if storage fails for good."""
        prepare_worker()
        ledger = ledger_at(self.output_uri)
        done = booked(ledger, unit, digest)
        if done is not None:
            return done
        made = Made()
        for content, stylized in self._stylized(unit, made):
            done = booked(ledger, unit, digest)
            if done is not None:  # another attempt was faster: its files stay as they are
                return done
            self._write(ledger.storage, content, stylized, made)
        return ledger.book(self._receipt(ledger.storage, unit, digest, made))

    def _stylized(self, unit: Unit, made: "Made") -> Iterator[tuple["Content", "Stylized"]]:
        """The images of a unit with what the engine made of them, batch by batch."""
        with made.clock.phase("load"):
            engine = load_engine(self.work, self.device)

        def size_of(content: Content) -> Size:
            return engine.working_size(*content.size)

        contents = self._contents(unit, made)
        for batch in batches_of_one_size(contents, size_of, batch=self.work.optimize.batch):
            with made.clock.phase("stylize"):
                stylized = engine.stylize([content.request for content in batch])
            yield from zip(batch, stylized, strict=True)

    def _contents(self, unit: Unit, made: "Made") -> Iterator["Content"]:
        """The images that can be read and decoded; the others go into quarantine."""
        images = read_unit(unit)
        while True:
            with made.clock.phase("read"):
                source = next(images, None)
            if source is None:
                return
            try:
                with made.clock.phase("decode"):
                    content = self._content(source)
            except ImageError as error:
                made.quarantine.append(quarantine_row(source, error))
            else:
                yield content

    def _content(self, source: SourceImage) -> "Content":
        picture = read_picture(encoded_of(source), max_pixels=self.max_pixels)
        masks = masks_of(self.masks, self.names.path_of(source.ref.image_id), size=picture.image.shape[:2])
        return Content(source=source, picture=picture, masks=masks)

    def _write(self, storage: Storage, content: "Content", stylized: "Stylized", made: "Made") -> None:
        """Put one result, or its row in quarantine."""
        image_id, picture = content.source.ref.image_id, content.picture
        try:
            encoded = self._encode(picture, stylized, made.clock)
        except ImageError as error:
            made.quarantine.append(quarantine_row(content.source, error))
            return
        with made.clock.phase("write"):
            key = f"data/{self.names.name_of(image_id, source=picture.format)}"
            made.files.append(put(storage, key, encoded, rows=1))
        lost = writing_notes(picture, format=self.names.output_format)
        made.records.append(record_of(content, stylized, file=key, notes=(*picture.notes, *lost)))
        made.classes[content.source.ref.class_name] += 1

    def _encode(self, picture: Picture, stylized: "Stylized", clock: Stopwatch) -> bytes:
        """The file of the result. Raises: ImageError of the engine, or of stage encode."""
        if stylized.image is None:
            raise stylized.error or ImageError("stylize", "no_image", "the engine gave no image")
        with clock.phase("colour"):
            image = keep_colour(stylized.image, picture.image, self.colour)
        with clock.phase("encode"):
            return write_picture(picture, image, format=self.names.output_format, quality=self.quality)

    def _receipt(self, storage: Storage, unit: Unit, digest: str, made: "Made") -> Receipt:
        with made.clock.phase("write"):
            quarantine = put_quarantine(storage, unit.unit_id, made.quarantine)
        return Receipt(
            unit=unit.unit_id,
            digest=digest,
            files=tuple(made.files),
            quarantine=quarantine,
            num_images=unit.num_images,
            rows_by_class={name: count for name, count in made.classes.items() if name is not None},
            seconds=made.clock.seconds(),
            records=tuple(made.records),
            **failures_of(made.quarantine),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """One content image. masks: uint8 (H, W), one per style, or none at all."""

    source: SourceImage
    picture: Picture
    masks: tuple[Mask, ...]

    @property
    def size(self) -> Size:
        height, width = self.picture.image.shape[:2]
        return height, width

    @property
    def request(self) -> "Request":
        from vtray.style.engines.stylized import Request

        return Request(image=self.picture.image, masks=self.masks)


@dataclass(kw_only=True)
class Made:
    """The results of one unit while it is worked on."""

    files: list[FileRecord] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    records: list[Json] = field(default_factory=list)
    classes: Counter[str | None] = field(default_factory=Counter)
    clock: Stopwatch = field(default_factory=Stopwatch)


@lru_cache(maxsize=1)
def load_engine(work: StyleWork, device: Device) -> "OptimizeEngine":
    """The engine of a process, loaded once. Raises: ConfigError, WeightsError, StorageError."""
    from vtray.style.engines.optimize import OptimizeEngine

    return OptimizeEngine.load(work, device=device)


def batches_of_one_size(
    contents: Iterable[Content], size_of: Callable[[Content], Size], *, batch: int
) -> Iterator[list[Content]]:
    """Up to `batch` images of one working size at a time, in an order that depends on the images only.

    Where too many decoded images would wait for others of their size, the largest group goes on as it is.
    """
    waiting: defaultdict[Size, list[Content]] = defaultdict(list)
    for content in contents:
        group = waiting[size_of(content)]
        group.append(content)
        if len(group) == batch:
            yield waiting.pop(size_of(content))
        elif sum(map(_pixels, waiting.values())) > WAITING_PIXELS:
            yield waiting.pop(max(waiting, key=lambda size: _pixels(waiting[size])))
    yield from waiting.values()


def _pixels(contents: Iterable[Content]) -> int:
    return sum(height * width for height, width in (content.size for content in contents))


def record_of(content: Content, stylized: "Stylized", *, file: str, notes: Iterable[str]) -> Json:
    """What is kept of one stylized image, see `vtray.report.records`; an image left as it was has no losses."""
    height, width = content.size
    measured = stylized.record()
    return (
        dict.fromkeys(LOSSES, 0.0)
        | measured
        | {
            "image_id": content.source.ref.image_id,
            "file": file,
            "engine": ENGINE,
            "width": width,
            "height": height,
            "seconds": round(stylized.seconds, 6),
            "warnings": [*notes, *stylized.warnings],
        }
    )
