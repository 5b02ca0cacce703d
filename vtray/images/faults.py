"""Why an encoded image is refused: the reasons in one place, and what the bytes alone say about it."""

from typing import Literal

from vtray.errors import ImageError

Reason = Literal[
    "empty",  # no bytes
    "lfs_pointer",  # a git-lfs pointer in the place of the file
    "unidentified",  # no known image format
    "truncated",  # the file ends before the image does
    "too_many_pixels",  # over the pixel limit, found in the header
    "metadata_bomb",  # a text or profile chunk that unpacks to far more than it should
    "broken",  # a known format with damaged content
    "unsupported",  # intact, but its samples have no stated white (float, 32 bit)
    "out_of_memory",  # the decoder could not get the memory it asked for
    "too_large",  # encoding: larger than the format allows
]

_PNG = b"\x89PNG\r\n\x1a\n"
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_SIGNATURES = (b"\xff\xd8\xff", _PNG, b"GIF8", b"II*\0", b"MM\0*", b"RIFF", _JP2, b"\xff\x4f\xff\x51")


def decode_error(reason: Reason, message: str) -> ImageError:
    """An ImageError of stage "decode"."""
    return ImageError("decode", reason, message)


def encode_error(reason: Reason, message: str) -> ImageError:
    """An ImageError of stage "encode"."""
    return ImageError("encode", reason, message)


def is_lfs_pointer(encoded: bytes) -> bool:
    """True for the small text file that git-lfs leaves where the real file was not fetched."""
    return encoded.startswith(b"version https://git-lfs.github.com/spec/")


def has_signature(encoded: bytes) -> bool:
    """True if the first bytes name an image format, whatever follows."""
    return encoded.startswith(_SIGNATURES) or _is_avif(encoded)


def is_cut_short(encoded: bytes) -> bool:
    """True if the container says that bytes are missing at the end; False where the format cannot tell."""
    if encoded.startswith(_PNG):
        return _png_ends_early(encoded)
    if encoded.startswith((b"\xff\xd8", _JP2, b"\xff\x4f\xff\x51")):
        return b"\xff\xd9" not in encoded
    if encoded.startswith(b"GIF8"):
        zero_sized = b"\0\0" in (encoded[6:8], encoded[8:10])  # a fault of its own, whatever follows
        return not zero_sized and not encoded.endswith(b";")
    if encoded.startswith((b"II*\0", b"MM\0*")):
        return _tiff_ends_early(encoded)
    if encoded.startswith(b"RIFF"):
        return 8 + int.from_bytes(encoded[4:8], "little") > len(encoded)
    return _is_avif(encoded) and _boxes_end_early(encoded)


def _is_avif(encoded: bytes) -> bool:
    return encoded[4:8] == b"ftyp"


def _png_ends_early(encoded: bytes) -> bool:
    position = len(_PNG)
    while position + 8 <= len(encoded):
        kind = encoded[position + 4 : position + 8]
        if not kind.isalpha():
            return False  # garbage, not an end
        position += 12 + int.from_bytes(encoded[position : position + 4], "big")
        if kind == b"IEND":
            break
    return position > len(encoded) or b"IEND" not in encoded


def _tiff_ends_early(encoded: bytes) -> bool:
    byteorder: Literal["little", "big"] = "little" if encoded[:1] == b"I" else "big"
    directory = int.from_bytes(encoded[4:8], byteorder)
    num_entries = int.from_bytes(encoded[directory : directory + 2], byteorder)
    return directory + 2 + 12 * num_entries > len(encoded)


def _boxes_end_early(encoded: bytes) -> bool:
    position = 0
    while position + 8 <= len(encoded):
        size = int.from_bytes(encoded[position : position + 4], "big")
        if size < 8:  # 0 runs to the end of the file, 1 has a 64-bit size
            return False
        position += size
    return position != len(encoded)
