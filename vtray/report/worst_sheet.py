"""The images that a classifier was most wrong about, each beside its Grad-CAM, as a contact sheet and as lines."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtray.images import encode
from vtray.report.ratios import percent_text
from vtray.report.sheet import Cell, Image, SheetRow, contact_sheet

CELL_PX = 240
NO_CLASS = "class not known"
NUM_PAIRS = 2  # images side by side, each with its Grad-CAM
COLUMNS = ("image, its class", "Grad-CAM, predicted class")


@dataclass(frozen=True, kw_only=True, eq=False)
class WorstImage:
    """uint8 (H, W, 3) RGB images: as the network saw it, and with the heat drawn over it (None: there is none)."""

    image: Image
    overlay: Image | None
    true_class: str | None  # None: not known
    predicted_class: str
    probability: float  # of the predicted class
    image_id: str = ""


def worst_images_sheet(entries: Sequence[WorstImage]) -> bytes:
    """PNG: two images in a row, numbered as in `worst_images_lines`; one without entries says so."""
    pairs = [_cells(number, entry) for number, entry in enumerate(entries, start=1)]
    rows = [
        SheetRow(label="", cells=[cell for pair in pairs[first : first + NUM_PAIRS] for cell in pair])
        for first in range(0, len(pairs), NUM_PAIRS)
    ]
    columns = COLUMNS * min(NUM_PAIRS, max(len(pairs), 1))
    return encode(contact_sheet(rows, columns=columns, cell_px=CELL_PX), format="png")


def worst_images_lines(entries: Sequence[WorstImage]) -> tuple[str, ...]:
    """The same in words, one line for each: `1. test/can/7.jpg: can taken for bottle, 97.3 %`."""
    return tuple(
        f"{number}. {f'{entry.image_id}: ' if entry.image_id else ''}{_verdict(entry)}"
        for number, entry in enumerate(entries, start=1)
    )


def _verdict(entry: WorstImage) -> str:
    predicted = f"{entry.predicted_class}, {percent_text(entry.probability)}"
    if entry.true_class is None:
        return predicted
    correct = entry.true_class == entry.predicted_class
    return f"rightly {predicted}" if correct else f"{entry.true_class} taken for {predicted}"


def _cells(number: int, entry: WorstImage) -> tuple[Cell, Cell]:
    predicted = f"{percent_text(entry.probability)} {entry.predicted_class}"
    overlay = entry.overlay
    return (
        Cell(image=entry.image, caption=f"{number}. {entry.true_class or NO_CLASS}"),
        Cell(image=overlay, caption=predicted if overlay is not None else f"no Grad-CAM; {predicted}"),
    )
