"""What a training will cost, before it starts: batches, bytes of stored rows, and time from a short probe."""

from dataclasses import dataclass, replace

import torch

from pipelines.finetune_config import FinetuneConfig
from pipelines.finetune_rows import Store, store_of, stored_bytes
from pipelines.finetune_work import Device, FinetuneWork
from pipelines.machine import this_machine
from vtray.classify.backbone import Classifier
from vtray.classify.freezing import freeze
from vtray.classify.numerics import Numerics, choose
from vtray.classify.phases import Phase
from vtray.classify.prefix import cached_boundary
from vtray.report.numbers import bytes_text

PROBED = 16


@dataclass(frozen=True, kw_only=True)
class PhaseEstimate:
    """One phase: its batches, what is stored for it, and its time on one worker here, validation left out."""

    name: str
    epochs: int
    steps: int
    frozen: int
    stages: int
    stored: int | None
    arithmetic: str
    seconds: float

    def __str__(self) -> str:
        rows = "images loaded in every epoch" if self.stored is None else f"{bytes_text(self.stored)} stored"
        return (
            f"  {self.name:12} {self.epochs} epochs of {self.steps} steps, {self.frozen} of {self.stages} stages "
            f"frozen, {rows}, {self.arithmetic}, about {self.seconds / 60:.1f} min"
        )


@dataclass(frozen=True, kw_only=True)
class FinetuneEstimate:
    """A training that has not begun."""

    train: int
    val: int
    test: int
    classes: int
    carved: bool
    stages: tuple[str, ...]
    phases: tuple[PhaseEstimate, ...]

    def table(self) -> str:
        """Lines for the terminal."""
        carved = " (val taken from train)" if self.carved else ""
        total = sum(phase.seconds for phase in self.phases) / 60
        return "\n".join(
            [
                f"images    train {self.train}, val {self.val}, test {self.test}{carved}, {self.classes} classes",
                f"stages    {', '.join(self.stages)}, head",
                *map(str, self.phases),
                f"total     about {total:.1f} min of steps on one worker like this machine",
            ]
        )


def estimate(config: FinetuneConfig) -> FinetuneEstimate:
    """List the input, load the weights and time a few steps here. Raises: VtrayError as the run itself would."""
    device: Device = "cuda" if config.use_gpu is not False and torch.cuda.is_available() else "cpu"
    work = FinetuneWork.of(config, device=device)
    classifier = work.pretrained()
    work.with_head(classifier, None)
    torch.set_num_threads(config.threads or int(this_machine().num_cpus))
    return FinetuneEstimate(
        train=len(work.examples.train),
        val=len(work.examples.val),
        test=len(work.examples.test),
        classes=len(work.classes),
        carved=work.examples.carved,
        stages=work.stage_names,
        phases=tuple(_estimate(work, phase, classifier) for phase in work.phases),
    )


def _estimate(work: FinetuneWork, phase: Phase, classifier: Classifier) -> PhaseEstimate:
    store = store_of(work, phase, classifier)
    sampling = work.sampling(len(work.examples.train))
    numerics = _time(work, phase, classifier, store)
    chosen = f"{numerics.precision} {numerics.layout}"
    per_image = numerics.seconds[chosen] / PROBED
    return PhaseEstimate(
        name=phase.name,
        epochs=phase.epochs,
        steps=sampling.steps_per_epoch,
        frozen=len(phase.frozen),
        stages=len(work.stage_names),
        stored=stored_bytes(work, store, classifier) if store.train else None,
        arithmetic=chosen,
        seconds=phase.epochs * sampling.steps_per_epoch * sampling.batch_size * per_image,
    )


def _time(work: FinetuneWork, phase: Phase, classifier: Classifier, store: Store) -> Numerics:
    """The probe of the run itself; where precision and layout are set, the other layout is timed for company."""
    freeze(classifier, phase.frozen)
    side = work.preprocessing.crop_px
    inputs = torch.randn(PROBED, 3, side, side, generator=torch.Generator().manual_seed(0))
    start = cached_boundary(classifier, store.num_frozen) if store.train else 0
    with torch.no_grad():
        inputs = classifier.eval().prefix(inputs, start) if start else inputs
    config = work.config
    precision = None if config.precision == "auto" else config.precision
    layout = None if config.layout == "auto" or precision else config.layout
    placed = inputs.to(work.device)
    found = choose(classifier.to(work.device), placed, precision=precision, layout=layout, start=start)
    return found if config.layout == "auto" else replace(found, layout=config.layout)
