"""A running average of the weights during training: often better than the last weights, never much worse.

Also how trained tensors are put aside and back, for averages and checkpoints alike.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vtray.classify.backbone import Classifier
from vtray.classify.freezing import frozen_tensors, trained_tensors
from vtray.errors import ConfigError


class WeightAverage:
    """The exponential moving average of all trained parameters and of their buffers.

    decay: 0 to 1, how much of the average an update keeps. `classifier` carries the averages, in eval mode; it
    shares its frozen tensors with the trained one. Make it when that one has its final device and layout.
    """

    def __init__(self, classifier: Classifier, *, decay: float) -> None:
        shared = {id(tensor): tensor for tensor in frozen_tensors(classifier).values()}
        self.classifier: Classifier = copy.deepcopy(classifier, shared).eval()
        self.classifier.requires_grad_(False)
        self._decay = decay
        self._updates = 0
        self._values = list(trained_tensors(classifier).values())
        self._means = list(trained_tensors(self.classifier).values())

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights as they are after one more optimizer step.

        Source: tf.train.ExponentialMovingAverage: after n updates the decay is at most (1 + n) / (10 + n), so that
        the start does not weigh down a short training. Integer buffers, such as batch counts, are copied.
        """
        share = 1 - min(self._decay, (1 + self._updates) / (10 + self._updates))
        pairs = list(zip(self._means, self._values, strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in real], [value.detach() for _, value in real], share)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averages by name, copied to the CPU, and the number of updates."""
        return {"updates": self._updates, "tensors": copies(trained_tensors(self.classifier))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises: ConfigError if it is of another network."""
        put_back(state["tensors"], trained_tensors(self.classifier))
        self._updates = int(state["updates"])


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, in the memory layout of the originals."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


@torch.no_grad()
def put_back(saved: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Write saved values into the tensors of the same names. Raises: ConfigError if names or shapes differ."""
    wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    given = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    if given != wanted:
        odd = sorted(name for name in given.keys() | wanted.keys() if given.get(name) != wanted.get(name))
        raise ConfigError(
            f"the checkpoint is of another network, number of classes or freezing: {len(odd)} tensors differ "
            f"({', '.join(odd[:3])}); resume with the config that wrote it"
        )
    for name, tensor in tensors.items():
        tensor.copy_(saved[name])
