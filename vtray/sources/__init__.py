"""What can be read: image folders, webdataset tar, Parquet and lists, cut into units of image references.

The driver opens a source once and cuts it; workers read units and never list.
"""

from vtray.sources.read import SourceImage, read_unit
from vtray.sources.source import FORMATS, LAYOUTS, Source, open_source
from vtray.sources.unit import ImageRef, Unit, decode_units, encode_units

__all__ = [
    "FORMATS",
    "LAYOUTS",
    "ImageRef",
    "Source",
    "SourceImage",
    "Unit",
    "decode_units",
    "encode_units",
    "open_source",
    "read_unit",
]
