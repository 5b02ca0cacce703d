"""Which mask belongs to an image: one file for all, or a folder of masks with the images' relative names."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vtray.errors import ImageError, StorageMissing
from vtray.images import decode
from vtray.sources.objects import storage_for
from vtray.storage import join_uri
from vtray.style.masks import Mask, check_mask
from vtray.style.work import Image

ALSO = ".png"  # masks of photographs are mostly saved without loss


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskSource:
    """Where one style applies. uri: the mask's file, or the folder of masks if there is no `image`.

    version: hash of the file, or of the folder's listing. image: the decoded file, uint8 (H, W, 3), read once by
    the driver.
    """

    uri: str
    version: str
    image: Image | None = None

    def mask_of(self, path: str, *, size: tuple[int, int]) -> Mask:
        """The mask of the image at that relative path, uint8 (H, W) of that size.

        Raises: ImageError (stage stylize) if it is missing, broken or of another size.
        """
        name, image = (self.uri, self.image) if self.image is not None else self._read(path)
        return check_mask(image, name=name, height=size[0], width=size[1])

    def _read(self, path: str) -> tuple[str, Image]:
        for uri in self._places(path):
            storage, key = storage_for(uri)
            try:
                return uri, decode(storage.read(key)).image
            except StorageMissing:
                continue
            except ImageError as error:
                raise ImageError("stylize", "mask_broken", f"mask {uri}: {error}") from error
        tried = " or ".join(self._places(path))
        raise ImageError("stylize", "mask_missing", f"no mask {tried}; draw it, or leave the image out")

    def _places(self, path: str) -> Iterator[str]:
        yield join_uri(self.uri, path)
        stem, suffix = posixpath.splitext(path)
        if suffix != ALSO:
            yield join_uri(self.uri, f"{stem}{ALSO}")


def masks_of(sources: tuple[MaskSource | None, ...], path: str, *, size: tuple[int, int]) -> tuple[Mask, ...]:
    """One mask per style for an image; a style without one applies everywhere. Empty if no style has a mask.

    Raises: ImageError (stage stylize).
    """
    if not any(sources):
        return ()
    everywhere = np.full(size, 255, np.uint8)
    return tuple(source.mask_of(path, size=size) if source else everywhere for source in sources)
