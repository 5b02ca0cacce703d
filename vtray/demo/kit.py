"""What the demo's style transfer needs and cannot download: a drawn painting and a learned feature extractor."""

from dataclasses import dataclass
from pathlib import Path

from vtray.demo.catalog import catalog_images
from vtray.demo.extractor import learn_extractor, write_extractor
from vtray.demo.painting import draw_painting
from vtray.images import encode

PAINTING_PX = 512
COUNTS = {"train": 1}  # drawings of each product that the extractor learns from, besides the painting


@dataclass(frozen=True, kw_only=True)
class StyleKit:
    """The files, and from how many drawn products the extractor learned."""

    painting: Path
    extractor: Path
    num_drawings: int


def write_style_kit(folder: Path) -> StyleKit:
    """Write painting.png and extractor.safetensors; they are the same whatever else lies in the folder.

    Raises:
        OSError: the folder cannot be written.
    """
    kit = StyleKit(
        painting=folder / "painting.png",
        extractor=folder / "extractor.safetensors",
        num_drawings=len(drawings := [picture.image for picture in catalog_images(counts=COUNTS)]),
    )
    painting = draw_painting(height=PAINTING_PX, width=PAINTING_PX)
    folder.mkdir(parents=True, exist_ok=True)
    kit.painting.write_bytes(encode(painting, format="png"))
    write_extractor(kit.extractor, learn_extractor([drawings, [painting]]))
    return kit
