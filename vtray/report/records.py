"""One record per stylized image: what was done to it, and its losses before and after, as a Parquet file.

Losses are those of the 8-bit image in the job's own weights, so two runs compare only with equal settings.
"""

import io
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]

TEXTS = ("image_id", "file", "engine")
COUNTS = ("width", "height", "working_width", "working_height", "steps")  # pixels, and steps of the optimizer
TERMS = ("content", "style", "tv", "total")
LOSSES = tuple(f"{term}_{when}" for term in TERMS for when in ("before", "after"))
FIELDS = (*TEXTS, *COUNTS, "seconds", *LOSSES, "warnings")


def encode_records(records: Iterable[Record]) -> bytes:
    """Parquet, one row per image sorted by image_id; the same bytes for the same records in any order.

    A record has exactly `FIELDS`: TEXTS, COUNTS, `seconds` of a worker, LOSSES (float) and a list of `warnings`.
    Raises: ValueError for a record that has other fields.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kinds = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(COUNTS, pa.int32())
    kinds |= dict.fromkeys(("seconds", *LOSSES), pa.float64()) | {"warnings": pa.list_(pa.string())}
    ordered = sorted(map(_checked, records), key=lambda record: str(record["image_id"]))
    arrays = {name: pa.array([record[name] for record in ordered], kind) for name, kind in kinds.items()}
    sink = io.BytesIO()
    parquet.write_table(pa.table(arrays), sink, compression="zstd")
    return sink.getvalue()


def read_records(content: bytes) -> list[dict[str, Any]]:
    """The records of an `encode_records` file, sorted by image_id."""
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(content), use_threads=False).to_pylist()
    return rows


def relative_loss(record: Record, term: str = "total") -> float:
    """What is left of one of TERMS: its value after, over that before; 1 for zero after and before."""
    before, after = float(record[f"{term}_before"]), float(record[f"{term}_after"])
    if before == after:
        return 1.0
    return after / before if before else math.inf


def kinds_of_warnings(record: Record) -> list[str]:
    """The kinds of its warnings, sorted, each once."""
    return sorted(set(map(kind_of_warning, record["warnings"])))


def kind_of_warning(text: str) -> str:
    """A warning without what is the image's own: the text before the first colon, with N for every number."""
    return re.sub(r"\d+", "N", text.partition(":")[0])


def _checked(record: Record) -> Record:
    wrong = sorted(record.keys() ^ set(FIELDS))
    if wrong:
        missing = [name for name in wrong if name in FIELDS]
        raise ValueError(
            f"record of {record.get('image_id', 'no image_id')}: "
            f"{'missing' if missing else 'unknown'} {', '.join(missing or wrong)}; fields are {', '.join(FIELDS)}"
        )
    return record
