"""The size of an image from its header alone: for estimates, where no pixel need be decoded."""

import io

from PIL import ExifTags
from PIL import Image as Pillow

from vtray.images.codec import FORMATS, MAX_PIXELS
from vtray.images.pillow_switches import pillow_switches

_TURNED = (5, 6, 7, 8)  # EXIF orientations that show rows as columns


def size_in_header(encoded: bytes) -> tuple[int, int] | None:
    """Height and width in pixels of the upright image, from a whole file or its first bytes.

    None if these bytes do not tell: too few, or of no image. A size says nothing of the rest of the file.
    """
    with pillow_switches(MAX_PIXELS):
        try:
            opened = Pillow.open(io.BytesIO(encoded), formats=FORMATS)
        except Exception:  # noqa: BLE001 - damaged headers raise nearly anything
            return None
        width, height = opened.size
        return (width, height) if _is_turned(opened) else (height, width)


def _is_turned(opened: Pillow.Image) -> bool:
    """Whether Pillow's size has to be swapped. That of a TIFF is upright already; for EXIF behind the pixels of a
    PNG, which is rare, Pillow would decode them."""
    if opened.format == "TIFF" or (opened.format == "PNG" and "exif" not in opened.info):
        return False
    try:
        return opened.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception:  # noqa: BLE001 - damaged metadata raises nearly anything, and counts as upright
        return False
