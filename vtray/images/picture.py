"""An image file as an entry of a catalog: its pixels, and what has to survive when other pixels take their place.

Kept: name, size, alpha, EXIF, XMP, ICC profile, resolution, and the format where it can be written. Not kept: text
comments, gamma chunks, IPTC blocks, all pictures but the first.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin

from vtray.images.codec import MAX_PIXELS, Alpha, Image, decode
from vtray.images.exif_block import tags_for_tiff
from vtray.images.faults import encode_error
from vtray.images.metadata import Metadata, read_metadata
from vtray.images.modes import composite

PictureFormat = Literal["same", "jpeg", "png", "webp"]

_WHITE = (255, 255, 255)
_MAX_SIDE = {"jpeg": 65_500, "webp": 16_383}
# Bytes of metadata: one JPEG segment, one, up to 255; for PNG what Pillow's guard against bombs reads again.
_LIMITS = {"jpeg": {"exif": 65_533, "xmp": 65_504, "icc_profile": 255 * 65_519}, "png": {"icc_profile": 2**20}}
_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp", ".dib"),
    "others": (".gif", ".avif", ".ico", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm"),
}
_ALL_SUFFIXES = frozenset(chain(*_SUFFIXES.values()))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """One decoded file, upright.

    image: uint8 (H, W, 3) RGB, also under full transparency. alpha: uint8 (H, W), 255 is opaque. format: Pillow's
    name in lower case. mode: Pillow's mode of the file ("L", "CMYK", "I;16").
    """

    image: Image
    alpha: Alpha | None
    format: str
    mode: str
    metadata: Metadata

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading changed or lost, one line each."""
        return self.metadata.notes


def read_picture(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The first picture of a file with its metadata; damaged metadata is dropped with a note.

    The pixels are those of `decode`, but CMYK and grey files with a profile of their kind become sRGB through it.

    Raises:
        ImageError: as `decode`; nothing else, whatever the bytes are.
    """
    decoded = decode(encoded, max_pixels=max_pixels, keep_alpha=True)
    image, metadata = read_metadata(encoded, decoded, max_pixels=max_pixels)
    return Picture(image=image, alpha=decoded.alpha, format=decoded.format, mode=decoded.mode, metadata=metadata)


def write_picture(picture: Picture, image: Image, *, format: PictureFormat = "same", quality: int = 95) -> bytes:
    """The file of `picture` with the pixels of `image`, uint8 (H, W, 3); the same bytes for the same input.

    quality: 1 to 100, for JPEG and lossy WebP. What the format cannot hold is named by `writing_notes`.

    Raises:
        ValueError: the pixels have another size or type than the picture's.
        ImageError: stage "encode": a side over the format's limit ("too_large").
    """
    if image.dtype != np.uint8 or image.shape != picture.image.shape:
        found = f"{image.dtype} {image.shape}"
        raise ValueError(f"the new pixels are {found}, the picture's uint8 {picture.image.shape}; keep its size")
    kind = written_format(picture.format, format)
    height, width = image.shape[:2]
    if max(height, width) > _MAX_SIDE.get(kind, max(height, width)):
        allowed = f"{kind} allows {_MAX_SIDE[kind]} per side"
        raise encode_error("too_large", f"{width} x {height}: {allowed}; write it as png")
    return _WRITERS[kind](picture, image, quality)


def written_format(source: str, format: PictureFormat) -> str:
    """What a file of the format `source` becomes: "jpeg", "png", "webp", "tiff" or "bmp".

    Of the formats that are not written, GIF has no room for new colours, AVIF and JPEG 2000 no encoder whose bytes
    are the same everywhere, ICO fixed sizes, and a name like .pgm promises grey. They become PNG.
    """
    if format != "same":
        return format
    return source if source in _WRITERS else "png"


def extension_for(name: str, source: str, format: PictureFormat) -> str:
    """The output's file name for the file `name` of the format `source`.

    `same`: the name, or the name and ".png" for what cannot be written, so that "a.gif" and "a.png" may lie side
    by side. Else the image suffix is replaced, or one added; a suffix of that format stays.
    """
    if format == "same":
        return name if source in _WRITERS else f"{name}.png"
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in _SUFFIXES[format]:
        return name
    stem = name.removesuffix(suffix) if suffix.lower() in _ALL_SUFFIXES else name
    return stem + _SUFFIXES[format][0]


def writing_notes(picture: Picture, *, format: PictureFormat = "same") -> tuple[str, ...]:
    """What is lost when the picture is written in that format, one line each."""
    kind = written_format(picture.format, format)
    held = _held(picture.metadata, kind)
    lost = [
        f"{name} dropped: {len(content)} bytes, {kind} holds {_LIMITS[kind][name]}"
        for name, content in _carried(picture.metadata).items()
        if name not in held
    ]
    transparent = picture.alpha is not None and picture.alpha.min() < 255
    if kind == "jpeg" and transparent:
        lost.append("alpha composited on white: jpeg has none")
    return tuple(lost)


def _carried(metadata: Metadata) -> dict[str, bytes]:
    """What the file carries besides pixels, by Pillow's names."""
    parts = {"exif": metadata.exif, "xmp": metadata.xmp, "icc_profile": metadata.icc}
    return {name: content for name, content in parts.items() if content}


def _held(metadata: Metadata, kind: str) -> dict[str, bytes]:
    """The parts that are not too long for the format."""
    limits = _LIMITS.get(kind, {})
    parts = _carried(metadata).items()
    return {name: content for name, content in parts if len(content) <= limits.get(name, len(content))}


def _write_jpeg(picture: Picture, image: Image, quality: int) -> bytes:
    """4:4:4, because painted strokes change colour from pixel to pixel: with 4:2:0 a van Gogh at quality 95 is 2.4
    times as far off in Cb, for a file that is a third smaller.
    """
    held = _held(picture.metadata, "jpeg")
    opaque = image if picture.alpha is None else composite(image, picture.alpha, _WHITE)
    return _saved(opaque, "jpeg", dpi=picture.metadata.dpi, quality=quality, subsampling="4:4:4", **held)


def _write_png(picture: Picture, image: Image, quality: int) -> bytes:
    parts = _held(picture.metadata, "png")
    chunks = PngImagePlugin.PngInfo()
    if packet := parts.pop("xmp", None):
        chunks.add_itxt("XML:com.adobe.xmp", packet.decode("utf-8", "replace"))
    return _saved(_with_alpha(picture, image), "png", dpi=picture.metadata.dpi, pnginfo=chunks, **parts)


def _write_webp(picture: Picture, image: Image, quality: int) -> bytes:
    """Lossless if the picture was, then with the colours under transparency."""
    lossless = picture.metadata.lossless
    options = {"lossless": lossless, "exact": lossless, "quality": 80 if lossless else quality}
    return _saved(_with_alpha(picture, image), "webp", **options, **_carried(picture.metadata))


def _write_tiff(picture: Picture, image: Image, quality: int) -> bytes:
    """Not compressed: Pillow's compressing writer loses the EXIF directories."""
    metadata = picture.metadata
    tags = tags_for_tiff(metadata.exif, metadata.xmp)
    return _saved(_with_alpha(picture, image), "tiff", exif=tags, icc_profile=metadata.icc, compression="raw")


def _write_bmp(picture: Picture, image: Image, quality: int) -> bytes:
    """Pillow writes no alpha that it reads, OpenCV no resolution."""
    if picture.alpha is None:
        return _saved(image, "bmp", dpi=picture.metadata.dpi or (0, 0))
    done, encoded = cv2.imencode(".bmp", cv2.cvtColor(_with_alpha(picture, image), cv2.COLOR_RGBA2BGRA))
    assert done, "BMP holds every size"
    return bytes(encoded)


def _with_alpha(picture: Picture, image: Image) -> Image:
    return image if picture.alpha is None else np.dstack([image, picture.alpha])


def _saved(image: Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    given = {name: option for name, option in options.items() if option is not None}
    Pillow.fromarray(image).save(buffer, kind, **given)
    return buffer.getvalue()


_WRITERS: dict[str, Callable[[Picture, Image, int], bytes]] = {
    "jpeg": _write_jpeg,
    "png": _write_png,
    "webp": _write_webp,
    "tiff": _write_tiff,
    "bmp": _write_bmp,
}
