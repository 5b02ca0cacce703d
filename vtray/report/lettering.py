"""Text for pictures: the letters of Pillow's built-in font, fitted into a width.

The built-in font is the same on every machine, so sheets have the same bytes; it has ASCII and a few signs only.
"""

import unicodedata
from functools import cache

from PIL import ImageFont

ELLIPSIS = "…"
UNSEEN = ("Mn", "Cf")  # accents on the letter before, and joiners
SPELT_OUT = {
    "×": "x",
    "→": "->",
    "−": "-",
    "–": "-",
    "—": "-",
    "ß": "ss",
    "æ": "ae",
    "Æ": "AE",
    "ø": "o",
    "Ø": "O",
}
SPELT_OUT |= {"ł": "l", "Ł": "L", "µ": "u", "μ": "u"}


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """The built-in font at a height in pixels."""
    found = ImageFont.load_default(size_px)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


def drawable(text: str) -> str:
    """The text in the letters that the font has: accents dropped, the rest as code points (`\\u725b`)."""
    return "".join(_drawable_letter(letter) for letter in text)


@cache
def _drawable_letter(letter: str) -> str:
    if letter.isspace():
        return " "
    if _in_font(letter):
        return letter
    if letter in SPELT_OUT:
        return SPELT_OUT[letter]
    parts = [part for part in unicodedata.normalize("NFKD", letter) if unicodedata.category(part) not in UNSEEN]
    if all(_in_font(part) for part in parts):
        return "".join(parts)
    return letter.encode("unicode_escape").decode()


def _in_font(letter: str) -> bool:
    # a control character has no shape, and U+FFFF that of the box for letters that are not there
    return letter.isprintable() and _shape(letter) != _shape("\uffff")


def _shape(letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font(16).getmask(letter)
    return mask.size, bytes(mask)


def width_of(text: str, *, size_px: int) -> int:
    """Pixels that the drawable text takes, rounded up."""
    return -int(-font(size_px).getlength(text) // 1)


def elide(text: str, *, size_px: int, width_px: int, tail: float = 0.5) -> str:
    """The drawable text, with `…` for what does not fit.

    tail: share of the kept letters that are the last ones; 0.5 cuts in the middle, 0 at the end.
    """
    text = drawable(text)
    if width_of(text, size_px=size_px) <= width_px:
        return text
    fewest, most = 0, len(text) - 1
    while fewest < most:  # the longest that fits, by halving
        kept = (fewest + most + 1) // 2
        if width_of(_cut(text, kept, tail), size_px=size_px) <= width_px:
            fewest = kept
        else:
            most = kept - 1
    return _cut(text, fewest, tail)


def _cut(text: str, kept: int, tail: float) -> str:
    last = int(kept * tail)
    return text[: kept - last].rstrip() + ELLIPSIS + text[len(text) - last :].lstrip()


def wrap(text: str, *, size_px: int, width_px: int, max_lines: int) -> list[str]:
    """At most `max_lines` lines of whole words; words wider than a line are elided, and so is the end."""
    words, lines = drawable(text).split(), list[str]()
    while words and len(lines) < max_lines - 1:
        num = _num_fitting(words, size_px, width_px)
        lines.append(elide(" ".join(words[:num]), size_px=size_px, width_px=width_px))
        words = words[num:]
    if words:
        tail = 0.5 if len(words) == 1 else 0
        lines.append(elide(" ".join(words), size_px=size_px, width_px=width_px, tail=tail))
    return lines


def _num_fitting(words: list[str], size_px: int, width_px: int) -> int:
    num = 1
    while num < len(words) and width_of(" ".join(words[: num + 1]), size_px=size_px) <= width_px:
        num += 1
    return num
