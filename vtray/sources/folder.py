"""Folders of image files: root/x.jpg, root/<class>/x.jpg, root/<split>/<class>/x.jpg."""

from collections.abc import Sequence

from vtray.sources.objects import Found, Place, sift
from vtray.sources.unit import ImageRef
from vtray.storage import Entry

# What Pillow opens and people store pictures in; raw camera formats, video and vector graphics are not here.
JPEG_FAMILY = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")
WEB_AND_SCANS = (".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".tif", ".tiff", ".bmp", ".dib")
OTHER_FORMATS = (".ico", ".icns", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".qoi")
IMAGE_SUFFIXES = frozenset({*JPEG_FAMILY, *WEB_AND_SCANS, *OTHER_FORMATS})


def find_images(place: Place, *, layout: str = "auto") -> Found:
    """All image files below a root; class and split come from the first folders of their path.

    layout: "split" (split, then class), "class", "flat" (no labels), or "auto": "split" if one of the first
    folders is called train and every image lies at least two folders deep, else "class".
    """
    images, others = sift(place.entries, IMAGE_SUFFIXES)
    if layout == "auto":
        layout = "split" if _has_splits(images) else "class"
    refs = [_ref(place, entry, layout=layout) for entry in images]
    return Found(format="folder", refs=refs, inputs=images, skipped=others)


def _has_splits(images: Sequence[Entry]) -> bool:
    paths = [entry.key.split("/") for entry in images]
    return any(path[0] == "train" for path in paths) and all(len(path) > 2 for path in paths)


def _ref(place: Place, entry: Entry, *, layout: str) -> ImageRef:
    folders = [] if layout == "flat" else entry.key.split("/")[:-1]
    split = folders.pop(0) if layout == "split" and folders else None
    return ImageRef(
        image_id=entry.key,
        uri=place.uri(entry),
        num_bytes=entry.size,
        version=entry.version,
        class_name=folders[0] if folders else None,
        split=split,
    )
