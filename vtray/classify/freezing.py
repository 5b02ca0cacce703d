"""Which stages of a backbone are trained, and the proof that the others stay as they are.

A frozen stage gets no gradient and stays in evaluation mode, so its batch-norm statistics do not move either.
Freeze before the network is wrapped for distributed training: the wrapper looks once at what needs a gradient.
"""

import difflib
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from vtray.classify.backbone import Classifier
from vtray.errors import ConfigError


def frozen_stages(stage_names: Sequence[str], freeze: int | str) -> frozenset[int]:
    """Indexes of the stages to freeze, always the first ones.

    freeze: how many, the name of the last frozen stage, "none" or "all" (then only the head is trained).
    Raises: ConfigError with the stages for a number or name that does not fit.
    """
    if isinstance(freeze, str):
        counts = {"none": 0, "all": len(stage_names)} | {name: i + 1 for i, name in enumerate(stage_names)}
        if freeze not in counts:
            raise ConfigError(_unknown("freeze", freeze, stage_names, also="none, all, a number"))
        return frozenset(range(counts[freeze]))
    if isinstance(freeze, bool) or not 0 <= freeze <= len(stage_names):
        raise ConfigError(
            f"freeze: {freeze!r} is not allowed; give 0 to {len(stage_names)} or a stage{_numbered(stage_names)}"
        )
    return frozenset(range(freeze))


def window_stages(stage_names: Sequence[str], window: tuple[int | str, int | str]) -> frozenset[int]:
    """Indexes of the stages to freeze if only the stages from the first to the last of `window` are trained.

    window: two indexes, from 0, or names; both ends are trained, and the head always is.
    Raises: ConfigError with the stages for an end that is none, or ends in the wrong order.
    Source: surgical fine-tuning, Lee et al. 2022.
    """
    first, last = (_index(stage_names, end) for end in window)
    if first > last:
        raise ConfigError(
            f"train_stages: {window[0]!r} comes after {window[1]!r}; give the earlier one first"
            f"{_numbered(stage_names)}"
        )
    return frozenset(range(len(stage_names))) - frozenset(range(first, last + 1))


def freeze(classifier: Classifier, frozen: frozenset[int]) -> None:
    """Freeze these stages and train all others; what was frozen before and is not named is trained again."""
    classifier.frozen = frozen
    for index in range(len(classifier.stage_names)):
        for _, parameter in classifier.stage_parameters(index):
            parameter.requires_grad_(index not in frozen)
            if index in frozen:
                parameter.grad = None
    for _, parameter in classifier.head_parameters():
        parameter.requires_grad_(True)
    classifier.train(classifier.training)


def boundary_of(classifier: Classifier) -> int:
    """The number of leading frozen stages: what a cache of activations may stand for.

    If all are frozen, the pooling behind them counts too, and this is `classifier.last_boundary`.
    """
    stages = range(len(classifier.stage_names))
    return next((index for index in stages if index not in classifier.frozen), classifier.last_boundary)


def frozen_digest(classifier: Classifier) -> str:
    """SHA-256 over names, types, shapes and bytes of all frozen parameters and buffers.

    Independent of device and memory layout: equal before and after a training says that not a bit has moved.
    """
    state = hashlib.sha256()
    for name, tensor in frozen_tensors(classifier).items():
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(_bytes_of(tensor))
    return state.hexdigest()


def frozen_tensors(classifier: Classifier) -> dict[str, Tensor]:
    """The parameters and buffers of all frozen stages by their names in the network, the objects themselves."""
    return {
        name: tensor
        for index in sorted(classifier.frozen)
        for name, tensor in (*classifier.stage_parameters(index), *classifier.stage_buffers(index))
    }


def trained_tensors(classifier: Classifier) -> dict[str, Tensor]:
    """All other parameters and buffers, the head's too: what a training changes and a checkpoint has to hold."""
    frozen = frozen_tensors(classifier)
    network = classifier.network
    everything = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor for name, tensor in everything if name not in frozen}


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)  # NumPy has no bfloat16: look at the bytes
    return flat.view(torch.uint8).numpy().data


def _index(stage_names: Sequence[str], stage: int | str) -> int:
    if isinstance(stage, str):
        if stage not in stage_names:
            raise ConfigError(_unknown("train_stages", stage, stage_names, also="an index"))
        return stage_names.index(stage)
    if isinstance(stage, bool) or not 0 <= stage < len(stage_names):
        raise ConfigError(
            f"train_stages: {stage!r} is not allowed; give 0 to {len(stage_names) - 1} or a name"
            f"{_numbered(stage_names)}"
        )
    return stage


def _unknown(key: str, name: str, stage_names: Sequence[str], *, also: str) -> str:
    close = difflib.get_close_matches(name, stage_names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{key}: {name!r} is not a stage{hint} (allowed: {also}, {', '.join(stage_names)})"


def _numbered(stage_names: Sequence[str]) -> str:
    return f" ({', '.join(f'{index} {name}' for index, name in enumerate(stage_names))})"
