"""A whole training: phases, epochs, validation, checkpoints, early stopping, and going on after a crash.

What happens is a function of the task: killed anywhere and run again, it ends with the same bits. Every epoch
leaves a record in storage, written once; the driver reads them for progress and tracking.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtray.classify.activations import Activations
from vtray.classify.backbone import Classifier, build_classifier, load_weights_into
from vtray.classify.batches import StoredRows
from vtray.classify.checkpoint import Checkpoint, Checkpoints
from vtray.classify.freezing import freeze, frozen_digest
from vtray.classify.loop import Batch, EpochMetrics, Ranks, Trainer
from vtray.classify.numerics import autocast, in_layout
from vtray.classify.phases import Phase
from vtray.classify.preprocessing import Preprocessing
from vtray.classify.sampling import Sampling
from vtray.classify.train_spec import TrainSpec
from vtray.errors import StorageError, VtrayError
from vtray.manifest import Json, canonical
from vtray.seeding import seed_for
from vtray.storage import Storage, join_uri, open_storage
from vtray.weights import load_weights

INITIAL, FAILURE, EPOCHS = "initial.safetensors", "failure.json", "epochs"
BEST_BY = "val_top1"

# the batches of a training whose images are loaded on the way: phase, first epoch -> batches of all its epochs
OpenStream = Callable[[Phase, int], Iterator[Batch]]


@dataclass(frozen=True, kw_only=True)
class PhaseRows:
    """Where the images of a phase are.

    train: stored rows, None if they are loaded on the way. start: the boundary of the rows. views: augmented ones
    that epochs take turns at, 0 for none.
    """

    val: str
    train: str | None = None
    start: int = 0
    views: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """All that a training depends on; the same task gives the same weights.

    folder: of the training's state in the output. spec: epochs, factor, seed and start are each phase's own. rows:
    one for each phase. sampling: without labels; they come with the images.
    """

    output_uri: str
    folder: str
    fingerprint: str
    backbone: str
    num_classes: int
    dropout: float | None
    preprocessing: Preprocessing
    phases: tuple[Phase, ...]
    rows: tuple[PhaseRows, ...]
    spec: TrainSpec
    sampling: Sampling
    balanced: bool = False
    patience: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1

    @property
    def epochs(self) -> int:
        return self.phases[-1].last_epoch + 1

    def spec_of(self, number: int) -> TrainSpec:
        """The spec of one phase; dropout and mixing draw other numbers in each."""
        phase = self.phases[number]
        return dataclasses.replace(
            self.spec,
            epochs=phase.epochs,
            head_lr_factor=phase.head_lr_factor,
            start=self.rows[number].start,
            seed=self.spec.seed if number == 0 else seed_for(self.spec.seed, "phase", number),
        )

    def checkpoints(self, storage: Storage) -> Checkpoints:
        """The checkpoints of this training."""
        return Checkpoints(
            storage=storage, fingerprint=self.fingerprint, folder=f"{self.folder}/checkpoints", best_by=BEST_BY
        )

    def build(self) -> Classifier:
        """The classifier with its initial weights. Raises: WeightsError, StorageError."""
        with torch.random.fork_rng(devices=[]):
            classifier = build_classifier(self.backbone, num_classes=self.num_classes, dropout=self.dropout)
        uri = join_uri(self.output_uri, f"{self.folder}/{INITIAL}")
        load_weights_into(classifier, load_weights(uri).tensors, uri=uri, head=True)
        return classifier


@dataclass(kw_only=True, eq=False)
class Training:
    """One process of a training. open_stream: for phases whose images are loaded on the way.

    wrap: what makes a model distributed. Call `run` once.
    """

    task: TrainTask
    ranks: Ranks = field(default_factory=Ranks)
    device: str = "cpu"
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model
    open_stream: OpenStream | None = None

    def run(self) -> None:
        """Train from the newest whole checkpoint to the end; a fault of the training itself is left in FAILURE.

        Raises: VtrayError; workers that start again after it return at once.
        """
        storage = open_storage(self.task.output_uri)
        if storage.exists(f"{self.task.folder}/{FAILURE}"):
            return
        torch.set_num_threads(self.task.threads)
        try:
            self._train(storage)
        except StorageError:
            raise
        except VtrayError as error:
            note = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            storage.create(f"{self.task.folder}/{FAILURE}", canonical(note))
            raise

    def _train(self, storage: Storage) -> None:
        checkpoints = self.task.checkpoints(storage)
        found = checkpoints.newest()
        history: list[Json] = found.state["history"] if found else []
        classifier = self.task.build()
        for number, phase in enumerate(self.task.phases):
            if found and found.epoch > phase.last_epoch:
                continue  # a later phase's checkpoint has everything that this one changed
            trainer = self._trainer(classifier, number)
            if found and found.epoch >= phase.first_epoch:
                trainer.load_state_dict(found.state["trainer"])
            self._train_phase(number, trainer, _Books(storage, checkpoints, history, self))
            if is_over(history, self.task):
                break
        checkpoints.wait()

    def _trainer(self, classifier: Classifier, number: int) -> Trainer:
        freeze(classifier, self.task.phases[number].frozen)
        return Trainer(
            classifier,
            self.task.spec_of(number),
            preprocessing=self.task.preprocessing,
            device=self.device,
            wrap=self.wrap if self.ranks.size > 1 else lambda model: model,
            ranks=self.ranks,
        )

    def _train_phase(self, number: int, trainer: Trainer, books: "_Books") -> None:
        phase, rows = self.task.phases[number], self.task.rows[number]
        first = max(phase.first_epoch, len(books.history))
        val = StoredRows(rows=Activations.load(rows.val, "val"))
        epochs = self._batches(phase, rows, first)
        for epoch in range(first, phase.last_epoch + 1):
            if is_over(books.history, self.task):
                return
            started = time.perf_counter()
            trained = trainer.train_epoch(epoch - phase.first_epoch, epochs(epoch))
            place = (epoch, number)
            record = epoch_record(self.task, place, trainer, trained) | validate(trainer, val, self.ranks)
            if epoch == phase.last_epoch:
                record["frozen_sha256"] = _require_unmoved(trainer)
            books.write(trainer, record, train_s=trained.seconds, seconds=time.perf_counter() - started)

    def _batches(self, phase: Phase, rows: PhaseRows, first: int) -> Callable[[int], Iterator[Batch]]:
        """For each epoch its batches."""
        if rows.train is None:
            assert self.open_stream is not None, "the task asks for a stream"
            stream = self.open_stream(phase, first)
            return lambda epoch: stream
        stored = StoredRows(rows=Activations.load(rows.train, "train"), views=rows.views)
        sampling = self.task.sampling
        if self.task.balanced:
            sampling = dataclasses.replace(sampling, balanced_labels=tuple(stored.labels.tolist()))
        return lambda epoch: stored.batches(sampling, epoch, rank=self.ranks.rank, size=self.ranks.size)


@dataclass(frozen=True, eq=False)
class _Books:
    """Where a training writes what it did; rank 0 writes, the history is the same on all."""

    storage: Storage
    checkpoints: Checkpoints
    history: list[Json]
    training: Training

    def write(self, trainer: Trainer, record: Json, *, train_s: float, seconds: float) -> None:
        """Book an epoch: its record, and a checkpoint with all records so far."""
        self.history.append(record)
        if self.training.ranks.rank:
            return
        epoch = record["epoch"]
        state = {"trainer": trainer.state_dict(), "history": self.history}
        self.checkpoints.save(epoch, state, metrics={BEST_BY: record[BEST_BY]})
        timed = record | {"seconds": seconds, "images_per_s": record["images"] / train_s}
        self.storage.create(epoch_key(self.training.task.folder, epoch), canonical(timed))


def epoch_record(task: TrainTask, place: tuple[int, int], trainer: Trainer, trained: EpochMetrics) -> Json:
    """What training says of an epoch. place: the epoch, and the number of its phase."""
    epoch, number = place
    return {
        "epoch": epoch,
        "phase": task.phases[number].name,
        "step": trainer.updates + _updates_before(task, number),
        "loss": trained.loss,
        "accuracy": trained.accuracy,
        "lr": trained.lr,
        "images": trained.images,
    }


def epoch_key(folder: str, epoch: int) -> str:
    """Where the record of an epoch is."""
    return f"{folder}/{EPOCHS}/{epoch:06}.json"


def read_epochs(storage: Storage, folder: str, *, known: int = 0) -> list[Json]:
    """The records from epoch `known` on, as far as they are there without a gap."""
    there = {entry.key for entry in storage.list(f"{folder}/{EPOCHS}")}
    records: list[Json] = []
    while (key := epoch_key(folder, known + len(records))) in there:
        records.append(json.loads(storage.read(key)))
    return records


@torch.no_grad()
def validate(trainer: Trainer, rows: StoredRows, ranks: Ranks) -> dict[str, float]:
    """Mean loss and top-1 over all rows of all ranks, each counted once; and how many there are."""
    spec, model = trainer.spec, trainer.evaluation_model
    sums = torch.zeros(3, dtype=torch.float64, device=trainer.device)
    for batch in rows.evaluation(rank=ranks.rank, size=ranks.size):
        labels = batch.labels.to(trainer.device)
        with autocast(trainer.device, spec.precision):
            logits = model(in_layout(trainer.inputs_of(batch), spec.layout), start=spec.start).float()
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        correct = (logits.argmax(1) == labels).sum()
        sums += torch.stack([loss.double(), correct.double(), loss.new_tensor(len(labels)).double()])
    loss_sum, num_correct, count = ranks.sum(sums).tolist()
    return {"val_loss": loss_sum / count, BEST_BY: num_correct / count, "val_images": int(count)}


def kept_weights(task: TrainTask, checkpoint: Checkpoint) -> Classifier:
    """The classifier as it was at a checkpoint: averaged weights if there are any."""
    classifier = task.build()
    number = next(n for n, phase in enumerate(task.phases) if checkpoint.epoch <= phase.last_epoch)
    freeze(classifier, task.phases[number].frozen)
    trainer = Trainer(classifier, task.spec_of(number), preprocessing=task.preprocessing)
    trainer.load_state_dict(checkpoint.state["trainer"])
    return trainer.evaluation_model


def best_epoch(history: list[Json]) -> int:
    """The epoch with the highest top-1 on the validation images; of equal ones the earliest."""
    return int(max(history, key=lambda record: (record[BEST_BY], -record["epoch"]))["epoch"])


def is_over(history: list[Json], task: TrainTask) -> bool:
    """Whether the last epoch is done, or too many of the last phase were no better than the best."""
    if len(history) >= task.epochs:
        return True
    since = max(best_epoch(history), task.phases[-1].first_epoch - 1) if history else 0
    return task.patience is not None and len(history) - 1 - since >= task.patience


def _require_unmoved(trainer: Trainer) -> str:
    """The hash of what is frozen. Raises: VtrayError if it is not what it was at the start: a bug."""
    found = frozen_digest(trainer.classifier)
    if found != trainer.frozen_digest:
        raise VtrayError(f"frozen weights moved: sha256 {trainer.frozen_digest} became {found}; report this")
    return found


def _updates_before(task: TrainTask, number: int) -> int:
    """Optimizer steps of all earlier phases."""
    return sum(task.phases[n].epochs * task.spec_of(n).updates_per_epoch for n in range(number))


def as_tensors(classifier: Classifier) -> Mapping[str, Tensor]:
    """The network's tensors as they are stored: on the CPU, contiguous, each with memory of its own."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in classifier.network.state_dict().items()
    }


def plain(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, as tracking takes them."""
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
