"""Tensors of a weights file compared with a network: names and shapes have to be right, or it is said which fit.

Names are those of torchvision's networks of today; what its older published files call otherwise is renamed.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import models

from vtray.classify.networks import ShapesOnly, backbone_names, build_network, take_image_size
from vtray.classify.stages import staging_of
from vtray.errors import WeightsError

RENAMED = (  # DenseNet before torch 0.4.1, ViT before torchvision 0.14
    (re.compile(r"(.*\.denselayer\d+\.(?:norm|conv))\.([12]\.\w+)"), r"\1\2"),
    (re.compile(r"(.*\.mlp)\.linear_1\.(\w+)"), r"\1.0.\2"),
    (re.compile(r"(.*\.mlp)\.linear_2\.(\w+)"), r"\1.3.\2"),
)
AUXILIARY = re.compile(r"(aux1|aux2|AuxLogits)\.")  # heads that GoogLeNet and Inception have for training
MEAN, COUNTER = ".running_mean", ".num_batches_tracked"  # of batch norms; files before torch 0.4.1 do not count
NUM_TRIED = 16  # networks of about the same size that are tried for a fit

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """What is wrong with tensors for a network: names, with both shapes where only these differ."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshapen}
        return "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names)


def require_fit(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, subject: str) -> None:
    """Compare names and shapes. Raises: WeightsError, with which of torchvision's models would fit instead."""
    misfit = _compare(_shapes(state), tensors)
    if misfit:
        fitting = " or ".join(fitting_backbones(tensors))
        advice = f"they fit {fitting}" if fitting else "choose the backbone that they were trained for"
        raise WeightsError(f"{subject}: {misfit}; {advice}")


def require_head(tensors: Mapping[str, Tensor], *, head_name: str, num_classes: int, uri: str) -> None:
    """Raises: WeightsError if the tensors hold no head, or one for another number of classes."""
    rows = head_rows(tensors, head_name=head_name)
    if rows == num_classes:
        return
    found = f"has no head ({head_name}.weight is missing)" if rows is None else f"has a head for {rows} classes"
    raise WeightsError(f"{uri}: {found}, needed is one for {num_classes}; take other weights or a new head")


def head_rows(tensors: Mapping[str, Tensor], *, head_name: str) -> int | None:
    """For how many classes the tensors' head is, or None if they have none."""
    weight = tensors.get(f"{head_name}.weight")
    return None if weight is None or not weight.ndim else weight.shape[0]


# names and shapes ------------------------------------------------------------------------------------------------


def in_todays_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under today's names, without auxiliary heads, with a counter (0) for every batch norm."""
    renamed = {_todays_name(name): tensor for name, tensor in tensors.items() if not AUXILIARY.match(name)}
    norms = [name.removesuffix(MEAN) for name in renamed if name.endswith(MEAN)]
    return renamed | {name: torch.tensor(0) for norm in norms if (name := f"{norm}{COUNTER}") not in renamed}


def _todays_name(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def without(tensors: Mapping[str, Tensor], head_name: str) -> dict[str, Tensor]:
    """The tensors of the backbone alone."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{head_name}.")}


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _compare(expected: Shapes, tensors: Mapping[str, Tensor]) -> Misfit:
    given = _shapes(tensors)
    return Misfit(
        missing=tuple(name for name in expected if name not in given),
        unexpected=tuple(name for name in given if name not in expected),
        misshapen=tuple(
            f"{name} {given[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in given and given[name] != shape
        ),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# which other network it is ---------------------------------------------------------------------------------------


def fitting_backbones(tensors: Mapping[str, Tensor]) -> list[str]:
    """The models of torchvision whose backbone these tensors are, with any head or none."""
    tensors = in_todays_names(tensors)
    return [backbone for backbone in _of_similar_size(tensors) if _fits(backbone, tensors)]


def _of_similar_size(tensors: Mapping[str, Tensor]) -> list[str]:
    size = sum(tensor.numel() for tensor in tensors.values()) or 1
    known = {name: models.get_model_weights(name).DEFAULT.meta["num_params"] for name in backbone_names()}
    return sorted(known, key=lambda name: abs(math.log(known[name] / size)))[:NUM_TRIED]


def _fits(backbone: str, tensors: Mapping[str, Tensor]) -> bool:
    with ShapesOnly():
        network = build_network(backbone, num_classes=1)
        take_image_size(network, tensors)
    head_name = staging_of(network).head
    state = without(network.state_dict(), head_name)
    return not _compare(_shapes(state), without(tensors, head_name))
