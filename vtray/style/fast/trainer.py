"""One step of training a fast network: crops in, the losses of stylize on what it makes of them, weights moved.

B images, C channels, H rows, W columns.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vtray.classify.numerics import autocast, in_layout
from vtray.seeding import rng_for, seed_for
from vtray.style.fast.msgnet import MsgNet
from vtray.style.fast.task import FastTask, NetworkSpec, State
from vtray.style.fast.transformer import TransformerNet
from vtray.style.features import FeatureExtractor
from vtray.style.losses import gram_matrix
from vtray.style.objective import Objective, Region
from vtray.style.pixels import resized, to_pixels
from vtray.style.targets import StyleTargets, style_size
from vtray.style.work import StyleImage

LEVELS = 255.0
RIDGE = 0.01  # of the mean eigenvalue: directions that no style has stay bounded
GRAM_STEPS = 10  # so old may the Gram matrix of a style be in training
GRAIN = 32.0  # what the last random weights are multiplied by
SUMS = ("loss", "content", "style", "tv")

Wrap = Callable[[nn.Module], nn.Module]


def new_network(spec: NetworkSpec, *, seed: int) -> TransformerNet | MsgNet:
    """A network with the random weights that training begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "initial weights"))
        if spec.engine == "feedforward":
            network = TransformerNet(spec.width)
            _begin_as_grey(network.deconv3.conv2d)
            return network
        many = MsgNet(spec.filters, width=spec.width, num_blocks=spec.num_blocks)
        _begin_as_grey(many.last)
        return many


@torch.no_grad()
def _begin_as_grey(last: nn.Conv2d) -> None:
    """The first results are grey with some grain instead of black: that alone takes a hundred steps to learn."""
    assert last.bias is not None
    last.weight.mul_(GRAIN)
    last.bias.fill_(LEVELS / 2)


@torch.no_grad()
def begin_as_identity(network: MsgNet, styles: Sequence[Tensor]) -> None:
    """CoMatch begins with the inverse of the mean Gram matrix of the styles, each (1, 3, H, W) in 0 to 1.

    Features then pass it unchanged but for what sets a style apart from the mean. The source's small positive
    numbers make all channels and all styles alike, which takes long to unlearn.
    """
    grams = [network.style_gram(pixels * LEVELS)[0].double() for pixels in styles]
    mean = torch.stack(grams).mean(0)
    ridge = RIDGE * mean.trace() / len(mean) * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    network.comatch.weight.copy_(torch.linalg.inv(mean + ridge)[None])


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The style of one crop: which, and its longer side."""

    style: StyleImage
    size_px: int

    @property
    def name(self) -> str:
        return f"{self.style.name}@{self.size_px}"


class _Painter(nn.Module):
    """The network as one call, which is what DistributedDataParallel needs: pixels in 0 to 1."""

    def __init__(self, network: TransformerNet | MsgNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, content: Tensor, grams: Tensor | None) -> Tensor:
        levels = content * LEVELS
        painted: Tensor = self.network(levels) if grams is None else self.network(levels, grams)
        return painted.float() / LEVELS


@dataclass(kw_only=True, eq=False)
class FastTrainer:
    """A network on its way, as one of several processes: number `rank`.

    wrap: what makes a model distributed, None for a lone process.
    """

    task: FastTask
    device: str = "cpu"
    wrap: Wrap | None = None
    rank: int = 0
    done: int = 0
    network: TransformerNet | MsgNet = field(init=False)
    _grams: dict[str, tuple[int, Tensor]] = field(default_factory=dict, init=False)  # made after how many steps

    def __post_init__(self) -> None:
        task = self.task
        self.extractor = FeatureExtractor.load(task.features, device=self.device)
        network = new_network(task.network, seed=task.seed).to(self.device)
        if isinstance(network, MsgNet):
            drawn = [Drawn(style=style, size_px=task.style_px[0]) for style in task.styles]
            begin_as_identity(network, [style_pixels(each, self.extractor, self.device) for each in drawn])
        if task.layout == "nhwc":
            network = network.to(memory_format=torch.channels_last)
        self.network = network.train()
        self.targets = {
            style.name: StyleTargets(extractor=self.extractor, styles=(style,), layers=task.features.style_layers)
            for style in task.styles
        }
        painter = _Painter(self.network)
        self._painter = self.wrap(painter) if self.wrap else painter
        self._optimizer = torch.optim.Adam(_groups(self.network, lr=task.steps.lr))

    def drawn(self, number: int) -> Drawn:
        """The style of a crop, counted over all steps: each style comes once in a round, in an order and at sizes
        of the round's own."""
        styles, sizes = self.task.styles, self.task.style_px
        turn, place = divmod(number, len(styles))
        rng = rng_for(self.task.seed, "styles", turn)
        style = styles[int(rng.permutation(len(styles))[place])]
        return Drawn(style=style, size_px=sizes[int(rng.integers(0, len(sizes), len(styles))[place])])

    def step(self, crops: Tensor) -> Tensor:
        """One step on this worker's crops, uint8 (b, 3, H, W); returns the sums of SUMS over them, float64."""
        task, first = self.task, self.done * self.task.steps.batch_size + self.rank * len(crops)
        drawn = [self.drawn(first + place) for place in range(len(crops))]
        content = crops.to(self.device).float() / LEVELS
        objective = self.objective(content, drawn)
        grams = self._grams_of(drawn) if isinstance(self.network, MsgNet) else None
        with autocast(torch.device(self.device), task.precision):
            painted = self._painter(in_layout(content, task.layout), grams)
        terms = objective(painted.float())
        self._optimizer.zero_grad(set_to_none=True)
        terms.total.mean().backward()  # type: ignore[no-untyped-call]
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * task.steps.factor(self.done)
        self._optimizer.step()
        self.done += 1
        each = torch.stack([terms.total, terms.content, terms.style, terms.tv])
        return each.detach().double().sum(1)

    def objective(self, content: Tensor, drawn: Sequence[Drawn]) -> Objective:
        """What is made small: content and noise of these pixels, and for each the style that is drawn for it."""
        found = [self.targets[each.style.name].blend(each.size_px) for each in drawn]
        grams = {layer: torch.cat([each[layer] for each in found]) for layer in self.task.features.style_layers}
        return Objective.of(
            content,
            (Region(grams=grams),),
            extractor=self.extractor,
            features=self.task.features,
            loss=self.task.loss,
        )

    @torch.no_grad()
    def gram_of(self, drawn: Drawn) -> Tensor:
        """What stands for a style in a `msgnet` with the weights of now, (1, C, C), float32."""
        assert isinstance(self.network, MsgNet)
        pixels = in_layout(style_pixels(drawn, self.extractor, self.device), self.task.layout)
        with autocast(torch.device(self.device), self.task.precision):
            features = self.network.encoder(pixels * LEVELS)
        return gram_matrix(features)

    def _grams_of(self, drawn: Sequence[Drawn]) -> Tensor:
        """Those of a batch, (b, C, C), with the weights of a few steps ago: every crop can have another style at
        hardly any cost. The source has one style in a step and a gradient through its Gram matrix."""
        for each in drawn:
            made, _ = self._grams.get(each.name, (-GRAM_STEPS, None))
            if self.done - made >= GRAM_STEPS:
                self._grams[each.name] = (self.done, self.gram_of(each))
        return torch.cat([self._grams[each.name][1] for each in drawn])

    def state_dict(self) -> State:
        """All that a trainer of the same task needs to go on; a copy."""
        return {
            "done": self.done,
            "network": {name: each.detach().cpu().clone() for name, each in self.network.state_dict().items()},
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "grams": dict(self._grams),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch trains on what it is given
        self._grams = {name: (made, gram.to(self.device)) for name, (made, gram) in state["grams"].items()}
        self.done = int(state["done"])


def _groups(network: TransformerNet | MsgNet, *, lr: float) -> list[dict[str, Any]]:
    """Parameter groups: CoMatch moves by the same share of its size as a convolution does, whatever its unit."""
    if not isinstance(network, MsgNet):
        return [{"params": list(network.parameters()), "initial_lr": lr, "lr": lr}]
    weight = network.comatch.weight
    usual = (3 * weight.shape[-1]) ** -0.5  # of a convolution with as many inputs
    own = lr * float(weight.detach().square().mean().sqrt()) / usual
    others = [each for each in network.parameters() if each is not weight]
    return [
        {"params": others, "initial_lr": lr, "lr": lr},
        {"params": [weight], "initial_lr": own, "lr": own},
    ]


def style_pixels(drawn: Drawn, extractor: FeatureExtractor, device: str) -> Tensor:
    """A style image at a size, (1, 3, H, W) in 0 to 1: the one that its Gram matrices are made of."""
    size = style_size(drawn.style, drawn.size_px, least_px=extractor.min_side_px)
    return to_pixels([resized(drawn.style.image, size)], device)
