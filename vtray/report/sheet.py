"""Contact sheets: rows of small pictures with their names and captions, for people to look at.

A sheet has the same bytes for the same arguments on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

from vtray.report.lettering import elide, font, width_of, wrap
from vtray.report.sheet_layout import Box, SheetLayout, text_height

Image = NDArray[np.uint8]  # H x W x 3, RGB

MIN_CELL_PX = 16
CAPTION_LINES = 2
PAGE, MAT, HATCH = (250, 250, 249), (238, 238, 236), (224, 224, 221)
INK, FAINT_INK = (38, 40, 43), (104, 108, 113)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One picture, uint8 (H, W, 3) RGB of any size, or None where there is none; the caption then says why."""

    image: Image | None
    caption: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class SheetRow:
    """The pictures of one row, in the order of the columns; columns beyond the last cell stay empty."""

    label: str
    cells: Sequence[Cell]


def contact_sheet(
    rows: Sequence[SheetRow], *, columns: Sequence[str], title: str = "", cell_px: int = 160
) -> Image:
    """uint8 (H, W, 3): one cell of `cell_px` squared for each picture, which keeps its proportions.

    Larger pictures are shrunk; small ones are shown as they are, or with every pixel doubled where that fits.
    A label such as train/can/a.jpg stands in two lines, file and folder; labels and names that are too long are
    cut in the middle, captions after two lines.
    Raises: ValueError for more cells than columns, a cell_px below 16, or an array that is no image.
    """
    if cell_px < MIN_CELL_PX:
        raise ValueError(f"cell_px is {cell_px}; give at least {MIN_CELL_PX}")
    for row in rows:
        _check_row(row, len(columns))
    layout = _layout(rows, columns=columns, title=title, cell_px=cell_px)
    sheet = _Sheet(layout)
    sheet.draw_names(columns, title)
    for number, row in enumerate(rows):
        sheet.draw_row(number, row)
    if not rows:
        sheet.draw_nothing()
    return np.array(sheet.canvas)


def _check_row(row: SheetRow, num_columns: int) -> None:
    if len(row.cells) > num_columns:
        raise ValueError(
            f"row {row.label!r} has {len(row.cells)} cells for {num_columns} columns; name every column"
        )
    for image in (cell.image for cell in row.cells if cell.image is not None):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                f"row {row.label!r}: a cell is {image.dtype} with shape {image.shape}; "
                "give uint8 with shape (height, width, 3) in RGB"
            )


def _layout(rows: Sequence[SheetRow], *, columns: Sequence[str], title: str, cell_px: int) -> SheetLayout:
    text_px = text_height(cell_px)
    names = [part for row in rows for part in _label_lines(row.label)]
    label_px = max((_width(name, text_px, cell_px) for name in names), default=0)
    captions = [cell.caption for row in rows for cell in row.cells if cell.image is not None]
    lines = [wrap(text, size_px=text_px, width_px=cell_px, max_lines=CAPTION_LINES) for text in captions]
    blank = SheetLayout(num_rows=0, num_columns=0, cell_px=cell_px)
    return SheetLayout(
        num_rows=len(rows),
        num_columns=len(columns),
        cell_px=cell_px,
        label_px=label_px,
        title_px=_width(title, blank.title_text_px, 3 * cell_px),
        caption_lines=max(map(len, lines), default=0),
    )


def _width(text: str, size_px: int, most_px: int) -> int:
    return width_of(elide(text, size_px=size_px, width_px=most_px), size_px=size_px)


def _label_lines(label: str) -> list[str]:
    """File above folder: the end of an image id tells more than its beginning."""
    folder, _, file = label.rpartition("/")
    return [part for part in (file, folder) if part]


class _Sheet:
    """The canvas and what can be drawn on it."""

    def __init__(self, layout: SheetLayout) -> None:
        self.layout = layout
        self.canvas = PillowImage.new("RGB", layout.size, PAGE)
        self.draw = ImageDraw.Draw(self.canvas)
        self.hatched = _hatched(layout.cell_px)

    def draw_names(self, columns: Sequence[str], title: str) -> None:
        if title:
            self._line(title, self.layout.title_box, size_px=self.layout.title_text_px)
        for column, name in enumerate(columns):
            self._line(name, self.layout.header_box(column), size_px=self.layout.text_px)

    def draw_row(self, number: int, row: SheetRow) -> None:
        self._draw_label(row.label, self.layout.label_box(number))
        for column, cell in enumerate(row.cells):
            box = self.layout.cell_box(number, column)
            if cell.image is None:
                self._draw_missing(cell.caption, box)
                continue
            self.draw.rectangle(_inside(box), fill=MAT)
            picture = fitted(cell.image, cell_px=self.layout.cell_px)
            self.canvas.paste(picture, _centred(picture.size, box))
            self._lines(self._wrapped(cell.caption, CAPTION_LINES), self.layout.caption_box(number, column))

    def draw_nothing(self) -> None:
        """A sheet without rows says so, in the place of the first cell."""
        self._draw_missing("no images", self.layout.cell_box(0, 0))

    def _draw_label(self, label: str, box: Box) -> None:
        left, top, right, bottom = box
        lines = _label_lines(label)
        for number, line in enumerate(lines):
            line_top = (top + bottom - len(lines) * self.layout.line_px) // 2 + number * self.layout.line_px
            place = (left, line_top, right, bottom)
            self._line(line, place, size_px=self.layout.text_px, ink=FAINT_INK if number else INK)

    def _draw_missing(self, reason: str, box: Box) -> None:
        left, top, right, bottom = box
        self.canvas.paste(self.hatched, (left, top))
        most = max(1, (bottom - top) // self.layout.line_px - 1)
        lines = self._wrapped(reason, most, pad=self.layout.gap)
        height = len(lines) * self.layout.line_px
        middle = (top + bottom - height) // 2
        if lines:
            self.draw.rectangle((left, middle - 3, right - 1, middle + height + 2), fill=MAT)
        self._lines(lines, (left + self.layout.gap, middle, right, bottom))

    def _wrapped(self, text: str, max_lines: int, *, pad: int = 0) -> list[str]:
        width_px = max(1, self.layout.cell_px - 2 * pad)
        return wrap(text, size_px=self.layout.text_px, width_px=width_px, max_lines=max_lines)

    def _lines(self, lines: Sequence[str], box: Box) -> None:
        for number, line in enumerate(lines):
            place = (box[0], box[1] + number * self.layout.line_px)
            self.draw.text(place, line, fill=FAINT_INK, font=font(self.layout.text_px))

    def _line(self, text: str, box: Box, *, size_px: int, ink: tuple[int, int, int] = INK) -> None:
        line = elide(text, size_px=size_px, width_px=box[2] - box[0])
        self.draw.text(box[:2], line, fill=ink, font=font(size_px))


def fitted(image: Image, *, cell_px: int) -> PillowImage.Image:
    """The picture at a size that fits into the cell: shrunk, doubled (nearest) or as it is."""
    picture = PillowImage.fromarray(np.ascontiguousarray(image))
    longer = max(picture.size)
    if 2 * longer <= cell_px:
        width, height = picture.size
        return picture.resize((2 * width, 2 * height), PillowImage.Resampling.NEAREST)
    if longer > cell_px:
        picture.thumbnail((cell_px, cell_px), PillowImage.Resampling.LANCZOS)
    return picture


def _centred(size: tuple[int, int], box: Box) -> tuple[int, int]:
    left, top, right, bottom = box
    return left + (right - left - size[0]) // 2, top + (bottom - top - size[1]) // 2


def _inside(box: Box) -> Box:
    """Pillow's rectangles include their right and bottom edge."""
    left, top, right, bottom = box
    return left, top, right - 1, bottom - 1


def _hatched(cell_px: int) -> PillowImage.Image:
    """The square of a missing picture: diagonal stripes."""
    rows, columns = np.indices((cell_px, cell_px))
    stripes = (rows + columns) // 4 % 2 == 0
    return PillowImage.fromarray(np.where(stripes[..., None], HATCH, MAT).astype(np.uint8))
