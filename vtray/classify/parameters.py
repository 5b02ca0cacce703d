"""Which learning rate and weight decay each parameter gets, and the optimizer that carries them out."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from vtray.classify.backbone import Classifier

# they say where something is, not what it looks like; like biases and scales they are not pulled to zero
POSITIONS = ("pos_embedding", "relative_position_bias_table")

Named = tuple[str, nn.Parameter]
OptimizerName = Literal["adamw", "sgd"]


def parameter_groups(
    classifier: Classifier,
    *,
    lr: float,
    head_lr_factor: float = 10,
    weight_decay: float,
    layer_decay: float | None,
) -> list[dict[str, Any]]:
    """Groups of all parameters that need a gradient, for any optimizer of torch.

    The head learns at lr * head_lr_factor. With layer_decay, backbone layer number i of n learns at
    lr * layer_decay ** (n - i), else at lr; frozen layers count. Biases, norms, layer scales and positions are not
    decayed. Each group names its layer and kind (`name`) and keeps its full learning rate as `initial_lr`.

    Source: layer-wise decay as in BEiT (Bao et al. 2021) and timm's `param_groups_layer_decay`; timm's layers are
    residual blocks, not stages, and a final norm goes with the last block. timm exempts what has one axis, and a
    list per model; here also layer scales (C, 1, 1), which have one axis in timm's networks.
    """
    layers = backbone_layers(classifier)
    decay = 1.0 if layer_decay is None else layer_decay
    rates = [(name, named, lr * decay ** (len(layers) - i)) for i, (name, named) in enumerate(layers)]
    if layer_decay is None:
        rates = [("backbone", [each for _, named in layers for each in named], lr)]
    rates.append(("head", classifier.head_parameters(), lr * head_lr_factor))
    return [group for name, named, rate in rates for group in _split(name, named, rate, weight_decay)]


def backbone_layers(classifier: Classifier) -> list[tuple[str, list[Named]]]:
    """The depth of a backbone in layers, first to last: name and parameters, frozen or not.

    A stage of several residual blocks gives one layer per block; a stage that is only a norm joins the one before.
    """
    layers: list[tuple[str, list[Named]]] = []
    for index, stage in enumerate(classifier.stage_names):
        for name, named in _blocks(stage, classifier.stage_parameters(index), classifier.stage_modules(index)):
            if layers and all(parameter.ndim <= 1 for _, parameter in named):
                layers[-1][1].extend(named)
            else:
                layers.append((name, named))
    return layers


def _blocks(stage: str, named: list[Named], modules: Iterable[nn.Module]) -> Iterator[tuple[str, list[Named]]]:
    """The stage cut into its blocks, or whole; nothing for a stage without parameters.

    What a stage has beside its blocks, such as the transition of a densenet, goes with the last one, as in timm.
    """
    found = [blocks for module in modules if (blocks := _repeated(module))]
    if len(found) != 1:
        yield from [(stage, named)] if named else []
        return
    (blocks,) = found
    owner = {id(parameter): name for name, block in blocks for parameter in block.parameters()}
    last, _ = blocks[-1]
    for name, _ in blocks:
        yield f"{stage}.{name}", [each for each in named if owner.get(id(each[1]), last) == name]


def _repeated(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children of a container of blocks of one class, or nothing if it is something else."""
    if not isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return []
    children = list(module.named_children())
    alike = len({type(child) for _, child in children}) == 1
    return children if alike and all(next(child.children(), None) is not None for _, child in children) else []


def _split(name: str, named: list[Named], lr: float, weight_decay: float) -> Iterator[dict[str, Any]]:
    trained = [each for each in named if each[1].requires_grad]
    decayed = [parameter for path, parameter in trained if is_decayed(path, parameter)]
    others = [parameter for path, parameter in trained if not is_decayed(path, parameter)]
    for kind, parameters, weight in (("decay", decayed, weight_decay), ("no_decay", others, 0.0)):
        if parameters:
            rates = {"lr": lr, "initial_lr": lr, "weight_decay": weight}
            yield {"name": f"{name} {kind}", "params": parameters, **rates}


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: more than one axis that is longer than 1, and not a position."""
    return parameter.numel() > max(parameter.shape, default=1) and not name.endswith(POSITIONS)


def build_optimizer(
    groups: list[dict[str, Any]], *, optimizer: OptimizerName, momentum: float
) -> torch.optim.Optimizer:
    """torch's AdamW, or SGD with this momentum, over groups that bring their own rates."""
    if optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=momentum)
    return torch.optim.AdamW(groups)
