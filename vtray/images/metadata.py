"""What an image file says besides its pixels: EXIF, XMP, profile, resolution, and notes on what reading changed.

Every part is read on its own, so a damaged one is dropped with a note and the others stay.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image as Pillow
from PIL import ImageOps

from vtray.images.codec import FORMATS, MAX_PIXELS, DecodedImage, Image
from vtray.images.exif_block import tags_of_tiff, upright_exif
from vtray.images.pillow_switches import pillow_switches
from vtray.images.profile import colour_space, to_srgb

_WORDS = {"1": "black and white", "L": "grey", "LA": "grey", "P": "palette", "PA": "palette"}
_RGB_MODES = ("RGB", "RGBA", "RGBa", "RGBX")
_RAW_EXIF = "Raw profile type exif"  # a text chunk that older programs write into PNG
_IPTC_BLOCK, _IPTC_TAG = 0x0404, 33723  # of Photoshop in JPEG, of TIFF
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)\d")

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """What goes back into the file when its pixels change.

    exif: a block with its prefix, orientation 1, no thumbnail. xmp: a packet, orientation 1. icc: a profile for
    RGB pixels; without one they count as sRGB. dpi: dots per inch across and down. lossless: a WebP file stored
    without loss. notes: what reading changed or lost, one line each.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    lossless: bool = False
    notes: tuple[str, ...] = ()


def read_metadata(
    encoded: bytes, decoded: DecodedImage, *, max_pixels: int = MAX_PIXELS
) -> tuple[Image, Metadata]:
    """The pixels as the file's profile means them, and its metadata as they are true of these pixels.

    Only CMYK and grey pixels with a profile of their kind change, to sRGB. A profile for RGB is kept, and the
    pixels stay under it as they are. Raises nothing, whatever the bytes are.
    """
    notes: list[str] = []
    with pillow_switches(max_pixels):
        opened = _unless_damaged("metadata", lambda: _opened(encoded), notes)
        if opened is None:
            return decoded.image, Metadata(notes=tuple(notes))
        turned = decoded.orientation >= 5
        exif = _unless_damaged("EXIF", lambda: _exif(opened, turned=turned), notes)
        xmp = _unless_damaged("XMP", lambda: _xmp(opened), notes)
        dpi = _unless_damaged("resolution", lambda: _dpi(opened, turned=turned), notes)
        image, icc = _colours(opened, decoded, notes)
        notes += _unless_damaged("description", lambda: _conversions(opened, encoded, decoded.mode), notes) or []
    lossless = decoded.format == "webp" and _is_lossless_webp(encoded)
    return image, Metadata(exif=exif, xmp=xmp, icc=icc, dpi=dpi, lossless=lossless, notes=tuple(notes))


def _unless_damaged(what: str, read: Callable[[], Part | None], notes: list[str]) -> Part | None:
    try:
        return read()
    except Exception:  # noqa: BLE001 - damaged metadata raises nearly anything; the pixels are fine
        notes.append(f"damaged {what} dropped")
        return None


def _opened(encoded: bytes) -> Pillow.Image:
    opened = Pillow.open(io.BytesIO(encoded), formats=FORMATS)
    if opened.format == "PNG":
        opened.load()  # EXIF and XMP may come after the pixels
    return opened


def _conversions(opened: Pillow.Image, encoded: bytes, mode: str) -> list[str]:
    """What decoding changed or left behind."""
    found = []
    if mode not in _RGB_MODES:
        found.append(f"{'grey' if mode.startswith('I') else _WORDS.get(mode, mode)} -> RGB")
    if (bits := _bits(opened, encoded, mode)) > 8:
        found.append(f"{bits}-bit -> 8-bit")
    if (num_pictures := getattr(opened, "n_frames", 1)) > 1:
        found.append(f"the first of {num_pictures} pictures")
    if _has_iptc(opened):
        found.append("IPTC dropped")
    return found


def _has_iptc(opened: Pillow.Image) -> bool:
    if opened.format == "TIFF":
        return _IPTC_TAG in opened.tag_v2
    blocks = opened.info.get("photoshop")
    return isinstance(blocks, dict) and bool(blocks.get(_IPTC_BLOCK))


def _bits(opened: Pillow.Image, encoded: bytes, mode: str) -> int:
    """Bits per sample in the file, where its format tells."""
    if opened.format == "PNG":
        return encoded[24]
    if opened.format == "TIFF":
        return max(int(bits) for bits in opened.tag_v2.get(258, (8,)))
    return 16 if mode.startswith("I") else 8


def _exif(opened: Pillow.Image, *, turned: bool) -> bytes | None:
    if opened.format == "TIFF":
        tags = tags_of_tiff(opened.getexif())
        return upright_exif(tags.tobytes(), turned=turned) if len(tags) else None
    block = opened.info.get("exif")
    if block is None and _RAW_EXIF in opened.info:
        block = bytes.fromhex("".join(opened.info[_RAW_EXIF].split("\n")[3:]))
    return upright_exif(block, turned=turned) if block else None


def _xmp(opened: Pillow.Image) -> bytes | None:
    packet = opened.info.get("xmp")
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet) if packet else None


def _dpi(opened: Pillow.Image, *, turned: bool) -> tuple[float, float] | None:
    """None where the file states none: Pillow then says 72 for a JPEG and 1 for a TIFF."""
    info = opened.info
    stated = info.get("jfif_unit") in (1, 2) if opened.format in ("JPEG", "MPO") else "resolution" not in info
    across, down = info.get("dpi", (0, 0)) if stated else (0, 0)
    if not (0 < across <= 65_535 and 0 < down <= 65_535):
        return None
    return (float(down), float(across)) if turned else (float(across), float(down))


def _colours(opened: Pillow.Image, decoded: DecodedImage, notes: list[str]) -> tuple[Image, bytes | None]:
    """The pixels as the file's profile means them, and the profile that they need from now on."""
    profile = opened.info.get("icc_profile")
    if not profile:
        return decoded.image, None
    space = _unless_damaged("ICC profile", lambda: colour_space(profile), notes)
    if space == "RGB" and decoded.mode not in ("CMYK", "LAB"):
        return decoded.image, profile
    image = None
    if (space, decoded.mode) == ("CMYK", "CMYK"):
        image = _unless_damaged("ICC profile", lambda: to_srgb(ImageOps.exif_transpose(opened), profile), notes)
    elif space == "GRAY" and decoded.mode[0] in "1LI" and decoded.mode != "LAB":
        grey = Pillow.fromarray(decoded.image[..., 0])
        image = _unless_damaged("ICC profile", lambda: to_srgb(grey, profile), notes)
    elif space is not None:
        notes.append(f"ICC profile dropped: it is for {space}, the pixels were {decoded.mode}")
    if image is None:
        return decoded.image, None
    notes.append(f"{space} -> sRGB through the ICC profile")
    return image, None


def _is_lossless_webp(encoded: bytes) -> bool:
    """True if the first picture is a VP8L chunk. Source: WebP container specification (RFC 9649), section 2."""
    position = 12
    while position + 8 <= len(encoded):
        kind = encoded[position : position + 4]
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        length = int.from_bytes(encoded[position + 4 : position + 8], "little")
        position += 24 if kind == b"ANMF" else 8 + length + length % 2  # a frame's chunks come after its header
    return False
