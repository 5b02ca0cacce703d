"""Where the stylized file of an image lies below `data/`: at the image's own relative name, never at another's."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from vtray.images.picture import PictureFormat, extension_for, written_format
from vtray.seeding import digest_of
from vtray.shards import safe_name
from vtray.sources.folder import IMAGE_SUFFIXES
from vtray.sources.objects import suffix

PATHS = ("folder", "list")  # formats of input whose image ids are paths of files
MAX_NAME_BYTES = 200  # of one path component; file systems allow 255
ADDED_SUFFIXES = (".jpg", ".png", ".webp", ".tiff", ".bmp")  # what an image may be written as
_SUFFIX_OF = {"jpeg": ".jpg"}  # all others have their own name

_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, kw_only=True)
class FileNames:
    """The names of an input's results. instead: image_id -> stem, where the suffix that the format asks for would
    lead to another image's name."""

    input_format: str
    output_format: PictureFormat
    instead: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, image_ids: Iterable[str], *, input_format: str, output_format: PictureFormat) -> Self:
        """The names of all images of an input, checked against each other."""
        names = cls(input_format=input_format, output_format=output_format)
        paths = {image_id: names.path_of(image_id) for image_id in image_ids}
        return cls(input_format=input_format, output_format=output_format, instead=_instead(paths, names))

    def name_of(self, image_id: str, *, source: str) -> str:
        """The relative name of an image's result. source: the format of its file, in Pillow's lower-case words."""
        path = self.path_of(image_id)
        name = self._natural(path, source)
        stem = self.instead.get(image_id)
        return name if name == path or stem is None else f"{stem}{_suffix(name)}"

    def path_of(self, image_id: str) -> str:
        """The image's own name as a relative path that every file system holds."""
        parts = image_id.split("/")
        if self.input_format in PATHS and all(map(_is_plain, parts)):
            return image_id
        safe = "/".join(_short(safe_name(part) or "%") for part in parts)
        return _hashed(safe, image_id) if self.input_format in PATHS else safe

    def candidates(self, path: str) -> set[str]:
        """Every name that the result of `path` may get, by the format that its file turns out to have."""
        return {self._natural(path, source) for source in ("jpeg", "png", "webp", "tiff", "bmp", "other")}

    def _natural(self, path: str, source: str) -> str:
        if self.output_format != "same" or suffix(path) in IMAGE_SUFFIXES:
            return extension_for(path, source, self.output_format)
        kind = written_format(source, "same")
        return f"{path}{_SUFFIX_OF.get(kind, f'.{kind}')}"


def _instead(paths: Mapping[str, str], names: FileNames) -> dict[str, str]:
    """Stems for the images whose name may have to change and would then be another's, too."""
    wanted = Counter(name for path in paths.values() for name in names.candidates(path) | {path})
    instead = {}
    for image_id, path in paths.items():
        if any(wanted[name] > 1 for name in names.candidates(path) - {path}):
            appended = {f"{path}{added}" for added in ADDED_SUFFIXES}
            free = not appended & wanted.keys()
            instead[image_id] = path if free else _hashed(path.removesuffix(_suffix(path)), image_id)
    return instead


def _is_plain(part: str) -> bool:
    fits = len(part.encode()) <= MAX_NAME_BYTES and not _UNFIT.search(part)
    return fits and part not in ("", ".", "..")


def _short(part: str) -> str:
    if len(part.encode()) <= MAX_NAME_BYTES:
        return part
    start = part.encode()[: MAX_NAME_BYTES // 2].decode(errors="ignore")
    return _hashed(f"{start}{_suffix(part)}" if len(_suffix(part)) < 10 else start, part)


def _hashed(path: str, image_id: str) -> str:
    """The path with a hash before its suffix, which makes it this image's alone."""
    ending = _suffix(path)
    return f"{path.removesuffix(ending)}-{digest_of('file', image_id).hex()[:16]}{ending}"


def _suffix(path: str) -> str:
    """The last suffix as it is written."""
    return posixpath.splitext(path)[1]
