"""A nested config as rows of a page: dotted names and their values."""

from collections.abc import Iterator, Mapping
from typing import Any


def dotted(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested names joined by dots, lists by commas."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and not any(isinstance(part, Mapping) for part in value):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)
