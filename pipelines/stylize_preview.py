"""What a stylize run shows of itself: contact sheets of content, result and style, and the page around them."""

import logging
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from pipelines.stylize_report import StylizeReport, count_warnings
from vtray.errors import ImageError, StorageError
from vtray.images import decode, encode
from vtray.manifest import Plan
from vtray.report.numbers import number_text
from vtray.report.records import Record, kind_of_warning, kinds_of_warnings, relative_loss
from vtray.report.sheet import Cell, Image, SheetRow, contact_sheet, fitted
from vtray.report.style_page import Distribution, StylePage, style_page
from vtray.seeding import digest_of
from vtray.sources import ImageRef, Unit, read_unit
from vtray.storage import Storage, open_storage
from vtray.style.work import StyleImage, StyleWork

log = logging.getLogger(__name__)

NUM_RANDOM = 6
NUM_WORST = {"total": 3, "style": 2}  # rows of the worst sheet by that relative loss
NUM_WARNED = 2
CELL_PX = 256
MAX_STYLES = 3
SHEETS = {
    "results.png": "Content, result and style of some images, always the same ones",
    "worst.png": "The images whose loss fell least, and some with rare warnings",
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A finished output and what it was made from. command: the line that repeats the run."""

    units: Sequence[Unit]
    records: Sequence[Record]
    work: StyleWork
    plan: Plan
    output_uri: str
    max_pixels: int
    command: str


def preview(shown: Shown, report: StylizeReport) -> dict[str, bytes]:
    """The page and its sheets: file name -> bytes. A sheet that cannot be made is a warning."""
    try:
        sheets = preview_sheets(shown)
    except (ImageError, StorageError, ValueError) as error:
        log.warning("no contact sheets: %s", error)
        sheets = {}
    captions = {name: SHEETS[name] for name in sheets}
    return sheets | {"index.html": style_page(_page(shown, report, captions)).encode()}


def preview_sheets(shown: Shown) -> dict[str, bytes]:
    """results.png and worst.png; the same bytes for the same output."""
    chosen = {"results.png": random_records(shown), "worst.png": worst_records(shown.records)}
    return {name: _sheet(shown, records) for name, records in chosen.items()}


def random_records(shown: Shown) -> list[Record]:
    """A few images by a hash of seed and id, in the order of their ids."""
    drawn = sorted(shown.records, key=lambda record: digest_of("preview", shown.work.seed, record["image_id"]))
    return sorted(drawn[:NUM_RANDOM], key=_name)


def worst_records(records: Sequence[Record]) -> list[Record]:
    """The largest relative total losses, then the largest relative style losses, then the rarest warnings."""
    chosen: dict[str, Record] = {}
    for term, number in NUM_WORST.items():
        ranked = sorted(records, key=lambda record: (-relative_loss(record, term), _name(record)))
        chosen |= _first_new(ranked, chosen, number)
    chosen |= _first_new(_rarest_warnings(records), chosen, NUM_WARNED)
    return list(chosen.values())


def _rarest_warnings(records: Sequence[Record]) -> list[Record]:
    """Records with warnings, those first whose kind few others have: a warning of every image tells nothing."""
    counts = count_warnings(records)
    warned = [record for record in records if record["warnings"]]
    return sorted(
        warned, key=lambda record: (min(map(counts.__getitem__, kinds_of_warnings(record))), _name(record))
    )


def _first_new(ranked: Iterable[Record], chosen: dict[str, Record], number: int) -> dict[str, Record]:
    new = (record for record in ranked if _name(record) not in chosen)
    return {_name(record): record for record in islice(new, number)}


def _name(record: Record) -> str:
    return str(record["image_id"])


def _sheet(shown: Shown, records: Sequence[Record]) -> bytes:
    styles = shown.work.styles[:MAX_STYLES]
    names = ["style"] if len(styles) == 1 else [f"style {number + 1}" for number in range(len(styles))]
    rows = [SheetRow(label=_name(record), cells=cells) for record, cells in _rows(shown, records, styles)]
    return encode(contact_sheet(rows, columns=["content", "result", *names], cell_px=CELL_PX), format="png")


def _rows(
    shown: Shown, records: Sequence[Record], styles: Sequence[StyleImage]
) -> Iterator[tuple[Record, list[Cell]]]:
    refs = _references(shown.units, {_name(record) for record in records})
    storage, common = open_storage(shown.output_uri), _common_warnings(shown.records)
    style_cells = [Cell(image=_small(style.image), caption=_style_words(style)) for style in styles]
    for record in records:
        content = _content(*refs[_name(record)], max_pixels=shown.max_pixels)
        result = _result(storage, str(record["file"]), max_pixels=shown.max_pixels)
        yield record, [content, replace(result, caption=result.caption or words_for(record, common)), *style_cells]


def _references(units: Iterable[Unit], names: set[str]) -> dict[str, tuple[Unit, ImageRef]]:
    return {ref.image_id: (unit, ref) for unit in units for ref in unit.refs if ref.image_id in names}


def _content(unit: Unit, ref: ImageRef, *, max_pixels: int) -> Cell:
    source = next(read_unit(replace(unit, refs=(ref,))))
    if source.encoded is None:
        return Cell(image=None, caption=str(source.error))
    try:
        image = decode(source.encoded, max_pixels=max_pixels).image
    except ImageError as error:
        return Cell(image=None, caption=str(error))
    return Cell(image=_small(image), caption=f"{image.shape[1]} x {image.shape[0]} px")


def _result(storage: Storage, file: str, *, max_pixels: int) -> Cell:
    """The decoded file of the output, as a reader sees it; with a caption only if there is none."""
    try:
        return Cell(image=_small(decode(storage.read(file), max_pixels=max_pixels).image))
    except (ImageError, StorageError) as error:
        return Cell(image=None, caption=str(error))


def words_for(record: Record, common: Set[str] = frozenset()) -> str:
    """What came of the losses, in a few words, and the warnings whose kind is not a common one."""
    total, style = (number_text(relative_loss(record, term)) for term in ("total", "style"))
    told = [text for text in record["warnings"] if kind_of_warning(text) not in common]
    return ", ".join([f"loss x{total} (style x{style})", f"{record['steps']} steps", *told])


def _common_warnings(records: Sequence[Record]) -> set[str]:
    """Kinds that more than half of all images have: under a picture they would only hide the others."""
    return {kind for kind, count in count_warnings(records).items() if 2 * count > len(records)}


def _style_words(style: StyleImage) -> str:
    return style.name if style.weight == 1 else f"{style.name} x{number_text(float(style.weight))}"


def _small(image: Image) -> Image:
    """At most as large as its cell: a dozen photographs at full size would fill the driver's memory."""
    return np.asarray(fitted(image, cell_px=CELL_PX)) if max(image.shape[:2]) > CELL_PX else image


def _page(shown: Shown, report: StylizeReport, sheets: dict[str, str]) -> StylePage:
    return StylePage(
        output=report.output,
        status=report.status,
        totals={"images": report.images, "failed": report.failed, "bytes": report.bytes},
        command=shown.command,
        fingerprint=shown.plan.fingerprint,
        seconds_per_image=report.seconds_per_image.get("mean"),
        hours_per_1000=report.hours_per_1000,
        losses=report.losses,
        distributions=tuple(_distributions(shown.records, report)),
        settings=settings_of(shown.work),
        warnings=report.warnings,
        failures=report.failures,
        examples=report.examples,
        seconds=report.phase_seconds,
        sheets=sheets,
        versions=shown.plan.versions,
    )


def _distributions(records: Sequence[Record], report: StylizeReport) -> Iterator[Distribution]:
    titles = {"total": "Total loss, after / before", "style": "Style loss, after / before"}
    for term, spread in (("total", report.loss), ("style", report.style_loss)):
        values = [relative_loss(record, term) for record in records]
        finite = tuple(value for value in values if np.isfinite(value))
        if finite:
            marks = {name: value for name, value in spread.items() if name != "mean"}
            yield Distribution(title=titles[term], values=finite, marks=marks)


def settings_of(work: StyleWork) -> dict[str, str]:
    """What decided the pixels, in words: the settings behind the defaults."""
    features, optimize = work.features, work.optimize
    return {
        "styles": ", ".join(map(_style_words, work.styles)),
        "network": f"{features.network}, {features.precision}, {features.layout}",
        "weights": f"{features.weights_uri} (sha256 {features.weights_sha256[:12]})",
        "content layers": ", ".join(features.content_layers),
        "style layers": ", ".join(features.style_layers),
        "weighing": _weighing(work),
        "engine": f"{optimize.optimizer}, at most {optimize.steps} steps, start {optimize.start}, "
        f"{optimize.levels} levels up to {optimize.size_px} px, batch {optimize.batch}",
        "seed and threads": f"{work.seed}, {work.threads}",
    }


def _weighing(work: StyleWork) -> str:
    loss = work.loss
    weights = (loss.content_weight, loss.style_weight, loss.tv_weight)
    if all(weight is None for weight in weights):
        return f"strength {number_text(float(loss.strength))}"
    values = ", ".join(number_text(float(weight)) if weight is not None else "none" for weight in weights)
    return f"content, style, tv: {values} (tv {loss.tv_reduction})"
