"""Where torchvision's networks can be cut: each as ordered stages, the pooling behind them, and the head.

A stage takes and gives one tensor. It bears the name of its first module that has weights, or `stem` where several
modules of the network make up the first stage. A norm stays with the layer before it, a max pooling too.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

Step = str | Callable[[nn.Module, Tensor], Tensor]  # a module of the network by its path, or what is no module
Steps = tuple[Step, ...]
NORMS = (nn.BatchNorm2d, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Some steps of a network; `others` are modules and parameters that its functions use."""

    name: str
    steps: Steps
    others: tuple[str, ...] = ()

    @property
    def owned(self) -> tuple[str, ...]:
        """The paths of all modules and parameters of the stage."""
        return (*_paths(self.steps), *self.others)


@dataclass(frozen=True, kw_only=True)
class Staging:
    """A network: its stages, then `pool`, `dropout`, `head` and `tail`, of which only the head has weights."""

    stages: tuple[Stage, ...]
    pool: Steps
    head: str
    dropout: tuple[str, ...] = ()
    tail: Steps = ()


def staging_of(network: nn.Module) -> Staging:
    """The stages of one of torchvision's classification networks. Raises: KeyError for any other network."""
    return FAMILIES[type(network)](network)


def run_steps(network: nn.Module, steps: Steps, inputs: Tensor) -> Tensor:
    """What the steps make of the inputs, one after the other."""
    for step in steps:
        inputs = network.get_submodule(step)(inputs) if isinstance(step, str) else step(network, inputs)
    return inputs


# what networks do between their modules --------------------------------------------------------------------------


def _flatten(network: nn.Module, features: Tensor) -> Tensor:
    return torch.flatten(features, 1)


def _average(network: nn.Module, features: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(features, (1, 1))


def _mean(network: nn.Module, features: Tensor) -> Tensor:
    return features.mean([2, 3])


def _relu(network: nn.Module, features: Tensor) -> Tensor:
    return functional.relu(features)


def _renormalize(network: nn.Module, pixels: Tensor) -> Tensor:
    changed: Tensor = network._transform_input(pixels)  # type: ignore[operator]
    return changed


def _tokens(network: nn.Module, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 1 + patches, D): the class token, then the patches, all with their positions."""
    patches: Tensor = network._process_input(pixels)  # type: ignore[operator]
    class_token = network.get_parameter("class_token").expand(len(patches), -1, -1)
    tokens = torch.cat([class_token, patches], dim=1) + network.get_parameter("encoder.pos_embedding")
    placed: Tensor = network.get_submodule("encoder.dropout")(tokens)
    return placed


def _class_token(network: nn.Module, tokens: Tensor) -> Tensor:
    return tokens[:, 0]


# cutting ---------------------------------------------------------------------------------------------------------


def _paths(steps: Steps) -> tuple[str, ...]:
    return tuple(step for step in steps if isinstance(step, str))


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _cut(children: Iterable[tuple[str, nn.Module]], *, joined: str = "no such name") -> tuple[Stage, ...]:
    """A stage from each child with weights to the next; norms and names with `joined` begin none."""
    stages: list[Stage] = []
    for path, child in children:
        if _has_weights(child) and not isinstance(child, NORMS) and joined not in path:
            stages.append(Stage(name=path, steps=(path,)))
        else:
            stages[-1] = replace(stages[-1], steps=(*stages[-1].steps, path))
    return tuple(stages)


def _children(network: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """The children of a module of the network, with their paths from the network."""
    start = f"{path}." if path else ""
    return [(f"{start}{name}", child) for name, child in network.get_submodule(path).named_children()]


def _children_before(network: nn.Module, end: str) -> list[tuple[str, nn.Module]]:
    children = _children(network)
    return children[: [path for path, _ in children].index(end)]


def _with_classifier(
    network: nn.Module, stages: tuple[Stage, ...], *, pool: Steps, path: str = "classifier"
) -> Staging:
    """The staging of a network that ends in a Sequential: its last Linear or Conv2d is the head.

    What has weights before that is a stage too, and takes the pooling and the dropouts before it along.
    """
    children = _children(network, path)
    last = max(number for number, (_, child) in enumerate(children) if isinstance(child, nn.Linear | nn.Conv2d))
    hidden: list[Stage] = []
    waiting: list[Step] = list(pool)
    for step, child in children[:last]:
        if _has_weights(child):
            hidden.append(Stage(name=step, steps=(*waiting, step)))
            waiting = []
        elif hidden and not waiting and not isinstance(child, nn.Dropout):
            hidden[-1] = replace(hidden[-1], steps=(*hidden[-1].steps, step))
        else:
            waiting.append(step)
    dropouts = [step for step, child in children[:last] if isinstance(child, nn.Dropout)]
    return Staging(
        stages=(*stages, *hidden),
        pool=tuple(step for step in waiting if step not in dropouts),
        dropout=tuple(step for step in dropouts if step in waiting),
        head=children[last][0],
        tail=tuple(step for step, _ in children[last + 1 :]),
    )


def _from(first: Stage, *, name: str | None = None, before: Steps = ()) -> Stage:
    return replace(first, name=name or first.name, steps=(*before, *first.steps))


def _then(stages: tuple[Stage, ...], *steps: Step) -> tuple[Stage, ...]:
    """The same stages with more steps at the end of the last."""
    return (*stages[:-1], replace(stages[-1], steps=(*stages[-1].steps, *steps)))


# the families ----------------------------------------------------------------------------------------------------


def _features_and_classifier(network: nn.Module) -> Staging:
    stages = _cut(_children(network, "features"))
    return _with_classifier(network, stages, pool=("avgpool", _flatten))


def _convnext(network: nn.Module) -> Staging:
    return _with_classifier(network, _cut(_children(network, "features")), pool=("avgpool",))


def _mobilenet_v2(network: nn.Module) -> Staging:
    return _with_classifier(network, _cut(_children(network, "features")), pool=(_average, _flatten))


def _mnasnet(network: nn.Module) -> Staging:
    return _with_classifier(network, _cut(_children(network, "layers")), pool=(_mean,))


def _squeezenet(network: nn.Module) -> Staging:
    staging = _with_classifier(network, _cut(_children(network, "features")), pool=())
    return replace(staging, tail=(*staging.tail, _flatten))


def _densenet(network: nn.Module) -> Staging:
    stages = _cut(_children(network, "features"), joined="transition")
    return Staging(stages=_then(stages, _relu), pool=(_average, _flatten), head="classifier")


def _resnet(network: nn.Module) -> Staging:
    first, *others = _cut(_children_before(network, "avgpool"))
    return Staging(stages=(_from(first, name="stem"), *others), pool=("avgpool", _flatten), head="fc")


def _inception(network: nn.Module) -> Staging:
    first, *others = _cut(_children_before(network, "avgpool"))
    stages = (_from(first, before=(_renormalize,)), *others)
    return Staging(stages=stages, pool=("avgpool", _flatten), dropout=("dropout",), head="fc")


def _shufflenet(network: nn.Module) -> Staging:
    return Staging(stages=_cut(_children_before(network, "fc")), pool=(_mean,), head="fc")


def _regnet(network: nn.Module) -> Staging:
    stages = _cut([("stem", network.get_submodule("stem")), *_children(network, "trunk_output")])
    return Staging(stages=stages, pool=("avgpool", _flatten), head="fc")


def _vit(network: nn.Module) -> Staging:
    used = ("conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout")
    stem = Stage(name="stem", steps=(_tokens,), others=used)
    layers = _then(_cut(_children(network, "encoder.layers")), "encoder.ln")
    return _with_classifier(network, (stem, *layers), pool=(_class_token,), path="heads")


def _swin(network: nn.Module) -> Staging:
    stages = _then(_cut(_children(network, "features")), "norm", "permute")  # ends as (B, C, H, W)
    return Staging(stages=stages, pool=("avgpool", "flatten"), head="head")


def _maxvit(network: nn.Module) -> Staging:
    stages = _cut([("stem", network.get_submodule("stem")), *_children(network, "blocks")])
    return _with_classifier(network, stages, pool=())


FAMILIES: dict[type[nn.Module], Callable[[nn.Module], Staging]] = {
    models.AlexNet: _features_and_classifier,
    models.ConvNeXt: _convnext,
    models.DenseNet: _densenet,
    models.EfficientNet: _features_and_classifier,
    models.GoogLeNet: _inception,
    models.Inception3: _inception,
    models.MNASNet: _mnasnet,
    models.MaxVit: _maxvit,
    models.MobileNetV2: _mobilenet_v2,
    models.MobileNetV3: _features_and_classifier,
    models.RegNet: _regnet,
    models.ResNet: _resnet,
    models.ShuffleNetV2: _shufflenet,
    models.SqueezeNet: _squeezenet,
    models.SwinTransformer: _swin,
    models.VGG: _features_and_classifier,
    models.VisionTransformer: _vit,
}
