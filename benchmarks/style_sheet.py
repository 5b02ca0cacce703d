"""Draws docs/images/stylize.jpg: four photographs in the style of four paintings, with the defaults of stylize.

python benchmarks/style_sheet.py

Needs the fixtures; takes a few minutes. Only pictures in the public domain or under CC0; README names them.
"""

import sys

import harness
import numpy as np
from PIL import Image

sys.path.insert(0, str(harness.ROOT))

from vtray.images import encode
from vtray.report.sheet import Cell, SheetRow, contact_sheet
from vtray.steps.worker import prepare_worker
from vtray.style.engines.optimize import OptimizeEngine
from vtray.style.engines.stylized import Request
from vtray.style.pixels import resized
from vtray.style.work import FeatureSpec, StyleImage, StyleWork

SIDE_PX, CELL_PX = 320, 200
CONTENTS = ("astronaut.png", "coffee.png", "chelsea.png", "grace_hopper.bmp")
STYLES = ("starry_night.jpg", "shipwreck_turner.jpg", "great_wave_hokusai.png", "pink_cloud_cross.png")
TARGET = harness.ROOT / "docs" / "images" / "stylize.jpg"
FEATURES = FeatureSpec(
    network="vgg19_normalised",
    weights_uri=str(harness.FIXTURES / "style" / "vgg_normalised" / "vgg_normalised_conv3_1.pth"),
    weights_sha256="",
    content_layers=("relu3_1",),
    style_layers=("relu1_1", "relu2_1", "relu3_1"),
    precision="bf16",
    layout="nhwc",
)


def picture(folder: str, name: str) -> np.ndarray:
    """A fixture with a longer side of SIDE_PX."""
    image = np.asarray(Image.open(harness.FIXTURES / folder / name).convert("RGB"))
    factor = SIDE_PX / max(image.shape[:2])
    return resized(image, (round(image.shape[0] * factor), round(image.shape[1] * factor)))


def name_of(file: str) -> str:
    return file.partition(".")[0].replace("_", " ")


def main() -> None:
    if not harness.FIXTURES.is_dir():
        sys.exit(f"no fixtures at {harness.FIXTURES}; set VTRAY_FIXTURES")
    prepare_worker()
    contents = [picture("content", name) for name in CONTENTS]
    rows = [SheetRow(label="", cells=[Cell(image=None), *(Cell(image=content) for content in contents)])]
    for name in STYLES:
        style = StyleImage(name=name, image=picture("style_images", name), sha256=name)
        engine = OptimizeEngine.load(StyleWork(styles=(style,), features=FEATURES))
        made = engine.stylize([Request(image=content) for content in contents])
        cells = [Cell(image=style.image, caption=name_of(name)), *(Cell(image=one.image) for one in made)]
        rows.append(SheetRow(label="", cells=cells))
    columns = ["style", *(name_of(name) for name in CONTENTS)]
    TARGET.write_bytes(encode(contact_sheet(rows, columns=columns, cell_px=CELL_PX), quality=88))


if __name__ == "__main__":
    main()
