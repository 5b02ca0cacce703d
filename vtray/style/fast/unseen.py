"""How a network does on images that it is never trained on: losses of the 8-bit results, and a sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vtray.classify.numerics import in_layout
from vtray.images import encode
from vtray.report.sheet import Cell, SheetRow, contact_sheet
from vtray.style.fast.msgnet import MsgNet
from vtray.style.fast.trainer import LEVELS, Drawn, FastTrainer
from vtray.style.pixels import resized, rounded, to_images, to_pixels
from vtray.style.work import Image, StyleImage

CELL_PX = 224
THUMBNAIL_PX = 256
MAX_COLUMNS = 6  # styles on a sheet


@dataclass(frozen=True, kw_only=True, eq=False)
class Painted:
    """One unseen image in one style, uint8 (H, W, 3). content: loss of the result. share: style loss of the result
    as a share of what it was before."""

    name: str
    style: str
    image: Image
    content: float
    share: float


@torch.no_grad()
def paint_unseen(trainer: FastTrainer) -> list[Painted]:
    """Every unseen image of the task in every style, at the usual style size; the network stays as it is."""
    return [
        _paint(trainer, name, image, Drawn(style=style, size_px=trainer.task.style_px[0]))
        for name, image in trainer.task.unseen.items()
        for style in trainer.task.styles
    ]


def _paint(trainer: FastTrainer, name: str, image: Image, drawn: Drawn) -> Painted:
    network, content = trainer.network, to_pixels([image], trainer.device)
    levels = in_layout(content * LEVELS, trainer.task.layout)
    painted = network(levels, trainer.gram_of(drawn)) if isinstance(network, MsgNet) else network(levels)
    result = rounded(painted / LEVELS)
    objective = trainer.objective(content, [drawn])
    before, after = objective.measure(content), objective.measure(result)
    return Painted(
        name=name,
        style=drawn.style.name,
        image=to_images(result)[0],
        content=float(after.content[0]),
        share=float(after.style[0] / before.style[0].clamp_min(1e-12)),
    )


def unseen_metrics(painted: Sequence[Painted]) -> dict[str, float]:
    """Means over images and styles."""
    return {
        "unseen_content": float(np.mean([each.content for each in painted])),
        "unseen_style_share": float(np.mean([each.share for each in painted])),
    }


def unseen_sheet(
    painted: Sequence[Painted], unseen: Mapping[str, Image], styles: Sequence[StyleImage], *, title: str
) -> bytes:
    """A PNG: the styles on top, below them one row for each image."""
    shown = styles[:MAX_COLUMNS]
    found = {(each.name, each.style): each for each in painted}
    rows = [SheetRow(label="style", cells=[Cell(image=None), *(_style_cell(style) for style in shown)])]
    for name, image in unseen.items():
        results = [_result_cell(found[name, style.name]) for style in shown]
        rows.append(SheetRow(label=name, cells=[Cell(image=image), *results]))
    columns = ["content", *(style.name for style in shown)]
    return encode(contact_sheet(rows, columns=columns, title=title, cell_px=CELL_PX), format="png")


def _style_cell(style: StyleImage) -> Cell:
    return Cell(image=thumbnail(style.image))


def _result_cell(painted: Painted) -> Cell:
    return Cell(image=painted.image, caption=f"style {100 * painted.share:.0f} %, content {painted.content:.2f}")


def thumbnail(image: Image) -> Image:
    """The image with a longer side of 256 px at most."""
    height, width = image.shape[:2]
    factor = min(1.0, THUMBNAIL_PX / max(height, width))
    return resized(image, (max(1, round(height * factor)), max(1, round(width * factor))))
