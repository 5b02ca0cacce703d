"""What was drawn for an image, as a few words under its picture: `colour_temperature 3190 K, flip`.

The words use the small character set of the built-in font of the contact sheets (no multiplication sign).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vtray.report.numbers import number_text, signed_text

MAX_VALUES = 3
MAX_NUMBERS = 4  # longer lists are curves and tables, not captions
UNITS = {"px": " px", "s": " s", "degrees": "°"}

# Parameters with a wording of their own, the most telling first; the others follow in the order of the record.
NUMBERS: dict[str, Callable[[float], str]] = {
    "kelvin": lambda value: f"{number_text(value)} K",
    "factor": lambda value: f"x{number_text(value)}",
    "stops": lambda value: f"{signed_text(value)} stops",
    "strength": lambda value: f"strength {number_text(value)}",
    "angle": lambda value: f"{signed_text(value)}°",
    "hue": lambda value: f"hue {signed_text(value)}",
    "shift": lambda value: signed_text(value),
    "brightness": lambda value: f"brightness x{number_text(value)}",
    "contrast": lambda value: f"contrast x{number_text(value)}",
    "saturation": lambda value: f"saturation x{number_text(value)}",
    "scale": lambda value: f"x{number_text(value)}",
}
SEQUENCES: dict[str, tuple[int, Callable[[Sequence[float]], str]]] = {
    "box": (4, lambda box: _box_words(box)),
    "corner": (2, lambda corner: f"at {_joined(corner)}"),
    "size": (2, lambda size: f"to {_times(size)}"),
    "translate_px": (2, lambda shift: f"by {','.join(signed_text(part) for part in shift)} px"),
}
TELLING = ("box", "corner", "size", *NUMBERS, "translate_px")
SILENT = ("op", "order")


def describe_all(records: Sequence[Mapping[str, Any]]) -> str:
    """The applied operators in their order, with commas; `unchanged` if there are none.

    Of several operators each tells its first value only, so that the line stays short.
    """
    max_values = 1 if len(records) > 1 else MAX_VALUES
    return ", ".join(describe(record, max_values=max_values) for record in records) or "unchanged"


def describe(record: Mapping[str, Any], *, max_values: int = MAX_VALUES) -> str:
    """One applied operator: its name and its most telling values; seeds of noise are left out.

    record: the operator's name under "op" and its drawn parameters, JSON values of any shape.
    """
    return f"{record['op']} {describe_values(record, max_values=max_values)}".rstrip()


def describe_values(record: Mapping[str, Any], *, max_values: int = MAX_VALUES) -> str:
    """`describe` without the operator's name, for places that show it already; empty where nothing was drawn."""
    values = _regrouped({key: value for key, value in record.items() if key not in SILENT and "seed" not in key})
    phrases = [_phrase(key, values[key]) for key in sorted(values, key=_rank)]
    return " ".join([phrase for phrase in phrases if phrase][:max_values])


def _regrouped(values: dict[str, Any]) -> dict[str, Any]:
    """Width and height as one value; the corner of a box as one of its own."""
    match values.get("box"):
        case [left, top, right, bottom] if (left, top) != (right, bottom):
            values["corner"] = [left, top]
    if "width" in values and "height" in values:
        values["size"] = [values.pop("width"), values.pop("height")]
    return values


def _rank(key: str) -> int:
    return TELLING.index(key) if key in TELLING else len(TELLING)


def _phrase(key: str, value: object) -> str:
    """One parameter in words; empty for what says nothing in a few of them."""
    if isinstance(value, bool):
        return key if value else ""
    if isinstance(value, str):
        return f"{key} {value}"
    if isinstance(value, int | float):
        return NUMBERS[key](value) if key in NUMBERS else _named(key, number_text(value))
    return _sequence_phrase(key, value) if isinstance(value, list | tuple) else ""


def _sequence_phrase(key: str, values: Sequence[object]) -> str:
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        length, words = SEQUENCES.get(key, (0, None))
        if words and len(numbers) == length:
            return words(numbers)
        return _named(key, _joined(numbers)) if 0 < len(numbers) <= MAX_NUMBERS else ""
    return f"{key} {len(values)}" if all(isinstance(value, Mapping) for value in values) else ""


def _named(key: str, text: str) -> str:
    """A parameter's name in front of its value and its unit behind: depth_px, 12 -> depth 12 px."""
    name, _, unit = key.rpartition("_")
    return f"{name} {text}{UNITS[unit]}" if name and unit in UNITS else f"{key} {text}"


def _box_words(box: Sequence[float]) -> str:
    """left, top, right, bottom -> `188x185`; `nowhere` for an empty box."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return "nowhere"
    return _times((right - left, bottom - top))


def _times(size: Sequence[float]) -> str:
    return "x".join(number_text(side) for side in size)


def _joined(values: Sequence[float]) -> str:
    return ",".join(number_text(value) for value in values)
