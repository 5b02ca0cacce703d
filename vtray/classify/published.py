"""What torchvision records of the weights that it publishes: preprocessing, and the names of the classes."""

from typing import Any

from torchvision import models

from vtray.classify.networks import check_backbone
from vtray.classify.preprocessing import Preprocessing
from vtray.errors import ConfigError
from vtray.weights import TORCHVISION


def preprocessing_of(backbone: str, weights_uri: str = f"{TORCHVISION}DEFAULT") -> Preprocessing:
    """What torchvision recorded for those of its weights, or for the model's DEFAULT if they are others.

    Raises: ConfigError for an unknown model, or a name of no weights of this model.
    """
    preset = _entry(backbone, weights_uri).transforms()
    return Preprocessing(
        resize_px=preset.resize_size[0],
        crop_px=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def class_names_of(backbone: str) -> tuple[str, ...]:
    """The 1000 names of ImageNet's classes, in the order of the rows of the published head."""
    return tuple(_entry(backbone, f"{TORCHVISION}DEFAULT").meta["categories"])


def _entry(backbone: str, weights_uri: str) -> Any:
    check_backbone(backbone)
    known = models.get_model_weights(backbone)
    if not weights_uri.startswith(TORCHVISION):
        return known.DEFAULT
    name = weights_uri.removeprefix(TORCHVISION).removeprefix(f"{known.__name__}.")
    if name not in known.__members__:
        allowed = ", ".join(f"{TORCHVISION}{each}" for each in known.__members__)
        raise ConfigError(f"{weights_uri}: torchvision has no such weights of {backbone}; allowed: {allowed}")
    return known[name]
