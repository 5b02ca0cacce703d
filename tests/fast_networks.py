"""Fast networks with random weights, and files of them as their sources saved them."""

import torch
from torch import nn

from vtray.style.fast.msgnet import MsgNet
from vtray.style.fast.transformer import TransformerNet

ENGINES = ("feedforward", "msgnet")


def seeded(make, seed=0):
    """A network in eval mode whose every tensor is drawn anew, norms included."""
    random = torch.Generator().manual_seed(seed)
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 1 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=random) * spread)
    return network.eval().requires_grad_(False)


def tiny_transformer(seed=0):
    return seeded(lambda: TransformerNet(4), seed)


def tiny_msgnet(seed=0):
    return seeded(lambda: MsgNet(2, width=8, num_blocks=2), seed)


def content(batch=1, height=24, width=28, seed=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


class UpstreamMsgNet(nn.Module):
    """The module names of the source's `Net`: encoder and CoMatch registered twice, BGR, norms with statistics."""

    def __init__(self, ours: MsgNet) -> None:
        super().__init__()
        self.model1, self.ins = ours.encoder, ours.comatch
        self.model = nn.Sequential(self.model1, self.ins, *ours.decoder)


def old_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """As DataParallel before torch 0.4 saved them: with prefix and with statistics under every instance norm."""
    tensors = dict(network.state_dict())
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, nn.InstanceNorm2d):
            tensors[f"{name}.running_mean"] = torch.full((module.num_features,), 3.0)
            tensors[f"{name}.running_var"] = torch.ones(module.num_features)
    return {f"module.{key}": tensor for key, tensor in tensors.items()}
