"""The style images and masks that a stylize run names, read once by the driver."""

from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.stylize_config import StyleConfig
from vtray.errors import ImageError, InputError, StorageMissing
from vtray.images import decode
from vtray.manifest import sha256
from vtray.steps.style_masks import MaskSource
from vtray.storage import absolute_uri, open_storage, read_uri
from vtray.style.work import StyleImage

MIN_STYLE_PX = 32  # a shorter side has no texture to compare


def read_styles(config: StyleConfig) -> tuple[StyleImage, ...]:
    """The decoded style images. Raises: InputError, StorageError."""
    addresses = config.uri or ()
    weights = config.weights or (1.0,) * len(addresses)
    return tuple(
        replace(read_style(uri, key="style.uri"), weight=weight)
        for uri, weight in zip(addresses, weights, strict=True)
    )


def read_style(uri: str, *, key: str) -> StyleImage:
    """One image file that the config names under `key`.

    Raises: InputError if it is missing, broken or smaller than 32 px; StorageError.
    """
    place = absolute_uri(uri)
    try:
        encoded = read_uri(place)
        image = decode(encoded).image
    except StorageMissing as error:
        raise InputError(f"{key}: {place}: no such file; name an image file") from error
    except ImageError as error:
        raise InputError(f"{key}: {place}: {error}; choose another image") from error
    height, width = image.shape[:2]
    if min(height, width) < MIN_STYLE_PX:
        raise InputError(
            f"{key}: {place} is {width} x {height} px, each side must have {MIN_STYLE_PX}; choose a larger image"
        )
    return StyleImage(name=PurePosixPath(place).name, image=image, sha256=sha256(encoded))


def read_masks(config: StyleConfig) -> tuple[MaskSource | None, ...]:
    """Where each style applies; a mask that is one file is read here. Raises: InputError, StorageError."""
    return tuple(None if uri is None else _read_mask(absolute_uri(uri)) for uri in config.masks or ())


def _read_mask(uri: str) -> MaskSource:
    folder = [(entry.key, entry.size, entry.version) for entry in open_storage(uri).list()]
    if folder:
        return MaskSource(uri=uri, version=sha256(repr(folder).encode()))
    try:
        encoded = read_uri(uri)
        return MaskSource(uri=uri, version=sha256(encoded), image=decode(encoded).image)
    except StorageMissing as error:
        raise InputError(f"style.masks: {uri}: no such file, or an empty folder") from error
    except ImageError as error:
        raise InputError(f"style.masks: {uri}: {error}; choose another image") from error
