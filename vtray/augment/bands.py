"""Bands of rows: operators that need floats work on one band at a time, so a large image costs little memory."""

from collections.abc import Iterator

# 768 kB as float32 RGB: stays in the processor's cache. Sensor noise is drawn band by band, so another number
# gives other noise on images larger than this.
BAND_PIXELS = 1 << 16


def row_bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that cover the image from top to bottom, each about BAND_PIXELS pixels or one row."""
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))
