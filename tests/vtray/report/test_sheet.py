import numpy as np
import pytest

from vtray.report.sheet import MAT, PAGE, Cell, SheetRow, contact_sheet, fitted

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)


def flat(colour, *, height=200, width=200):
    return np.full((height, width, 3), colour, np.uint8)


def box_of(sheet, colour, *, tolerance=0):
    """left, top, right, bottom of everything in that colour."""
    near = (np.abs(sheet.astype(int) - colour) <= tolerance).all(axis=2)
    rows, columns = np.nonzero(near)
    assert len(rows), f"no pixel in {colour}"
    assert near[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all(), "not a filled box"
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def sheet_of(*rows, **options):
    num = max(len(row.cells) for row in rows)
    return contact_sheet(rows, columns=[f"variant {i}" for i in range(num)], **options)


def row(label, *images, caption=""):
    return SheetRow(label=label, cells=[Cell(image=image, caption=caption) for image in images])


def test_cells_stand_in_rows_and_columns():
    grey = flat((128, 128, 128))
    sheet = sheet_of(row("a", flat(RED), grey, flat(GREEN)), row("b", grey, flat(BLUE), grey), cell_px=64)
    red, green, blue = (box_of(sheet, colour) for colour in (RED, GREEN, BLUE))
    for left, top, right, bottom in (red, green, blue):
        assert (right - left, bottom - top) == (64, 64)
    assert red[1] == green[1]
    pitch = (green[0] - red[0]) // 2
    assert pitch > 64
    assert blue[0] == red[0] + pitch
    assert blue[1] >= red[3]


def test_margins_are_free():
    sheet = sheet_of(
        row("a long label", flat(RED), flat(RED), caption="a caption " * 20), title="a title", cell_px=64
    )
    for edge in (sheet[:8], sheet[-8:], sheet[:, :8], sheet[:, -8:]):
        assert (edge == PAGE).all()


@pytest.mark.parametrize(("height", "width"), [(100, 400), (400, 100), (33, 700)])
def test_proportions_stay(height, width):
    left, top, right, bottom = box_of(sheet_of(row("", flat(RED, height=height, width=width))), RED)
    assert max(right - left, bottom - top) == 160
    assert (right - left) / (bottom - top) == pytest.approx(width / height, rel=0.1)


def test_a_picture_lies_in_the_middle_of_its_mat():
    sheet = sheet_of(row("", flat(RED, height=100, width=400)))
    left, top, right, bottom = box_of(sheet, RED)
    assert bottom - top == 40
    above, below = sheet[top - 60 : top, left:right], sheet[bottom : bottom + 60, left:right]
    assert (above == MAT).all()
    assert (below == MAT).all()
    assert (sheet[top - 61, left:right] == PAGE).all()


@pytest.mark.parametrize(("side", "shown"), [(1, 2), (10, 20), (80, 160), (81, 81), (160, 160), (161, 160)])
def test_pictures_are_never_more_than_doubled(side, shown):
    assert fitted(flat(RED, height=side, width=side), cell_px=160).size == (shown, shown)


def test_doubling_repeats_pixels():
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    assert np.array_equal(np.array(fitted(image, cell_px=160)), image.repeat(2, 0).repeat(2, 1))


def test_a_picture_of_the_cells_size_is_shown_pixel_by_pixel():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    sheet = contact_sheet([row("", flat(RED, height=96, width=96), image)], columns=["a", "b"], cell_px=96)
    _, top, right, bottom = box_of(sheet, RED)
    left = right + 6  # the gap is a sixteenth of the cell
    assert np.array_equal(sheet[top:bottom, left : left + 96], image)


def test_the_same_arguments_give_the_same_bytes():
    rows = [row("Größe/牛乳.jpg", flat(RED, height=30), flat(GREEN), caption="hue +0.03, kelvin 3200")]
    first, second = (contact_sheet(rows, columns=["a", "b"], title="title") for _ in range(2))
    assert first.dtype == np.uint8
    assert first.tobytes() == second.tobytes()
    changed = contact_sheet(rows, columns=["a", "b"], title="another")
    assert first.shape != changed.shape or (first != changed).any()


def test_a_missing_picture_is_striped_and_shows_its_reason():
    def missing(reason):
        return sheet_of(SheetRow(label="", cells=[Cell(image=flat(RED)), Cell(image=None, caption=reason)]))

    without, reason = missing(""), missing("decode: truncated")
    _, top, right, bottom = box_of(reason, RED)
    striped = without[top:bottom, right + 10 : right + 170]
    assert len(np.unique(striped.reshape(-1, 3), axis=0)) == 2
    place = reason[top:bottom, right + 10 : right + 170]
    assert np.array_equal(striped[:40], place[:40])
    assert (place[60:100] < 150).any(), "no dark letters"
    outside = reason.copy()
    outside[top:bottom, right + 10 : right + 170] = without[top:bottom, right + 10 : right + 170]
    assert np.array_equal(outside, without)


def test_a_short_row_leaves_its_last_columns_empty():
    sheet = sheet_of(row("", flat(GREEN), flat(RED)), row("", flat(BLUE)))
    left, _, right, _ = box_of(sheet, RED)
    _, top, _, bottom = box_of(sheet, BLUE)
    assert (sheet[top:bottom, left:right] == PAGE).all()


def test_long_captions_take_two_lines_and_stay_in_their_column():
    def captioned(caption):
        return sheet_of(row("", flat(RED), caption=caption))

    none, one, two, many = (captioned(words) for words in ("", "flip", "word " * 8, "word " * 100))
    assert none.shape[0] < one.shape[0] < two.shape[0] == many.shape[0]
    left, _, right, bottom = box_of(many, RED)
    below = many[bottom:]
    assert (below[:, left:right] < 150).any()
    assert (below[:, :left] == PAGE).all()
    assert (below[:, right:] == PAGE).all()


def test_labels_and_names_do_not_touch_the_pictures():
    words = "a-name-that-is-far-too-long-for-any-sheet" * 3
    sheet = contact_sheet([row(f"{words}/{words}", flat(RED))], columns=[words], title=words)
    assert box_of(sheet, RED)[2] - box_of(sheet, RED)[0] == 160
    assert sheet.shape[1] < 4 * 160


def test_forty_rows():
    sheet = contact_sheet(
        [row(f"image {i}", flat(RED), flat(BLUE)) for i in range(40)], columns=["a", "b"], cell_px=32
    )
    columns = np.flatnonzero((sheet == RED).all(axis=2).any(axis=0))
    runs = np.diff((sheet[:, columns[0]] == RED).all(axis=1).astype(int))
    assert (runs == 1).sum() == 40


def test_sheets_of_nothing():
    assert contact_sheet([], columns=["a"], title="empty").ndim == 3
    assert contact_sheet([], columns=[]).ndim == 3
    assert contact_sheet([SheetRow(label="a", cells=[])], columns=[]).ndim == 3


@pytest.mark.parametrize("cell_px", [16, 33, 64, 512])
def test_cells_of_any_size(cell_px):
    sheet = sheet_of(row("label", flat(RED, height=600, width=600), caption="flip"), cell_px=cell_px)
    left, top, right, bottom = box_of(sheet, RED)
    assert (right - left, bottom - top) == (cell_px, cell_px)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="row 'a' has 2 cells for 1 columns"):
        contact_sheet([row("a", flat(RED), flat(RED))], columns=["x"])
    with pytest.raises(ValueError, match=r"float64 with shape \(4, 4, 3\)"):
        sheet_of(row("a", np.zeros((4, 4, 3))))
    with pytest.raises(ValueError, match=r"uint8 with shape \(4, 4\)"):
        sheet_of(row("a", np.zeros((4, 4), np.uint8)))
    with pytest.raises(ValueError, match="cell_px is 8"):
        sheet_of(row("a", flat(RED)), cell_px=8)
