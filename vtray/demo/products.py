"""The dozen products of the vending machine. Each is drawn once per process and rendered in any pose and light.

Three pairs share a brand and a shape and differ in colour only: cola and cola zero, lemon and orange, the waters.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol

from vtray.demo import carton_art, labels
from vtray.demo.bottle import Bottle
from vtray.demo.can import Can
from vtray.demo.carton import BrickCarton, GableCarton
from vtray.demo.cutout import Cutout, Pose
from vtray.demo.light import Light


class Product(Protocol):
    """Something that can stand in the machine."""

    @property
    def height(self) -> float:
        """Height in cm."""

    def render(self, pose: Pose, light: Light) -> Cutout:
        """What a camera sees of it, in linear light."""


def _cola_can() -> Product:
    return Can(labels.cola(ground="#d0141e", deep="#8c0a14", ribbon="#ffffff", kind="COLA"), 3.3, 11.5)


def _cola_zero_can() -> Product:
    return Can(labels.cola(ground="#2a2b30", deep="#0c0c0f", ribbon="#d0141e", kind="ZERO SUGAR"), 3.3, 11.5)


def _lemon_can() -> Product:
    return Can(labels.soda(ground="#ffe14a", deep="#e6b800", flesh="#ffe866", kind="LEMON"), 3.3, 11.5)


def _orange_can() -> Product:
    return Can(labels.soda(ground="#ffa42e", deep="#ee7410", flesh="#ff9a2a", kind="ORANGE"), 3.3, 11.5)


def _energy_can() -> Product:
    return Can(labels.energy(), 2.65, 13.6)


def _coffee_can() -> Product:
    return Can(labels.coffee(), 2.65, 11.0)


def _water_bottle() -> Product:
    label = labels.water(ground="#3f97dc", deep="#155a9e", kind="still water", bubbles=False)
    return Bottle(label, "#e4f3ff", "#1f6fc0", label_height=6.0, depth=0.5)


def _sparkling_water_bottle() -> Product:
    label = labels.water(ground="#4fb77c", deep="#156b45", kind="sparkling water", bubbles=True)
    return Bottle(label, "#e2fbea", "#1d8a55", label_height=6.0, depth=0.5)


def _iced_tea_bottle() -> Product:
    return Bottle(labels.iced_tea(), "#c86a1c", "#2f7a3b", label_height=7.0, depth=1.0)


def _milk_carton() -> Product:
    words = ("MILK", "fresh · 3.5 % fat")
    colours = {"sky": "#eef5fb", "hill": "#2f6fb5", "far_hill": "#9fc8e8"}
    return _gable(carton_art.Meadow(**colours, words=words, emblem=carton_art.cow))


def _oat_carton() -> Product:
    words = ("OAT", "drink · no added sugar")
    colours = {"sky": "#f6eed8", "hill": "#7a8f2f", "far_hill": "#d9c48f"}
    return _gable(carton_art.Meadow(**colours, words=words, emblem=carton_art.oat))


def _gable(design: carton_art.Meadow) -> Product:
    return GableCarton(
        front=carton_art.meadow_front(design),
        flank=carton_art.meadow_flank(design),
        roof=carton_art.meadow_roof(design),
        fold=carton_art.plain(fill=design.sky),
        paper=design.sky,
        cap=design.hill,
    )


def _juice_carton() -> Product:
    return BrickCarton(carton_art.juice_front(), carton_art.juice_flank(), carton_art.juice_top(), straw="#d0202a")


_MAKERS: dict[str, Callable[[], Product]] = {
    "coffee_can": _coffee_can,
    "cola_can": _cola_can,
    "cola_zero_can": _cola_zero_can,
    "energy_can": _energy_can,
    "iced_tea_bottle": _iced_tea_bottle,
    "juice_carton": _juice_carton,
    "lemon_can": _lemon_can,
    "milk_carton": _milk_carton,
    "oat_carton": _oat_carton,
    "orange_can": _orange_can,
    "sparkling_water_bottle": _sparkling_water_bottle,
    "water_bottle": _water_bottle,
}

CLASS_NAMES = tuple(_MAKERS)


@cache
def product(class_name: str) -> Product:
    """The product of that class, with its art drawn.

    Raises:
        ValueError: no such class.
    """
    if class_name not in _MAKERS:
        raise ValueError(f"no product is called {class_name!r}; there are {', '.join(CLASS_NAMES)}")
    return _MAKERS[class_name]()
