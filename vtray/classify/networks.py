"""torchvision's classification networks by name, with random weights or as shapes only."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from vtray.errors import ConfigError

POSITIONS = "encoder.pos_embedding"  # of a ViT: (1, 1 + patches, D)
FACTORIES = (torch.empty, torch.zeros, torch.ones)  # with which torchvision makes parameters
INITIALIZERS = frozenset(
    ("normal_", "uniform_", "fill_", "zero_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_")
)
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def backbone_names() -> list[str]:
    """All of torchvision's classification models that are not quantized, in alphabetical order."""
    names: list[str] = models.list_models(module=models)
    return names


def check_backbone(backbone: str) -> None:
    """Raises: ConfigError with near matches for a name that is no backbone."""
    names = backbone_names()
    if backbone in names:
        return
    close = difflib.get_close_matches(backbone.lower(), names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"allowed: {', '.join(names)}"
    raise ConfigError(f"backbone {backbone!r}: not a classification model of torchvision; {hint}")


def build_network(backbone: str, *, num_classes: int) -> nn.Module:
    """torchvision's network with its random weights, without auxiliary heads, dropouts never in place.

    In place they would write into the activations that a caller hands in. GoogLeNet and Inception take pixels
    normalised like all others, as torchvision builds them for its published weights.
    Raises: ConfigError for an unknown name.
    """
    check_backbone(backbone)
    if num_classes < 1:
        raise ConfigError(f"num_classes {num_classes} is not allowed; a classifier needs at least 1")
    options: dict[str, Any] = {}
    if backbone in WITH_AUXILIARY_HEADS:
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    network: nn.Module = models.get_model(backbone, weights=None, num_classes=num_classes, **options)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.inplace = False
    return network


def take_image_size(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make a ViT one for images of the size for which the tensors have positions; other networks take any size."""
    positions = tensors.get(POSITIONS)
    if not isinstance(network, models.VisionTransformer) or positions is None or positions.ndim != 3:
        return
    own, side = network.encoder.pos_embedding, math.isqrt(positions.shape[1] - 1)
    if positions.shape[1] == own.shape[1] or positions.shape[1] != 1 + side * side:
        return
    new = own.new_empty((1, positions.shape[1], own.shape[2]))
    network.encoder.pos_embedding = nn.Parameter(new, requires_grad=own.requires_grad)
    network.seq_length, network.image_size = positions.shape[1], side * network.patch_size


class ShapesOnly(TorchFunctionMode):
    """A context in which networks are built without memory for their weights, in a tenth of a second.

    torch.device("meta") would also take the numbers from which RegNet computes its widths.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in FACTORIES:
            options["device"] = "meta"
        if getattr(func, "__name__", "") in INITIALIZERS:
            return args[0] if args else options["tensor"]
        return func(*args, **options)
