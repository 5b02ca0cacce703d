import pytest

from vtray.report.lettering import drawable, elide, width_of, wrap

LONG = "train/Alpro-Blueberry-Soyghurt/Alpro-Blueberry-Soyghurt_001.jpg"


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("can_01.jpg +12° …", "can_01.jpg +12° …"),
        ("Äpfel, crème brûlée", "Apfel, creme brulee"),
        ("cre\u0300me", "creme"),
        ("2 × 3 → 6", "2 x 3 -> 6"),
        ("Straße, Łódź, øl", "Strasse, Lodz, ol"),
        ("牛乳", "\\u725b\\u4e73"),
        ("❤\ufe0f", "\\u2764"),
        ("a\nb\tc", "a b c"),
        ("\x07", "\\x07"),
        ("", ""),
    ],
)
def test_text_is_put_in_the_letters_of_the_font(text, drawn):
    assert drawable(text) == drawn


@pytest.mark.parametrize("width_px", [20, 60, 120, 300])
def test_long_text_is_cut_in_the_middle_and_fills_the_width(width_px):
    short = elide(LONG, size_px=12, width_px=width_px)
    head, _, tail = short.partition("…")
    assert width_of(short, size_px=12) <= width_px
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    assert abs(len(head) - len(tail)) <= 1
    longer = LONG[: len(head) + 1] + "…" + LONG[len(LONG) - len(tail) - 1 :]
    assert width_of(longer, size_px=12) > width_px


def test_text_that_fits_stays_as_it_is():
    assert elide("short", size_px=12, width_px=100) == "short"
    assert elide("", size_px=12, width_px=0) == ""
    assert elide("no room at all", size_px=12, width_px=0) == "…"


def test_captions_are_wrapped_at_words():
    lines = wrap("random_resized_crop 188x185 at 12,5, flip", size_px=12, width_px=160, max_lines=2)
    assert lines == ["random_resized_crop", "188x185 at 12,5, flip"]


def test_the_end_of_a_long_caption_is_cut():
    lines = wrap("one two three four five six seven eight nine ten", size_px=12, width_px=80, max_lines=2)
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert all(width_of(line, size_px=12) <= 80 for line in lines)


def test_a_word_wider_than_the_line_is_cut_in_the_middle():
    first, second = wrap("x" * 50 + " end", size_px=12, width_px=80, max_lines=2)
    assert first.count("…") == 1
    assert first.endswith("x")
    assert second == "end"
    assert wrap("", size_px=12, width_px=80, max_lines=2) == []
