"""A frozen network that gives the features of chosen layers, cut behind the deepest of them.

B images, C channels, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from vtray.errors import ConfigError, WeightsError
from vtray.style.networks import Layer, Network, network_named
from vtray.style.work import FeatureSpec, Layout, Precision
from vtray.weights import load_weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
SMALL = 20_480  # elements of an image: `use_mkldnn` in ATen/native/Convolution.cpp
FIRE_PARTS = ("squeeze", "expand1x1", "expand3x3")

Parameters = tuple[Tensor, ...]  # weight and bias of each convolution of a layer


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureExtractor:
    """Called with RGB pixels, float32 (B, 3, H, W) in 0 to 1; gives the features of `wanted` by layer name.

    Features have the network's precision and layout; gradients reach the pixels, never the weights.
    """

    network: Network
    layers: tuple[Layer, ...]
    parameters: Mapping[str, Parameters]
    wanted: frozenset[str]
    precision: Precision = "fp32"
    layout: Layout = "nchw"

    @classmethod
    def load(cls, spec: FeatureSpec, *, device: torch.device | str = "cpu") -> "FeatureExtractor":
        """Read the weights and keep what the layers need. Raises: ConfigError, WeightsError, StorageError."""
        network = network_named(spec.network)
        network.require_layers("features.content_layers", spec.content_layers)
        network.require_layers("features.style_layers", spec.style_layers)
        weights = load_weights(spec.weights_uri, model=spec.network, sha256=spec.weights_sha256 or None)
        tensors = _without_other_keys(weights.tensors, network)
        wanted = (*spec.content_layers, *spec.style_layers)
        _require_network(network, tensors, uri=weights.uri)
        _require_depth(network, tensors, wanted, uri=weights.uri)
        layers = network.up_to(wanted)
        return cls(
            network=network,
            layers=layers,
            parameters={layer.name: _parameters_of(layer, network, tensors) for layer in layers},
            wanted=frozenset(wanted),
        ).to(device, precision=spec.precision, layout=spec.layout)

    def to(
        self, device: torch.device | str, *, precision: Precision | None = None, layout: Layout | None = None
    ) -> "FeatureExtractor":
        """The same network elsewhere or computed in another way."""
        precision, layout = precision or self.precision, layout or self.layout
        moved = {
            name: tuple(_moved(tensor, device, precision, layout) for tensor in tensors)
            for name, tensors in self.parameters.items()
        }
        return replace(self, parameters=moved, precision=precision, layout=layout)

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        features = self._prepared(pixels)
        kept = True  # whether somebody else needs what goes into the next layer
        for layer in self.layers:
            features = self._apply(layer, features, keep_input=kept)
            kept = layer.name in self.wanted
            if kept:
                found[layer.name] = features
        return found

    @property
    def device(self) -> torch.device:
        return next(tensors[0].device for tensors in self.parameters.values() if tensors)

    @property
    def min_side_px(self) -> int:
        """Shorter sides may leave the deepest layer without two rows or columns to compare."""
        side = 2
        for layer in reversed(self.layers):
            if layer.stride > 1:  # as if nothing were padded; networks that keep an odd last row need less
                side = (side - 1) * layer.stride + layer.kernel
        return max(side, 8)

    def _prepared(self, pixels: Tensor) -> Tensor:
        if self.network.mean is not None:
            mean = pixels.new_tensor(self.network.mean).view(1, 3, 1, 1)
            std = pixels.new_tensor(self.network.std).view(1, 3, 1, 1)
            pixels = (pixels - mean) / std
        return pixels.to(dtype=DTYPES[self.precision], memory_format=FORMATS[self.layout])

    def _apply(self, layer: Layer, features: Tensor, *, keep_input: bool) -> Tensor:
        parameters = self.parameters[layer.name]
        if layer.kind == "conv":
            return self._convolve(layer, features, parameters)
        if layer.kind == "fire":
            return _fire(features, parameters)
        if layer.kind == "pool":
            return functional.max_pool2d(features, layer.kernel, layer.stride, ceil_mode=self.network.ceil)
        return functional.relu(features) if keep_input else functional.relu_(features)

    def _convolve(self, layer: Layer, features: Tensor, parameters: Parameters) -> Tensor:
        weight, bias = parameters
        if layer.stride > 1:  # SqueezeNet's first layer has no padding
            return _convolved(features, weight, bias, stride=layer.stride)
        if self.network.reflect and layer.kernel > 1:
            return _convolved(functional.pad(features, (1, 1, 1, 1), mode="reflect"), weight, bias)
        return _convolved(features, weight, bias, padding=layer.kernel // 2)


def _convolved(features: Tensor, weight: Tensor, bias: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """The convolution of every image as if it were alone, to the last digit.

    torch computes one small fp32 image in another way on a CPU, and a faster one, than several.
    """
    small = features.device.type == "cpu" and features.dtype == torch.float32 and features[0].numel() <= SMALL
    if not small or len(features) == 1:
        return functional.conv2d(features, weight, bias, stride, padding)
    return torch.cat([functional.conv2d(one, weight, bias, stride, padding) for one in torch.split(features, 1)])


def _fire(features: Tensor, parameters: Parameters) -> Tensor:
    """SqueezeNet's module: few channels, then 1x1 and 3x3 convolutions side by side."""
    squeeze, squeeze_bias, expand, expand_bias, expand3, expand3_bias = parameters
    squeezed = functional.relu_(_convolved(features, squeeze, squeeze_bias))
    narrow = _convolved(squeezed, expand, expand_bias)
    wide = _convolved(squeezed, expand3, expand3_bias, padding=1)
    return functional.relu_(torch.cat((narrow, wide), dim=1))


def _moved(tensor: Tensor, device: torch.device | str, precision: Precision, layout: Layout) -> Tensor:
    moved = tensor.detach().to(device=device, dtype=DTYPES[precision])
    return moved.contiguous(memory_format=FORMATS[layout]) if moved.ndim == 4 else moved


def _keys(layer: Layer, network: Network) -> tuple[str, ...]:
    """The keys of a layer's weight and bias, in the order in which they are used."""
    start = f"{network.prefix}{layer.index}"
    if layer.kind == "fire":
        return tuple(f"{start}.{part}.{name}" for part in FIRE_PARTS for name in ("weight", "bias"))
    return (f"{start}.weight", f"{start}.bias") if layer.kind == "conv" else ()


def _without_other_keys(tensors: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The tensors with the network's prefix, which files of features alone leave out."""
    if any(key.startswith(network.prefix) for key in tensors):
        return dict(tensors)
    return {f"{network.prefix}{key}": tensor for key, tensor in tensors.items()}


def depth_of(network: Network, tensors: Mapping[str, Tensor]) -> int:
    """How many layers from the first one these weights reach; files that end early are cut networks."""
    present = _without_other_keys(tensors, network)
    missing = (
        number
        for number, layer in enumerate(network.layers)
        if any(key not in present for key in _keys(layer, network))
    )
    return next(missing, len(network.layers))


def _require_network(network: Network, tensors: Mapping[str, Tensor], *, uri: str) -> None:
    """Raises: WeightsError for weights of another network, even one whose layers have the same keys."""
    norms = sorted(key for key, tensor in tensors.items() if key.endswith(".weight") and tensor.ndim == 1)
    if norms:
        raise WeightsError(
            f"{uri}: {norms[0]} is a batch normalization: weights of a batch-norm variant (vgg19_bn) do not "
            f"fit; use those of {network.name} itself"
        )
    channels = 3
    try:
        for layer in network.layers[: max(1, depth_of(network, tensors))]:
            channels = _num_outputs(layer, channels, network, tensors)
        _require_no_other_layers(network, tensors)
    except ValueError as error:
        raise WeightsError(
            f"{uri}: no weights of {network.name}: {error}; choose another features.network or file"
        ) from None


def _require_no_other_layers(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Raises: ValueError for weights where the network has none; a classifier behind the features is left out."""
    known = {key for layer in network.layers for key in _keys(layer, network)}
    for key in sorted(tensors.keys() - known):
        if key.startswith(network.prefix) and key.removeprefix(network.prefix)[:1].isdigit():
            raise ValueError(f"{key} is none of its keys")


def _num_outputs(layer: Layer, channels: int, network: Network, tensors: Mapping[str, Tensor]) -> int:
    """How many channels a layer makes of that many. Raises: ValueError if its weights take others."""
    weights = _keys(layer, network)[::2]
    if layer.kind == "conv":
        return _num_kernels(weights[0], tensors, channels, layer.kernel)
    if layer.kind == "fire":
        squeeze, narrow, wide = weights
        squeezed = _num_kernels(squeeze, tensors, channels, 1)
        return _num_kernels(narrow, tensors, squeezed, 1) + _num_kernels(wide, tensors, squeezed, 3)
    return channels


def _num_kernels(key: str, tensors: Mapping[str, Tensor], channels: int, side: int) -> int:
    """How many kernels of that shape there are. Raises: ValueError if there are none, or others."""
    bias_key = f"{key.removesuffix('weight')}bias"
    for needed in (key, bias_key):
        if needed not in tensors:
            raise ValueError(f"{needed} is missing, there are {', '.join(sorted(tensors)[:3])}")
    shape, bias = tuple(tensors[key].shape), tuple(tensors[bias_key].shape)
    if shape[1:] != (channels, side, side) or bias != shape[:1]:
        raise ValueError(f"{key} {shape} with bias {bias}, expected (N, {channels}, {side}, {side}) and (N,)")
    return shape[0]


def _require_depth(network: Network, tensors: Mapping[str, Tensor], wanted: Sequence[str], *, uri: str) -> None:
    """Raises: ConfigError for a layer behind the last one that has weights."""
    depth = depth_of(network, tensors)
    names = [layer.name for layer in network.layers]
    for name in wanted:
        if names.index(name) >= depth:
            raise ConfigError(
                f"features: layer {name!r} is deeper than the weights in {uri}, which end at {names[depth - 1]}; "
                f"choose from {', '.join(names[:depth])}"
            )


def _parameters_of(layer: Layer, network: Network, tensors: Mapping[str, Tensor]) -> Parameters:
    return tuple(tensors[key] for key in _keys(layer, network))
