"""Labels of cans and bottles: half a turn each, so a label shows its brand twice, as on real packs.

All brands are invented. Some share one design in two colours on purpose: telling them apart is the hard part.
"""

import math

from vtray.demo.panel import Art, Lettering, Panel, Point


def cola(*, ground: str, deep: str, ribbon: str, kind: str) -> Art:
    """KIVO: a ribbon that swings around the can."""
    panel = Panel(10.37, 10.2, colour=ground)
    panel.gradient(ground, deep)
    panel.wave(7.0, thickness=2.3, swing=0.85, fill=ribbon)
    panel.wave(7.55, thickness=1.2, swing=0.95, fill="#d7d9de")
    for i in range(16):
        panel.disc((0.4 + 0.65 * i, 9.2 + 0.45 * math.sin(2.4 * i)), 0.07 + 0.05 * (i % 3), fill=ribbon)
    brand = Lettering(size=1.95, weight=0.13, slant=0.24, outline=deep, outline_width=0.1, tracking=0.16)
    panel.text("Kivo", (5.2, 3.5), brand)
    panel.text(kind, (5.2, 1.15), Lettering(size=0.55, weight=0.05, tracking=0.14))
    panel.text("330 ml", (5.2, 9.55), Lettering(size=0.3, weight=0.02))
    panel.seam_print(1.3, lines=10, fill="#e8e8ea")
    return panel.art()


def soda(*, ground: str, deep: str, flesh: str, kind: str) -> Art:
    """LUMO: slices of fruit under a round brand."""
    panel = Panel(10.37, 10.2, colour=ground)
    panel.gradient(ground, deep)
    for center, radius in (
        ((2.9, 8.3), 2.0),
        ((7.4, 8.5), 2.1),
        ((5.2, 6.6), 1.35),
        ((0.0, 6.2), 1.2),
        ((10.37, 6.2), 1.2),
    ):
        _fruit_slice(panel, center, radius=radius, colours=(deep, "#fff7df", flesh))
    for i in range(14):
        panel.disc((0.5 + 0.72 * i, 4.9 + 0.5 * math.sin(3.1 * i)), 0.08 + 0.05 * (i % 2), fill="#fffbe8")
    brand = Lettering(size=1.6, weight=0.17, outline="#1d5a34", outline_width=0.13, tracking=0.24)
    panel.text("lumo", (5.2, 2.75), brand)
    panel.text(kind, (5.2, 1.0), Lettering(size=0.58, fill="#1d5a34", weight=0.06, tracking=0.16))
    panel.text("sparkling soda", (5.2, 4.35), Lettering(size=0.36, fill="#1d5a34", weight=0.025, tracking=0.05))
    panel.seam_print(1.0, lines=9, fill="#2f5a34")
    return panel.art()


def _fruit_slice(panel: Panel, center: Point, *, radius: float, colours: tuple[str, str, str]) -> None:
    rind, pith, flesh = colours
    panel.disc(center, radius, fill=rind)
    panel.disc(center, radius * 0.93, fill=pith)
    for k in range(9):
        start = 2 * math.pi * k / 9 + 0.2
        angles = [start + 0.06 + 0.57 * s / 8 for s in range(9)]
        rim = [_polar(center, radius * 0.84, a) for a in angles]
        panel.polygon([_polar(center, radius * 0.12, start + 0.35), *rim], flesh)


def _polar(center: Point, radius: float, angle: float) -> Point:
    return center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)


def energy() -> Art:
    """BOLTA: a lightning bolt on black, for a slim can."""
    panel = Panel(8.33, 12.2, colour="#101216")
    panel.gradient("#23262d", "#08090b")
    for i in range(-4, 10):
        left = i * 1.19
        panel.polygon([(left, 12.2), (left + 0.45, 12.2), (left + 2.9, 8.9), (left + 2.6, 8.9)], "#20262a")
    bolt = [(4.7, 0.5), (2.3, 6.4), (3.9, 6.4), (3.1, 11.0), (6.1, 4.9), (4.5, 4.9), (5.9, 0.5)]
    panel.polygon([(x + 0.13, y + 0.13) for x, y in bolt], "#2b5c0d")
    panel.polygon(bolt, "#8df224")
    brand = Lettering(size=1.0, weight=0.12, slant=0.28, outline="#0a0b0d", outline_width=0.16, tracking=0.16)
    panel.text("BOLTA", (4.15, 5.7), brand)
    drink = Lettering(
        size=0.58, fill="#c8ff6e", weight=0.05, slant=0.28, outline="#0a0b0d", outline_width=0.12, tracking=0.12
    )
    panel.text("ENERGY", (4.3, 8.4), drink)
    panel.text("250 ml", (4.15, 11.65), Lettering(size=0.3, fill="#8df224", weight=0.02))
    panel.seam_print(1.2, lines=12, fill="#7d858c")
    return panel.art()


def coffee() -> Art:
    """NOKA: cream and brown, with a bean."""
    panel = Panel(8.33, 9.6, colour="#efe2cb")
    panel.hill(5.6, swing=-0.45, fill="#b8793f")
    panel.hill(5.85, swing=-0.45, fill="#4a2a17")
    panel.band(0.0, 0.5, fill="#b8793f")
    panel.disc((4.16, 6.5), 2.0, fill="#efe2cb")
    panel.disc((4.16, 6.5), (1.0, 1.42), fill="#6b3d20")
    seam = [(4.16 + 0.26 * math.sin(t * math.pi), 6.5 + 1.35 * t) for t in (i / 10 for i in range(-10, 11))]
    panel.line(seam, width=0.2, fill="#efe2cb")
    panel.text("NOKA", (4.16, 2.15), Lettering(size=1.05, fill="#4a2a17", weight=0.11, tracking=0.26))
    panel.text("COLD BREW COFFEE", (4.16, 3.55), Lettering(size=0.34, fill="#8a5228", weight=0.03, tracking=0.05))
    panel.text("200 ml", (4.16, 9.1), Lettering(size=0.28, fill="#efe2cb", weight=0.02))
    panel.seam_print(0.9, lines=10, fill="#a08a6c")
    return panel.art()


def water(*, ground: str, deep: str, kind: str, bubbles: bool) -> Art:
    """ORIVA: mountains above a lake."""
    panel = Panel(10.05, 6.0, colour=ground)
    panel.gradient(ground, deep)
    for foot, top in ((1.6, 2.2), (3.6, 1.1), (6.2, 1.6), (8.6, 2.3)):
        panel.polygon([(foot - 2.1, 5.0), (foot, top + 1.1), (foot + 2.1, 5.0)], deep)
        panel.polygon(
            [(foot - 0.62, top + 1.75), (foot, top + 1.1), (foot + 0.62, top + 1.75), (foot, top + 2.0)], "#fff"
        )
    panel.band(4.9, 6.0, fill="#f4f8fb")
    panel.band(4.75, 4.9, fill="#cfd6da")
    if bubbles:
        for i in range(22):
            panel.disc((0.3 + 0.45 * i, 3.9 + 0.75 * math.sin(2.7 * i)), 0.07 + 0.06 * (i % 3), fill="#f2fff6")
    brand = Lettering(size=1.3, weight=0.11, outline=deep, outline_width=0.12, tracking=0.24)
    panel.text("oriva", (5.0, 1.5), brand)
    panel.text(kind, (5.0, 5.4), Lettering(size=0.5, fill=deep, weight=0.045, tracking=0.07))
    panel.seam_print(0.4, lines=8, fill="#dfe9ee")
    return panel.art()


def iced_tea() -> Art:
    """TEALO: leaves and a peach."""
    panel = Panel(10.05, 7.0, colour="#fbf3dc")
    panel.hill(5.75, swing=-0.35, fill="#d9571e")
    panel.band(0.0, 0.45, fill="#2f7a3b")
    panel.disc((5.0, 4.3), 1.45, fill="#f08a3c")
    panel.disc((4.55, 3.95), 0.8, fill="#f7b06a")
    panel.line([(5.25, 2.95), (5.0, 4.0), (5.05, 5.1)], width=0.1, fill="#cf6420")
    for side in (-1, 1):
        leaf = [(5.0, 3.2), (5.0 + side * 1.0, 2.45), (5.0 + side * 2.6, 2.9), (5.0 + side * 1.5, 3.6)]
        panel.polygon(leaf, "#3f9a4a")
        panel.line([leaf[0], leaf[2]], width=0.06, fill="#2a6b33")
    panel.text("tealo", (5.0, 1.55), Lettering(size=1.25, fill="#2f7a3b", weight=0.1, tracking=0.22))
    panel.text("PEACH ICED TEA", (5.0, 6.35), Lettering(size=0.44, weight=0.04, tracking=0.07))
    panel.seam_print(0.8, lines=9, fill="#9a8f70")
    return panel.art()
