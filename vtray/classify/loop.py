"""The training loop: plain torch, and the same gradients on any number of processes.

Losses are means over the global batch: all batches, of all ranks, that make up one optimizer step. A state taken
between two epochs and loaded elsewhere goes on with the same bits. B images, K classes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from vtray.classify.averaging import WeightAverage, copies, put_back
from vtray.classify.backbone import Classifier
from vtray.classify.finite_guard import FiniteGuard, Place
from vtray.classify.freezing import frozen_digest, trained_tensors
from vtray.classify.mixing import mix_batch
from vtray.classify.numerics import autocast, in_layout, set_layout
from vtray.classify.parameters import build_optimizer, parameter_groups
from vtray.classify.preprocessing import Preprocessing
from vtray.classify.train_spec import Batch, EpochMetrics, Ranks, TrainSpec
from vtray.errors import ConfigError
from vtray.seeding import rng_for, seed_for

__all__ = ["Batch", "EpochMetrics", "Ranks", "TrainSpec", "Trainer"]

CHECK_EVERY = 16  # optimizer steps between two looks at the loss on an accelerator, as each look waits for it
LONE = Ranks()


class Trainer:
    """A training under way. Freeze the classifier before; it goes to the device and is trained in place.

    wrap: makes it distributed, as DistributedDataParallel does. preprocessing: of the weights, for pixels.
    """

    def __init__(
        self,
        classifier: Classifier,
        spec: TrainSpec,
        *,
        preprocessing: Preprocessing,
        device: str | torch.device = "cpu",
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        ranks: Ranks = LONE,
    ) -> None:
        self.classifier = classifier.to(device)
        self.spec = spec
        self.ranks = ranks
        self.device = torch.device(device)
        self.updates = 0  # optimizer steps done
        self._preprocessing = preprocessing
        set_layout(self.classifier, spec.layout)
        self.frozen_digest = frozen_digest(self.classifier)
        self._average = None if spec.ema_decay is None else WeightAverage(self.classifier, decay=spec.ema_decay)
        self._class_weights = (
            None if spec.class_weights is None else torch.tensor(spec.class_weights, device=device)
        )
        self._optimizer = self._build_optimizer()
        self._model = wrap(self.classifier) if wrap else self.classifier

    @property
    def evaluation_model(self) -> Classifier:
        """What to evaluate and to keep, in eval mode: the averaged weights if there are any, else the trained."""
        return (self._average.classifier if self._average else self.classifier).eval()

    def train_epoch(self, epoch: int, batches: Iterable[Batch]) -> EpochMetrics:
        """Train on exactly steps_per_epoch batches of this rank; epochs count from 0.

        Dropout draws from torch's global generators, seeded with spec.seed, epoch and rank; mixing from spec.seed,
        epoch and batch. A restart at any epoch therefore repeats the same bits (on a CPU with as many threads).
        Raises: TrainingDiverged, with image ids, when loss, gradient or weights are not finite; ValueError if the
        batches end early or the epoch is not the next one.
        """
        started = time.perf_counter()
        self._check_order(epoch)
        torch.manual_seed(seed_for(self.spec.seed, "epoch", epoch, self.ranks.rank))
        self._model.train()
        guard = FiniteGuard(every=1 if self.device.type == "cpu" else CHECK_EVERY)
        sums = self._zeros()
        for first, group in self._groups(epoch, iter(batches)):
            factor = self.spec.factor(self.updates)
            sums += self.train_step(group, factor=factor, place=(epoch, first), guard=guard)
        self._agree_on_buffers()
        norm = nn.utils.get_total_norm(self._trained())
        guard.watch("norm of the weights", norm, (epoch, self.spec.steps_per_epoch - 1), group)
        guard.check()
        loss, weight, correct, images = self.ranks.sum(sums).tolist()
        return EpochMetrics(
            loss=loss / weight,
            accuracy=correct / images,
            lr=self.spec.lr * factor,
            images=int(images),
            seconds=time.perf_counter() - started,
        )

    def train_step(
        self, batches: Sequence[Batch], *, factor: float, place: Place, guard: FiniteGuard | None = None
    ) -> Tensor:
        """One optimizer step from these batches, at `factor` of the learning rates; place: of the first batch.

        Returns this rank's sums, float64 (4,): weighted losses, weights, correctly classified images, images.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._optimizer.zero_grad(set_to_none=True)
        weight, sums = self._global_weight(batches), self._zeros()
        epoch, first = place
        for i, batch in enumerate(batches):
            with self._exchange(last=i == len(batches) - 1):
                loss, of_batch = self._forward(batch, (epoch, first + i))
                # DistributedDataParallel takes the mean over ranks, but their sums belong together
                (loss * (self.ranks.size / weight)).backward()  # type: ignore[no-untyped-call]
            sums += of_batch
            if guard:
                guard.watch("loss", sums[0], (epoch, first + i), [batch])
        norm = self._clip()
        if guard:
            guard.watch("norm of the gradient", norm, place, batches)
            guard.check_if_due()
        self._optimizer.step()
        if self._average:
            self._average.update()
        self.updates += 1
        return sums

    @torch.no_grad()
    def evaluate_step(self, batches: Sequence[Batch], *, place: Place) -> Tensor:
        """The sums that `train_step` would return; trains nothing, but batch-norm statistics move."""
        epoch, first = place
        each = [self._forward(batch, (epoch, first + i))[1] for i, batch in enumerate(batches)]
        return torch.stack(each).sum(0)

    def state_dict(self) -> dict[str, Any]:
        """All that a Trainer of the same spec and weights needs to go on: plain values, and tensors on the CPU.

        Of frozen tensors it holds only the digest. At the end of an epoch it is the same on every rank.
        """
        return {
            "updates": self.updates,
            "frozen": self.frozen_digest,
            "tensors": copies(trained_tensors(self.classifier)),
            "optimizer": _on_cpu(self._optimizer.state_dict()),
            "average": self._average.state_dict() if self._average else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises: ConfigError if it is of another network or freezing."""
        if state["frozen"] != self.frozen_digest:
            raise ConfigError(
                "the checkpoint is of other frozen weights; resume with the weights and freezing it began with"
            )
        if (state["average"] is None) != (self._average is None):
            raise ConfigError("the checkpoint is of another ema_decay; resume with the config that wrote it")
        put_back(state["tensors"], trained_tensors(self.classifier))
        self._optimizer.load_state_dict(_on_cpu(state["optimizer"]))  # a copy, as torch trains on what it is given
        if self._average:
            self._average.load_state_dict(state["average"])
        self.updates = int(state["updates"])

    # one step ----------------------------------------------------------------------------------------------------

    def _forward(self, batch: Batch, place: Place) -> tuple[Tensor, Tensor]:
        """The loss of one batch, summed over its images, and the batch's sums."""
        labels = batch.labels.to(self.device, non_blocking=True)
        inputs, targets = self._mixed(self.inputs_of(batch), labels, place)
        with autocast(self.device, self.spec.precision):
            logits = self._model(in_layout(inputs, self.spec.layout), start=self.spec.start)
        loss = functional.cross_entropy(
            logits.float(),
            targets,
            weight=self._class_weights,
            label_smoothing=self.spec.label_smoothing,
            reduction="sum",
        )
        correct = (logits.detach().argmax(1) == labels).sum()
        images = torch.full_like(correct, len(labels))
        return loss, torch.stack([loss.detach().double(), self._weight_of(labels), correct, images])

    def inputs_of(self, batch: Batch) -> Tensor:
        """What the network takes of a batch, floating, on the device: normalised pixels, or activations."""
        inputs = batch.inputs.to(self.device, non_blocking=True)
        return self._preprocessing.pixels(inputs) if self.spec.start == 0 else inputs.float()

    def _mixed(self, inputs: Tensor, labels: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Inputs and targets: class indexes (B,), or shares (B, K) if the batch is mixed."""
        if not self.spec.mixes:
            return inputs, labels
        shares = functional.one_hot(labels, self.classifier.num_classes).float()
        mixed, targets = mix_batch(inputs, shares, self.spec.mixes, rng_for(self.spec.seed, "mix", *place))
        return (inputs, labels) if mixed is inputs else (mixed, targets)

    def _global_weight(self, batches: Sequence[Batch]) -> Tensor | float:
        """What the loss is divided by: the weight of all images of the step, which mixing leaves as it is."""
        if self.ranks.size == 1 and self._class_weights is None:
            return float(sum(len(batch.labels) for batch in batches))
        labels = torch.cat([batch.labels for batch in batches]).to(self.device, non_blocking=True)
        return self.ranks.sum(self._weight_of(labels).float().reshape(1))

    def _weight_of(self, labels: Tensor) -> Tensor:
        if self._class_weights is None:
            return torch.full((), len(labels), dtype=torch.float64, device=self.device)
        return self._class_weights[labels].double().sum()

    def _exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients once per optimizer step, in the backward pass of its last batch."""
        if last or not isinstance(self._model, DistributedDataParallel):
            return nullcontext()
        return self._model.no_sync()

    def _clip(self) -> Tensor:
        """The norm of the gradient, which is scaled down to clip_norm if it is larger."""
        norm = nn.utils.get_total_norm([each.grad for each in self._trained() if each.grad is not None])
        if self.spec.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._trained(), self.spec.clip_norm, norm)
        return norm

    # around the steps --------------------------------------------------------------------------------------------

    def _groups(self, epoch: int, batches: Iterator[Batch]) -> Iterator[tuple[int, list[Batch]]]:
        """The batches of each optimizer step, and the number of the first."""
        steps = self.spec.steps_per_epoch
        for first in range(0, steps, self.spec.accumulate):
            wanted = min(self.spec.accumulate, steps - first)
            group = list(islice(batches, wanted))
            if len(group) < wanted:
                raise ValueError(
                    f"epoch {epoch}: the batches ended after {first + len(group)} of {steps}; "
                    "give a fresh iterator for each epoch"
                )
            yield first, group

    @torch.no_grad()
    def _agree_on_buffers(self) -> None:
        """Give every rank the mean of the batch-norm statistics, so that all evaluate and store the same."""
        if self.ranks.size == 1:
            return
        carriers = [self.classifier, *([self._average.classifier] if self._average else [])]
        tensors = [tensor for carrier in carriers for tensor in trained_tensors(carrier).values()]
        buffers = [each for each in tensors if not isinstance(each, nn.Parameter) and each.is_floating_point()]
        if not buffers:
            return
        means = self.ranks.sum(torch.cat([buffer.flatten() for buffer in buffers])) / self.ranks.size
        ends = torch.tensor([buffer.numel() for buffer in buffers]).cumsum(0)
        for buffer, mean in zip(buffers, torch.tensor_split(means, ends[:-1]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def _check_order(self, epoch: int) -> None:
        done, inside = divmod(self.updates, self.spec.updates_per_epoch)
        if inside or epoch != done:
            raise ValueError(f"epoch {epoch} does not follow {self.updates} optimizer steps; epoch {done} is next")

    def _build_optimizer(self) -> torch.optim.Optimizer:
        groups = parameter_groups(
            self.classifier,
            lr=self.spec.lr,
            head_lr_factor=self.spec.head_lr_factor,
            weight_decay=self.spec.weight_decay,
            layer_decay=self.spec.layer_decay,
        )
        return build_optimizer(groups, optimizer=self.spec.optimizer, momentum=self.spec.momentum)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _zeros(self) -> Tensor:
        return torch.zeros(4, dtype=torch.float64, device=self.device)


def _on_cpu(value: Any) -> Any:
    """A copy of nested mappings and sequences with all tensors on the CPU, in their memory layout."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_cpu(each) for key, each in value.items()}
    return type(value)(map(_on_cpu, value)) if isinstance(value, list | tuple) else value
