"""EXIF that fits upright pixels, every other byte as the camera wrote it.

A block is changed in place: written anew, maker notes would lose their absolute offsets and Pillow would turn all
letters outside ASCII into question marks. Only TIFF files, which have tags instead of a block, are written anew.
Source: Exif 3.0 (CIPA DC-008), section 4.6; TIFF 6.0, section 2.
"""

import struct
from typing import Any

from PIL import Image as Pillow

PREFIX = b"Exif\0\0"

_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_THUMBNAIL_START, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT = 3
_XMP = 700

# width and height, horizontal and vertical resolution
_MAIN_PAIRS = ((0x0100, 0x0101), (0x011A, 0x011B))
_EXIF_PAIRS = ((0xA002, 0xA003), (0xA20E, 0xA20F))

# Below 700 a TIFF's tags describe how its pixels are stored, but for these: description, make, model, resolutions
# and their unit, software, date, artist, computer. Above, but for these: directories, XMP, IPTC, Photoshop, ICC.
_DESCRIBING = {270, 271, 272, 282, 283, 296, 305, 306, 315, 316}
_KEPT_APART = {_EXIF, _GPS, _INTEROP, _XMP, 33723, 34377, 34675, 37724}


def upright_exif(block: bytes, *, turned: bool) -> bytes:
    """The block as it is true of upright pixels, with its prefix.

    Orientation becomes 1 and the thumbnail goes, it shows the old pixels. turned: the pixels were turned by 90
    degrees, so widths and heights change places.

    Raises:
        ValueError: there is no directory that a reader could follow.
    """
    tiff = bytearray(block.removeprefix(PREFIX).removeprefix(PREFIX))
    order = _BYTE_ORDERS.get(bytes(tiff[:4]))
    if order is None or len(tiff) < 8:
        raise ValueError(f"not an EXIF block, it begins with {block[:10]!r}")
    main = _number(tiff, order, 4)
    entries = _entries(tiff, order, main)
    if not entries:
        raise ValueError(f"no EXIF directory at {main} of {len(tiff)} bytes")
    if _ORIENTATION in entries:
        struct.pack_into(f"{order}HHIHH", tiff, entries[_ORIENTATION], _ORIENTATION, _SHORT, 1, 1, 0)
    if turned:
        _swap(tiff, entries, _MAIN_PAIRS)
        if _EXIF in entries:
            _swap(tiff, _entries(tiff, order, _number(tiff, order, entries[_EXIF] + 8)), _EXIF_PAIRS)
    _drop_thumbnail(tiff, order, main)
    return PREFIX + bytes(tiff)


def tags_of_tiff(tags: Pillow.Exif) -> Pillow.Exif:
    """What the tags of a TIFF say about the picture, not about its storage; text stays the bytes that it was."""
    kept = Pillow.Exif()
    for directory in (_EXIF, _GPS):
        if found := _true_text(dict(tags.get_ifd(directory))):
            if _INTEROP in found:
                found[_INTEROP] = dict(tags.get_ifd(_INTEROP))
            kept.get_ifd(directory).update(found)
            kept[directory] = 0  # Pillow writes the directory above if it finds an offset, whichever
    describing = {tag: tags[tag] for tag in tags if tag in _DESCRIBING or (tag > _XMP and tag not in _KEPT_APART)}
    for tag, value in _true_text(describing).items():
        kept[tag] = value
    return kept


def tags_for_tiff(block: bytes | None, xmp: bytes | None) -> Pillow.Exif:
    """A block and an XMP packet as the tags that Pillow's TIFF writer takes."""
    loaded = Pillow.Exif()
    if block is not None:
        loaded.load(block)
    tags = tags_of_tiff(loaded)
    if xmp is not None:
        tags[_XMP] = xmp
    return tags


def _true_text(values: dict[int, Any]) -> dict[int, Any]:
    """Text outside ASCII as it was in the file: Pillow reads it as Latin-1, which gives every byte back."""
    return {
        tag: value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value
        for tag, value in values.items()
    }


def _number(tiff: bytearray, order: str, position: int) -> int:
    return int(struct.unpack_from(f"{order}I", tiff, position)[0])


def _entries(tiff: bytearray, order: str, directory: int) -> dict[int, int]:
    """Tag -> where its 12 bytes begin; of a directory that is cut short, the tags that are there."""
    if not 8 <= directory <= len(tiff) - 2:
        return {}
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    end = min(directory + 2 + 12 * count, len(tiff) - 11)
    return {struct.unpack_from(f"{order}H", tiff, at)[0]: at for at in range(directory + 2, end, 12)}


def _swap(tiff: bytearray, entries: dict[int, int], pairs: tuple[tuple[int, int], ...]) -> None:
    """Give two tags each other's type, count and value, wherever the values lie."""
    for one, other in pairs:
        if one in entries and other in entries:
            first = slice(entries[one] + 2, entries[one] + 12)
            second = slice(entries[other] + 2, entries[other] + 12)
            tiff[first], tiff[second] = tiff[second], tiff[first]


def _drop_thumbnail(tiff: bytearray, order: str, main: int) -> None:
    """Unlink the second directory and blank its JPEG, or cut it off where it is the end of the block."""
    (count,) = struct.unpack_from(f"{order}H", tiff, main)
    link = main + 2 + 12 * count
    if link + 4 > len(tiff):
        return
    thumbnail = _entries(tiff, order, _number(tiff, order, link))
    struct.pack_into(f"{order}I", tiff, link, 0)
    if not {_THUMBNAIL_START, _THUMBNAIL_LENGTH} <= thumbnail.keys():
        return
    start = _number(tiff, order, thumbnail[_THUMBNAIL_START] + 8)
    end = start + _number(tiff, order, thumbnail[_THUMBNAIL_LENGTH] + 8)
    if tiff[start : start + 2] != b"\xff\xd8" or not link + 4 <= start < end <= len(tiff):
        return
    tiff[start:end] = b"" if end == len(tiff) else bytes(end - start)
