"""How much memory a training takes, before it starts: an estimate that is rather too high than too low."""

import torch
from torch import nn

from vtray.classify.backbone import Classifier
from vtray.classify.prefix import evaluating
from vtray.classify.preprocessing import Preprocessing

COPIES = 4  # of the weights: themselves, their gradients, and two moments of the optimizer
FLOAT = 4


def weight_bytes(classifier: Classifier) -> int:
    """Weights, gradients and optimizer, in fp32."""
    return COPIES * FLOAT * sum(parameter.numel() for parameter in classifier.parameters())


def image_bytes(classifier: Classifier, preprocessing: Preprocessing) -> int:
    """What the forward pass of one image leaves for the backward pass, if nothing is frozen: all outputs, fp32."""
    total = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal total
        total += FLOAT * output.numel() if isinstance(output, torch.Tensor) else 0

    leaves = [module for module in classifier.network.modules() if next(module.children(), None) is None]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    side = preprocessing.crop_px
    try:
        with torch.no_grad(), evaluating(classifier):
            classifier(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return total
