"""Tensors of fast networks under our names, whoever saved them and when; and the network that they fit.

C channels.
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from vtray.errors import WeightsError
from vtray.style.fast.msgnet import EXPANSION, MsgNet
from vtray.style.fast.transformer import TransformerNet

FastEngine = Literal["feedforward", "msgnet"]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # under instance norms before torch 0.4
SECOND_NAMES = {"model1.": "model.0.", "ins.": "model.1."}  # MSG-Net registers encoder and CoMatch twice
FIRST_KEYS = {"feedforward": "conv1.conv2d.weight", "msgnet": "model.0.0.conv2d.weight"}
COMATCH = "model.1.weight"
LAYERS_AROUND_BLOCKS = 7  # of MSG-Net: encoder and CoMatch in front, five layers behind


def renamed(tensors: Mapping[str, Tensor], *, uri: str) -> dict[str, Tensor]:
    """The tensors without running statistics, each under one name.

    Raises: WeightsError if a tensor stands there twice with two values.
    """
    named: dict[str, Tensor] = {}
    for key in sorted(tensors, reverse=True):  # "model1." before "model."
        if key.rpartition(".")[2] in STATISTICS:
            continue
        name, tensor = _first_name(key), tensors[key]
        if name in named and not torch.equal(named[name], tensor):
            raise WeightsError(f"{uri}: {key} stands there twice with two values; save the network again")
        named[name] = tensor
    return named


def _first_name(key: str) -> str:
    start = next((start for start in SECOND_NAMES if key.startswith(start)), "")
    return SECOND_NAMES[start] + key.removeprefix(start) if start else key


def engine_of(tensors: Mapping[str, Tensor], *, uri: str) -> FastEngine:
    """Which network these tensors, under our names, belong to. Raises: WeightsError if to neither."""
    if FIRST_KEYS["feedforward"] in tensors:
        return "feedforward"
    if FIRST_KEYS["msgnet"] in tensors and COMATCH in tensors:
        return "msgnet"
    raise WeightsError(
        f"{uri}: no fast style network: neither {' nor '.join(FIRST_KEYS.values())} is there, but "
        f"{', '.join(sorted(tensors)[:3])}; allowed: TransformerNet of pytorch/examples, MSG-Net"
    )


def network_of(tensors: Mapping[str, Tensor], engine: FastEngine, *, uri: str) -> TransformerNet | MsgNet:
    """The network with these tensors, under our names, in fp32 and eval mode; its sizes are read from them.

    Raises: WeightsError that names what is missing, too many or of another shape.
    """
    found = engine_of(tensors, uri=uri)
    if found != engine:
        raise WeightsError(
            f"{uri}: is the network of engine {found}, not of {engine}; copy the whole folder again"
        )
    with torch.device("meta"):
        network = _empty_feedforward(tensors) if engine == "feedforward" else _empty_msgnet(tensors)
    _require_same(tensors, network, uri=uri)
    network.load_state_dict({key: tensor.float().clone() for key, tensor in tensors.items()}, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _empty_feedforward(tensors: Mapping[str, Tensor]) -> TransformerNet:
    return TransformerNet(_num_outputs(tensors, FIRST_KEYS["feedforward"]))


def _empty_msgnet(tensors: Mapping[str, Tensor]) -> MsgNet:
    last = max(int(match[1]) for key in tensors if (match := re.match(r"model\.(\d+)\.", key)))
    num_blocks = max(0, last + 1 - LAYERS_AROUND_BLOCKS)
    filters = tensors[COMATCH].shape[-1] // EXPANSION if tensors[COMATCH].ndim else 0
    width = _num_outputs(tensors, FIRST_KEYS["msgnet"])
    return MsgNet(max(1, filters), width=max(EXPANSION, width), num_blocks=num_blocks)


def _num_outputs(tensors: Mapping[str, Tensor], key: str) -> int:
    return max(1, tensors[key].shape[0] if tensors[key].ndim else 0)


def _require_same(tensors: Mapping[str, Tensor], network: nn.Module, *, uri: str) -> None:
    expected = network.state_dict()
    faults = [f"{key} is missing" for key in expected.keys() - tensors.keys()]
    faults += [f"{key} is none of its keys" for key in tensors.keys() - expected.keys()]
    faults += [
        f"{key} has shape {tuple(tensors[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected.keys() & tensors.keys()
        if tensors[key].shape != expected[key].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more faults" if len(faults) > 3 else ""
        listed = "; ".join(sorted(faults)[:3])
        raise WeightsError(f"{uri}: no {type(network).__name__}: {listed}{more}; choose another file")


def in_rgb(network: MsgNet) -> MsgNet:
    """A published MSG-Net, which takes and gives BGR, turned into one of RGB; in place."""
    first, last = network.get_submodule("model.0.0.conv2d"), network.last
    assert isinstance(first, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))
        last.weight.copy_(last.weight.flip(0))
        last.bias.copy_(last.bias.flip(0))
    return network
