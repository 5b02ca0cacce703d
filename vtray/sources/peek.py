"""Image sizes of a sample of an input, from headers: little is read, and no pixel is decoded."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vtray.errors import StorageDenied, StorageMissing
from vtray.images.header import size_in_header
from vtray.seeding import digest_of
from vtray.sources.objects import REMOTE_THREADS, storage_for
from vtray.sources.read import read_unit
from vtray.sources.unit import ImageRef, Unit

HEADER_BYTES = 64 << 10  # too few for large profiles before the size, and for WebP and AVIF: they are read whole
MAX_ROW_GROUPS = 4  # no image of a Parquet file is had without those before it in its row group

Size = tuple[int, int]  # height, width


def sample_refs(refs: Iterable[ImageRef], number: int) -> list[ImageRef]:
    """At most `number` references spread over an input by a hash of their ids, always the same ones.

    Those of Parquet files come from a few row groups.
    """
    spread = sorted(refs, key=lambda ref: digest_of("sample", ref.image_id))
    if not spread or spread[0].row_group is None:
        return spread[:number]
    groups = list(dict.fromkeys((ref.uri, ref.row_group) for ref in spread))[:MAX_ROW_GROUPS]
    return [ref for ref in spread if (ref.uri, ref.row_group) in groups][:number]


def peek_sizes(refs: Sequence[ImageRef]) -> dict[str, Size | None]:
    """image_id -> height and width in pixels of the upright image; None where it cannot be told.

    Raises: StorageError for faults that may pass.
    """
    rows = sorted((ref for ref in refs if ref.row_group is not None), key=lambda ref: ref.image_id)
    others = [ref for ref in refs if ref.row_group is None]
    with ThreadPoolExecutor(REMOTE_THREADS) as pool:
        found = dict(zip((ref.image_id for ref in others), pool.map(_peek, others), strict=True))
    for image in read_unit(Unit(unit_id="sample", format="parquet", refs=tuple(rows))):
        found[image.ref.image_id] = size_in_header(image.encoded or b"")
    return found


def _peek(ref: ImageRef) -> Size | None:
    """From the first bytes of the image, or all of them if those do not tell."""
    if ref.fault:
        return None
    storage, key = storage_for(ref.uri)
    start = ref.offset or 0
    end = None if ref.offset is None else start + ref.num_bytes
    try:
        if ref.num_bytes > HEADER_BYTES:
            size = size_in_header(storage.read(key, start=start, end=start + HEADER_BYTES))
            if size is not None:
                return size
        return size_in_header(storage.read(key, start=ref.offset, end=end))
    except (StorageMissing, StorageDenied):
        return None
