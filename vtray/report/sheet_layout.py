"""Where everything lies on a contact sheet: boxes are (left, top, right, bottom) in pixels."""

from dataclasses import dataclass

Box = tuple[int, int, int, int]


def text_height(cell_px: int) -> int:
    """Font height in pixels of labels and captions beside cells of that side."""
    return min(16, max(10, round(cell_px * 0.075)))


@dataclass(frozen=True, kw_only=True)
class SheetLayout:
    """The geometry of one sheet, from the size of its cells and what is written.

    label_px: width of the labels' column, 0 without labels. title_px: width that the title would take, 0 without
    a title. caption_lines: lines below every cell.
    """

    num_rows: int
    num_columns: int
    cell_px: int
    label_px: int = 0
    title_px: int = 0
    caption_lines: int = 0

    @property
    def text_px(self) -> int:
        return text_height(self.cell_px)

    @property
    def title_text_px(self) -> int:
        return round(1.5 * self.text_px)

    @property
    def line_px(self) -> int:
        """From one line of text to the next."""
        return round(1.3 * self.text_px)

    @property
    def gap(self) -> int:
        """Between cells."""
        return max(4, self.cell_px // 16)

    @property
    def margin(self) -> int:
        """Around everything."""
        return 2 * self.gap

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet; a long title widens it, to three cells at most."""
        cells = max(1, self.num_columns) * (self.cell_px + self.gap) - self.gap
        title = min(self.title_px, 3 * self.cell_px)
        right = max(self._left + cells, self.margin + title)
        bottom = self._top + max(1, self.num_rows) * self._row_step - self.gap
        return right + self.margin, bottom + self.margin

    @property
    def title_box(self) -> Box:
        return self.margin, self.margin, self.size[0] - self.margin, self.margin + self._title_height

    def header_box(self, column: int) -> Box:
        """The line of a column's name."""
        left, top, right, _ = self.cell_box(0, column)
        return left, top - self.gap // 2 - self.line_px, right, top - self.gap // 2

    def label_box(self, row: int) -> Box:
        """The place of a row's name, beside its cells."""
        _, top, _, bottom = self.cell_box(row, 0)
        return self.margin, top, self.margin + self.label_px, bottom

    def cell_box(self, row: int, column: int) -> Box:
        """The square of one cell."""
        left = self._left + column * (self.cell_px + self.gap)
        top = self._top + row * self._row_step
        return left, top, left + self.cell_px, top + self.cell_px

    def caption_box(self, row: int, column: int) -> Box:
        """The lines below one cell."""
        left, _, right, bottom = self.cell_box(row, column)
        top = bottom + self.gap // 2
        return left, top, right, top + self.caption_lines * self.line_px

    @property
    def _left(self) -> int:
        return self.margin + (self.label_px + self.gap if self.label_px else 0)

    @property
    def _top(self) -> int:
        return self.margin + self._title_height + self.line_px + self.gap // 2

    @property
    def _title_height(self) -> int:
        return round(1.3 * self.title_text_px) + self.gap if self.title_px else 0

    @property
    def _row_step(self) -> int:
        captions = self.gap + self.caption_lines * self.line_px if self.caption_lines else 0
        return self.cell_px + captions + self.gap
