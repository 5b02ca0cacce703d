"""Encoded bytes to uint8 HWC RGB and back.

Plain JPEGs go through the strict libjpeg-turbo decoder (simplejpeg); whatever it refuses or does not know goes to
Pillow, whose result or error decides. Every file ends as pixels or as one ImageError with a reason.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as Pillow

from vtray.errors import ImageError
from vtray.images.faults import Reason, decode_error, encode_error, has_signature, is_cut_short, is_lfs_pointer
from vtray.images.jpeg_exif import orientation_tag
from vtray.images.modes import Rgb, composite, rgb_and_alpha
from vtray.images.pillow_switches import pillow_switches

Image = NDArray[np.uint8]  # H x W x 3, RGB
Alpha = NDArray[np.uint8]  # H x W, 255 is opaque
ImageFormat = Literal["jpeg", "png", "webp"]

# The size at which Pillow itself raises, about 512 MiB of RGB: more than any camera gives, and one image never
# takes a worker's whole memory.
MAX_PIXELS = 178_956_970

# Formats with a signature and a decoder inside Pillow. Left out: those that start other programs (EPS) and those
# without a signature (TGA), which make pixels from noise. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "ICO")

_SAMPLING_420 = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
_MAX_SIDE = {"jpeg": 65_500, "png": 2**31 - 1, "webp": 16_383}  # limits of libjpeg, the PNG header, libwebp
_ORIENTED: dict[int, Callable[[Any], Any]] = {
    2: lambda plane: cv2.flip(plane, 1),
    3: lambda plane: cv2.rotate(plane, cv2.ROTATE_180),
    4: lambda plane: cv2.flip(plane, 0),
    5: cv2.transpose,
    6: lambda plane: cv2.rotate(plane, cv2.ROTATE_90_CLOCKWISE),
    7: lambda plane: cv2.flip(cv2.transpose(plane), -1),
    8: lambda plane: cv2.rotate(plane, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DecodedImage:
    """One decoded image and what it was before.

    image: uint8 (H, W, 3) RGB, C-contiguous. alpha: uint8 (H, W), only if asked for and present. format: Pillow's
    name in lower case. mode: Pillow's mode of the file ("L", "CMYK", "I;16"). orientation: the EXIF orientation
    (1 to 8) that was applied.
    """

    image: Image
    alpha: Alpha | None
    format: str
    mode: str
    orientation: int


def decode(
    encoded: bytes, *, max_pixels: int = MAX_PIXELS, background: Rgb = (255, 255, 255), keep_alpha: bool = False
) -> DecodedImage:
    """The first picture of a file, upright; safe to call from several threads.

    Transparency is composited on `background`; with `keep_alpha` the image is what the file holds and alpha comes
    apart. Animated and multi-picture files give their first picture. Damaged EXIF counts as upright.

    Raises:
        ImageError: stage "decode", with one of `faults.Reason`; nothing else, whatever the bytes are.
    """
    if not encoded:
        raise decode_error("empty", "the file is empty (0 bytes)")
    if is_lfs_pointer(encoded):
        raise decode_error("lfs_pointer", "a git-lfs pointer, not the image: run `git lfs pull` at its source")
    decoded = _decode_plain_jpeg(encoded, max_pixels) or _decode_with_pillow(encoded, max_pixels)
    if decoded.alpha is None or keep_alpha:
        return decoded
    return replace(decoded, image=composite(decoded.image, decoded.alpha, background), alpha=None)


def encode(image: Image, *, format: ImageFormat = "jpeg", quality: int = 90) -> bytes:
    """uint8 (H, W, 3) RGB -> file bytes, the same bytes for the same pixels.

    quality: 1 to 100 for JPEG (4:2:0, the bytes that Pillow writes) and WebP (lossy); PNG is lossless and ignores
    it. No metadata is written.

    Raises:
        ValueError: not uint8 (H, W, 3).
        ImageError: stage "encode": no pixels ("empty") or a side over the format's limit ("too_large").
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 (H, W, 3), got {image.dtype} {image.shape}; convert it first")
    height, width = image.shape[:2]
    if not image.size:
        raise encode_error("empty", f"{width} x {height} has no pixels")
    if max(height, width) > _MAX_SIDE[format]:
        allowed = f"{format} allows {_MAX_SIDE[format]} per side"
        raise encode_error("too_large", f"{width} x {height}: {allowed}; resize it or use png")
    contiguous = np.ascontiguousarray(image)
    if format == "jpeg":
        return _encode_jpeg(contiguous, quality)
    return _encode_with_pillow(contiguous, format, quality)


def _encode_jpeg(image: Image, quality: int) -> bytes:
    """Pillow's bytes at twice its speed. simplejpeg is no faster and takes the less exact DCT below quality 96."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING_420]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done, "sizes that JPEG cannot hold were refused before"
    return bytes(encoded)


def _encode_with_pillow(image: Image, kind: ImageFormat, quality: int) -> bytes:
    """Twice (WebP) and three times (PNG) as fast as Pillow's defaults, with files 2 % and 15 % larger."""
    options = {"compress_level": 1} if kind == "png" else {"quality": quality, "method": 2}
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _decode_plain_jpeg(encoded: bytes, max_pixels: int) -> DecodedImage | None:
    """A faultless grey or three-channel JPEG; None for all that Pillow has to judge."""
    if not encoded.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded, strict=True)
        if colorspace in ("CMYK", "YCCK"):
            return None
        _check_pixels(width, height, max_pixels)
        image = simplejpeg.decode_jpeg(encoded, "RGB", strict=True)
    except ValueError:
        return None
    orientation = _jpeg_orientation(encoded, max_pixels)
    mode = "L" if colorspace == "Gray" else "RGB"
    return DecodedImage(
        image=_turned(image, orientation), alpha=None, format="jpeg", mode=mode, orientation=orientation
    )


def _jpeg_orientation(encoded: bytes, max_pixels: int) -> int:
    orientation = orientation_tag(encoded)
    if orientation is not None:
        return orientation
    with pillow_switches(max_pixels):
        try:
            return _orientation(Pillow.open(io.BytesIO(encoded), formats=("JPEG",)))
        except Exception:  # noqa: BLE001 - damaged metadata raises nearly anything; the pixels are fine
            return 1


def _decode_with_pillow(encoded: bytes, max_pixels: int) -> DecodedImage:
    with pillow_switches(max_pixels):
        try:
            decoded = _load(encoded, max_pixels)
        except ImageError:
            raise
        except Exception as error:
            raise decode_error(_reason(error, encoded), _message(error, encoded, max_pixels)) from error
    # Pillow takes these without their last bytes, and a JPEG 2000 then has other pixels.
    if decoded.format in ("png", "jpeg2000") and is_cut_short(encoded):
        raise decode_error(
            "truncated", f"the {decoded.format} file ends before its end mark ({len(encoded)} bytes)"
        )
    return decoded


def _load(encoded: bytes, max_pixels: int) -> DecodedImage:
    opened = Pillow.open(io.BytesIO(encoded), formats=FORMATS)
    width, height = opened.size
    _check_pixels(width, height, max_pixels)
    kind, mode = opened.format, opened.mode
    # The TIFF plugin turns the pixels itself while it loads, and then forgets the tag.
    turned = _orientation(opened) if kind == "TIFF" else 1
    opened.load()
    pending = _orientation(opened)
    depth = encoded[24] if kind == "PNG" else 8
    image, alpha = rgb_and_alpha(opened, depth=depth)
    return DecodedImage(
        image=_turned(image, pending),
        alpha=None if alpha is None else _turned(alpha, pending),
        format="jpeg" if kind == "MPO" else kind.lower(),
        mode=mode,
        orientation=max(turned, pending),
    )


def _message(error: Exception, encoded: bytes, max_pixels: int) -> str:
    """Pillow's refusal, the same text for the same file: some of its messages name objects by their address."""
    if isinstance(error, UnidentifiedImageError):
        begins = f"{len(encoded)} bytes, the first are {encoded[:8]!r}"
        return f"not a readable image ({begins}); known formats: {', '.join(FORMATS)}"
    if isinstance(error, Pillow.DecompressionBombError):
        found = str(error).split(" exceeds")[0]
        return f"{found}, the limit is {max_pixels} pixels: shrink the image or raise max_pixels"
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")


def _reason(error: Exception, encoded: bytes) -> Reason:
    text = str(error)
    if isinstance(error, Pillow.DecompressionBombError):
        return "too_many_pixels"
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if is_cut_short(encoded) or "runcated" in text or "EOF" in text or "not enough image data" in text:
        return "truncated"
    if "MAX_TEXT" in text:
        return "metadata_bomb"
    return "broken" if has_signature(encoded) or not isinstance(error, UnidentifiedImageError) else "unidentified"


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        found = f"{width} x {height} = {width * height} pixels"
        message = f"{found}, the limit is {max_pixels}: shrink the image or raise max_pixels"
        raise decode_error("too_many_pixels", message)


def _orientation(opened: Pillow.Image) -> int:
    """The EXIF (or XMP) orientation, 1 to 8; 1 if there is none or the metadata is damaged."""
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
        return int(orientation) if orientation in _ORIENTED else 1
    except Exception:  # noqa: BLE001 - damaged metadata raises nearly anything; the pixels are fine
        return 1


def _turned(plane: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) as a viewer shows it; OpenCV is several times faster here than copying a numpy view."""
    return _ORIENTED[orientation](plane) if orientation != 1 else plane
