"""What a classifier says of images, one row each, as a Parquet file."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

TOP = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One image and its classes, the most probable first.

    probability: of class_name, after the model's temperature. top5: (class name, probability), fewer where the
    model has fewer classes. true_class and logits (before the temperature): only where the run evaluates.
    source_sha256: of the encoded image.
    """

    image_id: str
    class_name: str
    probability: float
    top5: tuple[tuple[str, float], ...]
    source_sha256: str
    true_class: str | None = None
    logits: tuple[float, ...] | None = None


EVALUATED = ("true_class", "logits")


def encode_predictions(rows: Iterable[Prediction], *, evaluated: bool) -> bytes:
    """Parquet, one row per image sorted by image_id; the same bytes for the same rows in any order.

    evaluated: with the columns true_class and logits.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(evaluated)
    ordered = sorted(rows, key=attrgetter("image_id"))
    columns = {name: [_plain(row, name) for row in ordered] for name in schema.names}
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def read_predictions(content: bytes) -> list[Prediction]:
    """The rows of an `encode_predictions` file, sorted by image_id."""
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content), use_threads=False)
    return [_prediction(row) for row in table.to_pylist()]


def _schema(evaluated: bool) -> Any:
    import pyarrow as pa

    ranked = pa.list_(pa.struct([("class_name", pa.string()), ("probability", pa.float32())]))
    kinds = {
        "image_id": pa.string(),
        "class_name": pa.string(),
        "probability": pa.float32(),
        "top5": ranked,
        "true_class": pa.string(),
        "logits": pa.list_(pa.float32()),
        "source_sha256": pa.string(),
    }
    kept = {name: kind for name, kind in kinds.items() if evaluated or name not in EVALUATED}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kept.items()])


def _plain(row: Prediction, name: str) -> Any:
    if name == "top5":
        return [{"class_name": class_name, "probability": share} for class_name, share in row.top5]
    return getattr(row, name)


def _prediction(row: dict[str, Any]) -> Prediction:
    logits = row.get("logits")
    values = row | {
        "top5": tuple((entry["class_name"], entry["probability"]) for entry in row["top5"]),
        "logits": None if logits is None else tuple(logits),
    }
    return Prediction(**values)
