"""A torchvision network seen as ordered named stages and a head, to be frozen, cached and re-headed by stage.

B images, C channels, H rows, W columns, K classes, D features.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtray.classify.loading import head_rows, in_todays_names, require_fit, require_head, without
from vtray.classify.networks import build_network, take_image_size
from vtray.classify.stages import run_steps, staging_of
from vtray.errors import ConfigError


class Classifier(nn.Module):
    """Called with pixels, float (B, 3, H, W) normalised for the weights; gives logits (B, K).

    `network` is torchvision's module with its own parameter names and there are no other parameters.
    """

    def __init__(self, network: nn.Module, *, backbone: str) -> None:
        super().__init__()
        self.network = network
        self.backbone = backbone
        self.frozen: frozenset[int] = frozenset()  # set by freezing.freeze
        self.added_dropout = 0.0  # before the head of a network that has no dropout of its own
        self._staging = staging_of(network)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages in order, without the head."""
        return tuple(stage.name for stage in self._staging.stages)

    @property
    def last_boundary(self) -> int:
        """The largest `start` and `stop`: behind all stages and, where one follows, behind the pooling, (B, D)."""
        return len(self._staging.stages) + bool(self._staging.pool)

    def forward(self, inputs: Tensor, *, start: int = 0) -> Tensor:
        """Logits (B, K) from pixels, or from what `prefix(pixels, start)` gave, which is left as it was."""
        features = self._run(inputs, start, self.last_boundary)
        features = run_steps(self.network, self._staging.dropout, features)
        features = functional.dropout(features, self.added_dropout, self.training)
        return run_steps(self.network, self._staging.tail, self.head(features))

    def prefix(self, pixels: Tensor, stop: int) -> Tensor:
        """The activations behind the first `stop` stages, 1 to last_boundary: always one tensor, (B, ...)."""
        if stop < 1:
            raise ValueError(f"stop {stop} is not allowed for {self.backbone}; choose 1 to {self.last_boundary}")
        return self._run(pixels, 0, stop)

    def features(self, inputs: Tensor, *, start: int = 0) -> Tensor:
        """What the head's rows multiply, (B, D), before dropout; for a convolution the mean over H and W."""
        features = self._run(inputs, start, self.last_boundary)
        return features.mean((2, 3)) if features.ndim == 4 else features

    def stage_parameters(self, index: int) -> list[tuple[str, nn.Parameter]]:
        """The parameters of a stage by their names in the network; each belongs to one stage or to the head."""
        inside = ((path, module) for path, module in self._owned(index) if isinstance(module, nn.Module))
        named = [each for path, module in inside for each in module.named_parameters(prefix=path)]
        return named + [(path, each) for path, each in self._owned(index) if isinstance(each, nn.Parameter)]

    def stage_buffers(self, index: int) -> list[tuple[str, Tensor]]:
        """The buffers of a stage, such as running statistics, by their names in the network."""
        inside = ((path, module) for path, module in self._owned(index) if isinstance(module, nn.Module))
        return [each for path, module in inside for each in module.named_buffers(prefix=path)]

    def stage_modules(self, index: int) -> tuple[nn.Module, ...]:
        """The modules whose mode (train or eval) is that of the stage."""
        return tuple(each for _, each in self._owned(index) if isinstance(each, nn.Module))

    def head_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The head's weight and, in most networks, bias, by their names in the network."""
        return [(f"{self.head_name}.{name}", each) for name, each in self.head.named_parameters()]

    @property
    def head_name(self) -> str:
        """The head's path in the network, such as classifier.1."""
        return self._staging.head

    @property
    def head(self) -> nn.Linear | nn.Conv2d:
        """The last classifying layer; a Conv2d is 1 x 1."""
        head = self.network.get_submodule(self.head_name)
        assert isinstance(head, nn.Linear | nn.Conv2d)
        return head

    @property
    def num_classes(self) -> int:
        return self.head.weight.shape[0]

    @property
    def num_features(self) -> int:
        """D, the length of the head's rows."""
        return self.head.weight.shape[1]

    def replace_head(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Put another layer of the same kind and number of features in the head's place."""
        head = self.head
        if type(layer) is not type(head) or layer.weight.shape[1:] != head.weight.shape[1:]:
            raise ValueError(f"{layer} cannot be the head of {self.backbone}; it takes the place of {head}")
        self.network.set_submodule(self.head_name, layer)

    def set_dropout(self, probability: float) -> None:
        """The dropout of the classifying layers, or before the head if they have none."""
        steps = (*(step for stage in self._staging.stages for step in stage.steps), *self._staging.dropout)
        modules = [self.network.get_submodule(step) for step in steps if isinstance(step, str)]
        dropouts = [module for module in modules if isinstance(module, nn.Dropout)]
        for module in dropouts:
            module.p = probability
        self.added_dropout = 0.0 if dropouts else probability

    def train(self, mode: bool = True) -> Self:
        """As nn.Module.train, but frozen stages stay in eval mode; what is behind the stages follows `mode`."""
        super().train(mode)
        for index in self.frozen:
            for module in self.stage_modules(index):
                module.eval()
        return self

    def _run(self, inputs: Tensor, start: int, stop: int) -> Tensor:
        parts = (*(stage.steps for stage in self._staging.stages), self._staging.pool)
        if not 0 <= start <= self.last_boundary or stop > self.last_boundary:
            raise ValueError(
                f"stages {start} to {stop} of {self.backbone}: there are 0 to {self.last_boundary} "
                f"({', '.join(self.stage_names)})"
            )
        for steps in parts[start:stop]:
            inputs = run_steps(self.network, steps, inputs)
        return inputs

    def _owned(self, index: int) -> list[tuple[str, nn.Module | nn.Parameter]]:
        """The modules and parameters of which a stage is made, with their paths."""
        return [(path, attrgetter(path)(self.network)) for path in self._staging.stages[index].owned]


# making one ------------------------------------------------------------------------------------------------------


def build_classifier(backbone: str, *, num_classes: int, dropout: float | None = None) -> Classifier:
    """A classifier with random weights from torch's global generator, in train mode.

    dropout: probability, 0 to 1, before the classifying layers; None leaves what torchvision has there. A network
    that has none there gets one before its head.
    Raises: ConfigError for an unknown backbone, with near matches, and for numbers out of range.
    """
    if dropout is not None and not 0 <= dropout <= 1:
        raise ConfigError(f"dropout {dropout} is not allowed; choose a probability, 0 to 1")
    classifier = Classifier(build_network(backbone, num_classes=num_classes), backbone=backbone)
    if dropout is not None:
        classifier.set_dropout(dropout)
    return classifier


def load_weights_into(classifier: Classifier, tensors: Mapping[str, Tensor], *, uri: str, head: bool) -> None:
    """Copy the tensors of the file at `uri` into the classifier, its head only if `head`; nothing if not all fit.

    A ViT becomes one for the image size of the tensors' positions.
    Raises: WeightsError with the names that are missing, unexpected or of another shape, and which of
    torchvision's models would fit instead.
    """
    given, name = in_todays_names(tensors), classifier.head_name
    take_image_size(classifier.network, given)
    state = classifier.network.state_dict()
    subject = f"{uri}: no weights of {classifier.backbone}"
    require_fit(without(state, name), without(given, name), subject=subject)
    if head:
        require_head(given, head_name=name, num_classes=classifier.num_classes, uri=uri)
        require_fit(state, given, subject=subject)
    with torch.no_grad():
        for key, target in (state if head else without(state, name)).items():
            target.copy_(given[key])


def num_classes_in(tensors: Mapping[str, Tensor], classifier: Classifier) -> int | None:
    """For how many classes the head among the tensors of a weights file is, or None if they have no head."""
    return head_rows(tensors, head_name=classifier.head_name)
