"""Which arithmetic trains this network fastest on this device: fp32 or bf16, NCHW or NHWC, found by trying.

bf16 is autocast: weights, their updates and the loss stay in fp32.
"""

import copy
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from vtray.classify.backbone import Classifier

Precision = Literal["fp32", "bf16"]
Layout = Literal["nchw", "nhwc"]

TEXTBOOK = "fp32 nchw"
WORTH = 1.05  # how much faster than the textbook's another choice must be
HOPELESS = 2.0  # a choice whose first step takes this many times the shortest is not tried again
WARM_UP_S = 0.2  # what a first step may take only because it is the first
BUDGET_S = 6.0

_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_LAYOUTS: tuple[Layout, ...] = ("nchw", "nhwc")
_FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What to train with, and the seconds per step of all that was tried, by "precision layout"."""

    precision: Precision
    layout: Layout
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def speedup(self) -> float | None:
        """How many times as fast as fp32 in NCHW; None if that was not tried."""
        chosen, textbook = self.seconds.get(f"{self.precision} {self.layout}"), self.seconds.get(TEXTBOOK)
        return textbook / chosen if textbook and chosen else None


def choose(
    classifier: Classifier,
    inputs: Tensor,
    *,
    precision: Precision | None = None,
    layout: Layout | None = None,
    start: int = 0,
) -> Numerics:
    """The fastest arithmetic for forward and backward passes of these inputs.

    inputs: floating pixels (B, 3, H, W), or activations at boundary `start`: a training batch on the device that
    will train (on a CPU 16 images tell enough). precision, layout: what is given is kept and not tried.
    Works on copies: weights, buffers and random generators stay as they are. The textbook's fp32 in NCHW is kept
    unless another choice is 5 % faster. Times differ from run to run: who resumes a training keeps its choice.
    """
    precisions = _PRECISIONS if precision is None else (precision,)
    layouts = _LAYOUTS if layout is None else (layout,)
    if len(precisions) == len(layouts) == 1:
        return Numerics(precision=precisions[0], layout=layouts[0])
    with torch.random.fork_rng(devices=[inputs.device] if inputs.device.type == "cuda" else []):
        contenders = _contenders(classifier, inputs, itertools.product(precisions, layouts), start)
        _race(contenders)
    seconds = {each.name: each.median for each in contenders}
    winner = min(contenders, key=lambda each: each.median * (1.0 if each.name == TEXTBOOK else WORTH))
    return Numerics(precision=winner.precision, layout=winner.layout, seconds=seconds)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The context in which a forward pass runs with that precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def in_layout(tensor: Tensor, layout: Layout) -> Tensor:
    """The tensor with its bytes in that order; only images and feature maps (4 axes) have one."""
    return tensor.contiguous(memory_format=_FORMATS[layout]) if tensor.ndim == 4 else tensor


def set_layout(classifier: Classifier, layout: Layout) -> None:
    """Put the bytes of the weights into that order; their values stay."""
    classifier.to(memory_format=_FORMATS[layout])


@dataclass(kw_only=True, eq=False)
class _Contender:
    """One choice with its own copy of the network."""

    precision: Precision
    layout: Layout
    classifier: Classifier
    inputs: Tensor
    start: int
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.precision} {self.layout}"

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def step(self) -> float:
        """Seconds of one forward and backward pass."""
        device = self.inputs.device
        _wait_for(device)
        started = time.perf_counter()
        with autocast(device, self.precision):
            logits = self.classifier(self.inputs, start=self.start)
        functional.cross_entropy(logits.float(), logits.new_zeros(len(logits), dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
        self.classifier.zero_grad(set_to_none=True)
        _wait_for(device)
        return time.perf_counter() - started


def _contenders(
    classifier: Classifier, inputs: Tensor, choices: Iterator[tuple[Precision, Layout]], start: int
) -> list[_Contender]:
    copies: dict[Layout, Classifier] = {}
    contenders = []
    for precision, layout in choices:
        if layout not in copies:
            copies[layout] = copy.deepcopy(classifier).train()
            set_layout(copies[layout], layout)
        ready = in_layout(inputs.detach().float(), layout)
        contenders.append(
            _Contender(precision=precision, layout=layout, classifier=copies[layout], inputs=ready, start=start)
        )
    return contenders


def _race(contenders: Sequence[_Contender], *, rounds: int = 5) -> None:
    """Time the choices in turns, so that other work on the machine hits all alike; first steps only warm up."""
    started = time.perf_counter()
    for each in contenders:
        each.seconds = [each.step()]
    best = min(each.median for each in contenders)
    running = [each for each in contenders if each.median < max(HOPELESS * best, WARM_UP_S)]
    for number in range(rounds):
        if number and time.perf_counter() - started > BUDGET_S:
            return
        for each in running:
            seconds = each.step()
            each.seconds = [*each.seconds, seconds] if number else [seconds]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
