"""What is written: rows with their provenance as Parquet, webdataset tar or folders, the same bytes every time."""

from vtray.shards.rows import Box, QuarantineRow, Row
from vtray.shards.shard import (
    OutputFormat,
    ShardFormat,
    encode_quarantine,
    encode_shard,
    folder_path,
    read_folder_index,
    read_rows,
    safe_name,
)

__all__ = [
    "Box",
    "OutputFormat",
    "QuarantineRow",
    "Row",
    "ShardFormat",
    "encode_quarantine",
    "encode_shard",
    "folder_path",
    "read_folder_index",
    "read_rows",
    "safe_name",
]
