"""Numbers as people read them: rounded to what matters, with their unit."""

import math

KILO = 1000
BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def number_text(value: float) -> str:
    """Whole numbers as they are, others to three significant digits, below 1 to two: 3190, 12.3, 0.031."""
    if isinstance(value, int) or value == 0 or not math.isfinite(value):
        return f"{value:g}" if isinstance(value, float) else str(value)
    significant = 3 if abs(value) >= 1 else 2
    decimals = significant - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, decimals):.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed_text(value: float) -> str:
    """Like `number_text`, with the sign always shown: +0.03."""
    text = number_text(value)
    return text if text.startswith("-") else f"+{text}"


def count_text(value: int) -> str:
    """A whole number with its thousands apart: 12,345."""
    return f"{value:,}"


def bytes_text(value: int) -> str:
    """Bytes in decimal units: 12345678 -> 12.3 MB."""
    power = 0
    # 999,950 would be rounded to 1000.0 kB: it belongs to the next unit
    while power < len(BYTE_UNITS) - 1 and round(value / KILO**power, 1) >= KILO:
        power += 1
    return f"{value / KILO**power:.1f} {BYTE_UNITS[power]}" if power else f"{value} {BYTE_UNITS[0]}"


def seconds_text(value: float) -> str:
    """A duration in the two units that matter: 0.42 s, 75 -> 1 min 15 s, 7500 -> 2 h 5 min."""
    if value < 59.5:
        return f"{number_text(float(value))} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes} min"


def share_text(part: float, whole: float) -> str:
    """A part of a whole in percent; what is there but small is `<1 %`, never 0."""
    percent = 100 * part / whole if whole else 0
    return "<1 %" if 0 < percent < 0.5 else f"{percent:.0f} %"
