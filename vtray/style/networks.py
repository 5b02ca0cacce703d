"""The networks whose features style transfer compares, as tables of named layers; they are read without torch.

VGG layers have the names of the paper (conv1_1, relu1_1, pool1), those of SqueezeNet are conv1, relu1, pool1 and
fire2 to fire9. `index` is the layer's number in the weights' keys.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vtray.errors import ConfigError

Kind = Literal["conv", "relu", "pool", "fire"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # per block


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer. Convolutions and poolings have a kernel and a stride; convolutions of stride 1 keep the size."""

    name: str
    kind: Kind
    index: int
    kernel: int = 1
    stride: int = 1


@dataclass(frozen=True, kw_only=True)
class Network:
    """An ordered list of layers with what belongs around it.

    prefix: what stands before the layer's number in the weights' keys. mean, std: subtracted from and divided out
    of RGB in 0 to 1; None where the network's first convolution does that. reflect: reflection instead of zero
    padding. ceil: pooling keeps an odd last row. content_layers, style_layers: what is compared by default.
    """

    name: str
    layers: tuple[Layer, ...]
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    prefix: str = "features."
    mean: tuple[float, float, float] | None = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    reflect: bool = False
    ceil: bool = False

    def up_to(self, names: Sequence[str]) -> tuple[Layer, ...]:
        """The layers as far as the deepest of those names."""
        deepest = max(index for index, layer in enumerate(self.layers) if layer.name in names)
        return self.layers[: deepest + 1]

    def require_layers(self, key: str, names: Sequence[str]) -> None:
        """Raises: ConfigError, with the list, for a name that is not a layer."""
        known = [layer.name for layer in self.layers]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise ConfigError(f"{key}: {self.name} has no layer {name!r}{hint}; it has {', '.join(known)}")

    def within(self, names: Sequence[str], depth: int) -> tuple[str, ...]:
        """Those of the names that are among the first `depth` layers; if none is, the deepest activation there."""
        reachable = [layer.name for layer in self.layers[:depth]]
        activations = [layer.name for layer in self.layers[:depth] if layer.kind in ("relu", "fire")]
        return tuple(name for name in names if name in reachable) or tuple(activations[-1:])


def _vgg_layers(convolutions: Sequence[int], *, first: int, padded: bool) -> Iterator[Layer]:
    """Layers of a VGG whose 3x3 convolutions begin at number `first`; `padded`: padding takes numbers too."""
    index = first
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            yield Layer(name=f"conv{block}_{number}", kind="conv", index=index, kernel=3)
            yield Layer(name=f"relu{block}_{number}", kind="relu", index=index + 1)
            index += 3 if padded else 2
        yield Layer(name=f"pool{block}", kind="pool", index=index - padded, kernel=2, stride=2)
        index += 1


def _vgg(name: str) -> Network:
    return Network(
        name=name,
        layers=tuple(_vgg_layers(VGG_CONVOLUTIONS[name], first=0, padded=False)),
        content_layers=("relu4_2",),
        style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    )


def _normalised_vgg19() -> Network:
    """VGG-19 with activations scaled to mean 1, as used by WCT and AdaIN; its first layer takes RGB in 0 to 1."""
    to_bgr = Layer(name="conv0", kind="conv", index=0)
    return Network(
        name="vgg19_normalised",
        layers=(to_bgr, *_vgg_layers(VGG_CONVOLUTIONS["vgg19"], first=2, padded=True)),
        content_layers=("relu4_1",),
        style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        prefix="",
        mean=None,
        reflect=True,
        ceil=True,
    )


def _squeezenet(name: str, *, kernel: int, pools_after: Sequence[int]) -> Network:
    layers = [
        Layer(name="conv1", kind="conv", index=0, kernel=kernel, stride=2),
        Layer(name="relu1", kind="relu", index=1),
        Layer(name="pool1", kind="pool", index=2, kernel=3, stride=2),
    ]
    for number in range(2, 10):
        layers.append(Layer(name=f"fire{number}", kind="fire", index=len(layers)))
        if number in pools_after:
            layers.append(Layer(name=f"pool{number}", kind="pool", index=len(layers), kernel=3, stride=2))
    return Network(
        name=name,
        layers=tuple(layers),
        content_layers=("fire4",),
        style_layers=("relu1", "fire2", "fire3", "fire4", "fire5"),
        ceil=True,
    )


NETWORKS = {
    network.name: network
    for network in (
        _vgg("vgg16"),
        _vgg("vgg19"),
        _normalised_vgg19(),
        _squeezenet("squeezenet1_0", kernel=7, pools_after=(4, 8)),
        _squeezenet("squeezenet1_1", kernel=3, pools_after=(3, 5)),
    )
}


def network_named(name: str) -> Network:
    """The network of that name. Raises: ConfigError with the list."""
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"features.network: {name!r} is not known{hint}; allowed: {', '.join(NETWORKS)}")
    return NETWORKS[name]
