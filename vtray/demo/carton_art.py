"""The printed faces of cartons: front, flank, roof and folds of each design. All brands are invented."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from vtray.demo.panel import Art, Lettering, Panel, Point


@dataclass(frozen=True, kw_only=True)
class Meadow:
    """The HALMA design in one set of colours; `emblem` draws the picture in the white disc."""

    sky: str
    hill: str
    far_hill: str
    words: tuple[str, str]  # product, small line
    emblem: Callable[[Panel, Point], None]


def meadow_front(design: Meadow) -> Art:
    """Brand, product and emblem above the hills, 7 x 14.5 cm."""
    panel = Panel(7.0, 14.5, colour=design.sky)
    _hills(panel, design)
    panel.disc((3.5, 9.4), 2.05, fill="#ffffff")
    design.emblem(panel, (3.5, 9.4))
    brand = Lettering(size=0.95, fill=design.hill, weight=0.1, tracking=0.18)
    panel.text("HALMA", (3.5, 1.7), brand)
    panel.polygon([(0.7, 2.75), (6.3, 2.75), (6.3, 2.87), (0.7, 2.87)], design.hill)
    panel.text(design.words[0], (3.5, 4.6), Lettering(size=1.45, fill="#22304a", weight=0.13, tracking=0.22))
    panel.text(design.words[1], (3.5, 6.3), Lettering(size=0.36, fill="#22304a", weight=0.03, tracking=0.03))
    panel.text("1 L", (3.5, 13.3), Lettering(size=0.6, weight=0.05, tracking=0.05))
    return panel.art()


def meadow_flank(design: Meadow) -> Art:
    """The side of the same carton: the hill goes on, with a table of contents."""
    panel = Panel(7.0, 14.5, colour=design.sky)
    _hills(panel, design)
    panel.text(design.words[0], (3.5, 1.5), Lettering(size=0.75, fill="#22304a", weight=0.07, tracking=0.12))
    panel.polygon([(0.8, 2.6), (6.2, 2.6), (6.2, 7.6), (0.8, 7.6)], "#ffffff")
    for i in range(8):
        panel.line([(1.1, 3.1 + 0.58 * i), (4.2 - 0.4 * (i % 3), 3.1 + 0.58 * i)], width=0.13, fill="#8b95a5")
        panel.line([(5.1, 3.1 + 0.58 * i), (5.9, 3.1 + 0.58 * i)], width=0.13, fill="#8b95a5")
    panel.small_print((2.55, 8.9), lines=3, fill=design.hill)
    return panel.art()


def meadow_roof(design: Meadow) -> Art:
    """The slope with the screw cap."""
    panel = Panel(7.0, 4.5, colour=design.sky)
    panel.band(0.0, 0.5, fill=design.hill)
    return panel.art()


def plain(*, fill: str) -> Art:
    """A fold without print, darker towards its lower edge."""
    panel = Panel(7.0, 1.5, colour=fill)
    panel.band(1.25, 1.5, fill="#c9ced6")
    return panel.art()


def _hills(panel: Panel, design: Meadow) -> None:
    panel.hill(10.2, swing=0.9, fill=design.far_hill)
    panel.hill(11.2, swing=-0.8, fill=design.hill)


def cow(panel: Panel, center: Point) -> None:
    """A cow's head."""
    x, y = center
    panel.disc((x - 1.05, y - 0.55), (0.5, 0.26), fill="#2b2b2e")
    panel.disc((x + 1.05, y - 0.55), (0.5, 0.26), fill="#f0b9b4")
    panel.disc((x, y), (0.92, 1.3), fill="#2b2b2e")
    panel.disc((x + 0.05, y), (0.38, 1.28), fill="#ffffff")
    panel.disc((x, y + 0.85), (0.85, 0.58), fill="#f0b9b4")
    for side in (-1, 1):
        panel.disc((x + side * 0.32, y + 0.85), (0.1, 0.16), fill="#a05c58")
        panel.disc((x + side * 0.45, y - 0.3), 0.17, fill="#ffffff")
        panel.disc((x + side * 0.45, y - 0.3), 0.1, fill="#111111")


def oat(panel: Panel, center: Point) -> None:
    """Three ears of oat."""
    x, y = center
    for lean in (-0.9, 0.0, 0.9):
        tip = (x + lean, y - 1.35)
        panel.line([(x, y + 1.6), tip], width=0.1, fill="#8a6a22")
        for i in range(5):
            share = i / 5
            at = (tip[0] + (x - tip[0]) * share * 0.55, tip[1] + 0.36 * i)
            for side in (-1, 1):
                panel.disc((at[0] + side * 0.18, at[1]), (0.13, 0.24), fill="#d9a53a")


def juice_front() -> Art:
    """PAPO: a big apple, 6.6 x 11.5 cm."""
    panel = Panel(6.6, 11.5, colour="#bfe36a")
    panel.gradient("#d8f08a", "#7fbf3a")
    for i in range(12):
        angle = 2 * math.pi * i / 12
        ray = [(3.3 + 9 * math.cos(angle + d), 6.6 + 9 * math.sin(angle + d)) for d in (-0.09, 0.09)]
        panel.polygon([(3.3, 6.6), *ray], "#e4f5ab")
    _apple(panel, (3.3, 6.9), size=2.0)
    brand = Lettering(size=1.1, weight=0.15, outline="#b3151c", outline_width=0.14, tracking=0.3)
    panel.text("papo", (3.2, 1.9), brand)
    panel.band(9.9, 11.5, fill="#b3151c")
    panel.text("APPLE JUICE", (3.3, 10.55), Lettering(size=0.46, weight=0.045, tracking=0.08))
    panel.text("200 ml", (3.3, 11.15), Lettering(size=0.24, weight=0.015))
    return panel.art()


def juice_flank() -> Art:
    """The narrow side: small apples and small print."""
    panel = Panel(4.4, 11.5, colour="#7fbf3a")
    panel.gradient("#b9dd66", "#6fae30")
    panel.text(
        "papo", (2.2, 1.4), Lettering(size=0.62, weight=0.08, outline="#b3151c", outline_width=0.08, tracking=0.16)
    )
    _apple(panel, (2.2, 4.0), size=0.95)
    panel.small_print((1.25, 6.0), lines=9, fill="#2f5a1c")
    panel.band(9.9, 11.5, fill="#b3151c")
    return panel.art()


def juice_top() -> Art:
    """The top with its folded flaps and the foil that the straw goes through."""
    panel = Panel(6.6, 4.4, colour="#c3e382")
    for start, end in (
        ((0, 0), (1.3, 2.2)),
        ((0, 4.4), (1.3, 2.2)),
        ((6.6, 0), (5.3, 2.2)),
        ((6.6, 4.4), (5.3, 2.2)),
    ):
        panel.line([start, end], width=0.07, fill="#8fb352")
    panel.line([(1.3, 2.2), (5.3, 2.2)], width=0.1, fill="#8fb352")
    panel.disc((5.2, 2.2), 0.55, fill="#d5d8dc")
    return panel.art()


def _apple(panel: Panel, center: Point, *, size: float) -> None:
    x, y = center
    for side in (-1, 1):
        panel.disc((x + side * 0.42 * size, y), (0.72 * size, 0.95 * size), fill="#c8202a")
    panel.disc((x - 0.55 * size, y - 0.3 * size), (0.22 * size, 0.34 * size), fill="#ec7a78")
    panel.line([(x, y - 0.7 * size), (x + 0.14 * size, y - 1.25 * size)], width=0.11 * size, fill="#5b3a1e")
    leaf = [(0.1, -1.0), (0.5, -1.4), (1.1, -1.35), (0.7, -0.95)]
    panel.polygon([(x + dx * size, y + dy * size) for dx, dy in leaf], "#2f8a35")
