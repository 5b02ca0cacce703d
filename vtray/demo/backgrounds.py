"""Where a product stands: on a shelf of the machine, in its coil, behind its glass, in a steel tray, on a desk."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from vtray.demo import materials
from vtray.demo.cutout import Cutout, Pose
from vtray.demo.fittings import WIRE_STEPS, draw_price_rail, draw_wire, spiral
from vtray.demo.light import Light, Pixels, Softbox, softened
from vtray.demo.products import CLASS_NAMES, product

_HORIZON = 0.66  # where the floor begins, share of the height


@dataclass(frozen=True, kw_only=True, eq=False)
class Backdrop:
    """A place to stand, linear light (H, W, 3).

    `behind` lies behind the product; `veil` in front of it, as the light it adds and the share it lets through.
    `gloss` is how much of the product the floor mirrors, 0..1, and `haze` how blurred, in shares of the size.
    """

    behind: Pixels
    veil: tuple[Pixels, Pixels] | None = None
    gloss: float = 0.0
    haze: float = 0.01


def shelf(rng: np.random.Generator, size_px: int) -> Backdrop:
    """A shelf of the machine with its neighbours out of focus and a price tag."""
    behind = _machine(rng, size_px)
    for side in (-1, 1):
        name = CLASS_NAMES[int(rng.integers(len(CLASS_NAMES)))]
        foot = (size_px * (0.5 + side * rng.uniform(0.33, 0.43)), size_px * rng.uniform(0.76, 0.79))
        neighbour = _out_of_focus(name, size_px).placed(size_px, foot)
        dimmed = neighbour.light * np.float32(rng.uniform(0.4, 0.75))
        behind = np.asarray(dimmed + neighbour.clear * behind, np.float32)
    draw_price_rail(behind, rng)
    return Backdrop(behind=behind, gloss=0.06, haze=0.02)


def coil(rng: np.random.Generator, size_px: int) -> Backdrop:
    """Inside the steel spiral that pushes products forward: its first turn passes in front of the product."""
    behind = _machine(rng, size_px)
    radius = rng.uniform(0.31, 0.36)
    wire = spiral(radius, turns=4.75, pitch=rng.uniform(0.16, 0.26))
    wire = wire * np.array([rng.choice([-1.0, 1.0]), 1, 1], np.float32)
    middle = np.array([0.5 + rng.uniform(-0.03, 0.03), 0.86 - radius], np.float32)
    first_turn = len(wire) - WIRE_STEPS + 4
    draw_wire(behind, wire[: first_turn + 1], middle=middle)
    front, clear = np.zeros_like(behind), np.ones_like(behind)
    draw_wire(front, wire[first_turn:], middle=middle, clear=clear)
    draw_price_rail(behind, rng)
    return Backdrop(behind=behind, veil=(front, clear), gloss=0.05, haze=0.02)


def glass(rng: np.random.Generator, size_px: int) -> Backdrop:
    """The shelf behind the front pane, with streaks of light on the pane."""
    stage = shelf(rng, size_px)
    streaks = np.zeros((size_px, size_px), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        left, width, lean = rng.uniform(-0.3, 1.0), rng.uniform(0.03, 0.16), rng.uniform(0.2, 0.5)
        corners = [(left + lean, 0), (left + lean + width, 0), (left + width, 1), (left, 1)]
        points = np.array(corners, np.float32) * size_px
        cv2.fillPoly(streaks, [points.astype(np.int32)], int(rng.uniform(25, 70)), cv2.LINE_AA)
    soft = softened(streaks.astype(np.float32), size_px / 90)[..., None] / 255
    reflected = np.asarray(soft * np.array([0.85, 0.95, 1.0], np.float32) + 0.012, np.float32)
    clear = np.full_like(stage.behind, 0.92)
    return Backdrop(behind=stage.behind, veil=(reflected, clear), gloss=stage.gloss, haze=stage.haze)


def metal(rng: np.random.Generator, size_px: int) -> Backdrop:
    """The brushed steel tray that products drop into."""
    horizon = int(_HORIZON * size_px)
    wall = materials.steel(rng, (horizon, size_px)) * np.float32(rng.uniform(0.5, 0.9))
    floor = materials.table_top(materials.steel(rng, (size_px, size_px)), (size_px - horizon, size_px), spread=1.4)
    return Backdrop(behind=_joined(wall, floor), gloss=rng.uniform(0.12, 0.22), haze=0.018)


def wood(rng: np.random.Generator, size_px: int) -> Backdrop:
    """A matte wooden desk in an office."""
    tone = str(rng.choice(["#b98a5a", "#9a6b3f", "#c9a679", "#7c5636"]))
    wall_tone = str(rng.choice(["#a9b4bd", "#b9b2a6", "#8c9a94", "#cfd2d4"]))
    return Backdrop(behind=_desk(rng, size_px, tones=(tone, wall_tone)), gloss=0.05, haze=0.02)


def polished_desk(rng: np.random.Generator, size_px: int) -> Backdrop:
    """A desk with a mirror-like finish: dark wood, lacquer or glass."""
    tone = str(rng.choice(["#6a4429", "#4a2c1a", "#2b2522", "#8a6a4c"]))
    wall_tone = str(rng.choice(["#8f8271", "#6f6a66", "#a3937c", "#7d8791", "#5c4a45"]))
    behind = _desk(rng, size_px, tones=(tone, wall_tone))
    return Backdrop(behind=behind, gloss=rng.uniform(0.4, 0.65), haze=rng.uniform(0.004, 0.01))


STAGES: dict[str, Callable[[np.random.Generator, int], Backdrop]] = {
    "shelf": shelf,
    "coil": coil,
    "glass": glass,
    "metal": metal,
    "wood": wood,
    "polished_desk": polished_desk,
}


def _desk(rng: np.random.Generator, size_px: int, *, tones: tuple[str, str]) -> Pixels:
    horizon = int(rng.uniform(0.56, 0.68) * size_px)
    wall = materials.room(rng, (horizon, size_px), tone=tones[1])
    boards = materials.wood(rng, (size_px, size_px), tone=tones[0])
    return _joined(wall, materials.table_top(boards, (size_px - horizon, size_px), spread=1.8))


def _machine(rng: np.random.Generator, size_px: int) -> Pixels:
    """The empty compartment: painted walls, a light strip above, a grey floor."""
    horizon = int(_HORIZON * size_px)
    tone = str(rng.choice(["#4a5560", "#3c434d", "#5c6468", "#353b48"]))
    wall = materials.painted(rng, (horizon, size_px), tone=tone)
    strip = np.exp(-np.linspace(0, 4, horizon, dtype=np.float32))[:, None, None]
    lit = wall * (0.7 + 3.0 * strip * np.array([0.9, 1.0, 1.1], np.float32))
    floor = materials.painted(rng, (size_px - horizon, size_px), tone="#8d949b")
    near = np.linspace(0.45, 1.1, size_px - horizon, dtype=np.float32)[:, None, None]
    return _joined(np.asarray(lit, np.float32), np.asarray(floor * near, np.float32))


def _joined(wall: Pixels, floor: Pixels) -> Pixels:
    """Wall above floor, with a soft dark line where they meet."""
    picture = np.concatenate([wall, floor]).astype(np.float32)
    rows = np.arange(len(picture), dtype=np.float32)[:, None, None]
    crease = 1 - 0.35 * np.exp(-(((rows - len(wall)) / (0.02 * len(picture))) ** 2))
    picture = np.asarray(picture * crease, np.float32)
    edge = slice(len(wall) - 4, len(wall) + 4)
    picture[edge] = cv2.GaussianBlur(picture[edge], (0, 0), 1.5)
    return picture


@cache
def _out_of_focus(class_name: str, size_px: int) -> Cutout:
    """A product a little further back, always the same."""
    light = Light(
        key_azimuth=0.5,
        key_strength=0.7,
        ambient=0.4,
        softboxes=(Softbox(azimuth=0.9, half_width=0.3, brightness=2.5),),
        floor=(0.2, 0.2, 0.2),
    )
    item = product(class_name)
    sharp = item.render(Pose(yaw=0.3, tilt=0.12, height_px=size_px * (0.3 + 0.018 * item.height)), light)
    pad = size_px // 12
    edges = {"top": pad, "bottom": pad, "left": pad, "right": pad, "borderType": cv2.BORDER_CONSTANT}
    shown = cv2.copyMakeBorder(sharp.light, **edges)
    clear = cv2.copyMakeBorder(sharp.clear, **edges, value=(1, 1, 1))
    shown, clear = (cv2.GaussianBlur(plane, (0, 0), size_px / 80) for plane in (shown, clear))
    return Cutout(light=shown, clear=clear, foot=(sharp.foot[0] + pad, sharp.foot[1] + pad))
