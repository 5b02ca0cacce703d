"""What is measured before a training starts: precision, layout and, if asked for, the learning rate.

Measured once: what was chosen is kept in the output, so that a training that goes on keeps its numbers.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice

import torch

from pipelines import cluster
from pipelines.cluster import WorkerNeeds
from pipelines.finetune_stream import load_here
from pipelines.finetune_work import FinetuneWork
from pipelines.machine import gpu_here
from vtray.classify.activations import Activations
from vtray.classify.backbone import Classifier
from vtray.classify.batches import StoredRows
from vtray.classify.freezing import freeze
from vtray.classify.learning_rate_finder import Sweep, find_learning_rate
from vtray.classify.loop import Trainer
from vtray.classify.numerics import Numerics
from vtray.classify.numerics import choose as choose_numerics
from vtray.classify.sampling import Sampling
from vtray.classify.train_spec import Batch
from vtray.classify.training import PhaseRows
from vtray.manifest import Json, Ledger, canonical
from vtray.steps.load_batch import LoadBatch
from vtray.steps.worker import prepare_worker

log = logging.getLogger("vtray.finetune")

CHOICES = "choices.json"
PROBED = 16  # images in a batch of the probe on a CPU


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A training that has not begun, to measure with: its classifier, threads, and the rows of its last phase.

    load: for images that are not stored.
    """

    work: FinetuneWork
    classifier: Classifier
    rows: PhaseRows
    sampling: Sampling
    load: LoadBatch | None
    threads: int


def choose(trial: Trial, ledger: Ledger, folder: str) -> Json:
    """The choices that hold for this output: those that are kept there, else what is measured now.

    Raises: ConfigError if no learning rate is any good.
    """
    key = f"{folder}/{CHOICES}"
    kept = ledger.read_json(key)
    if kept is None:
        ledger.storage.create(key, canonical(_measure_where_it_trains(trial)))
        kept = ledger.read_json(key)
    assert kept is not None, "it was created here or by a faster driver"
    return kept


def _measure_where_it_trains(trial: Trial) -> Json:
    """Here, or on a node with a GPU if the training needs one and there is none here."""
    if trial.work.device == "cpu" or gpu_here():
        return _measure(trial)
    connected = cluster.connect(trial.work.config.cluster)
    return cluster.call_on_a_worker(partial(_measure, trial), connected, WorkerNeeds(gpus=1))


def _measure(trial: Trial) -> Json:
    prepare_worker()  # as a worker does: page faults of freed activations cost a quarter of a step
    config = trial.work.config
    threads = torch.get_num_threads()
    torch.set_num_threads(trial.threads)
    try:
        numerics = _numerics(trial)
        log.info("%s", _numerics_line(numerics))
        choices: Json = {"precision": numerics.precision, "layout": numerics.layout, "lr": config.lr}
        choices |= {"seconds_per_step": dict(numerics.seconds), "speedup": numerics.speedup}
        if config.lr == "find":
            sweep = _sweep(trial, choices)
            log.info("learning rate: %.2e, where the loss falls fastest in a sweep", sweep.suggestion)
            choices |= {"lr": sweep.suggestion, "sweep": [list(sweep.learning_rates), list(sweep.losses)]}
        return choices
    finally:
        torch.set_num_threads(threads)


def _numerics(trial: Trial) -> Numerics:
    config, classifier = trial.work.config, trial.classifier
    if config.precision != "auto" and config.layout != "auto":
        return Numerics(precision=config.precision, layout=config.layout)
    freeze(classifier, trial.work.phases[-1].frozen)
    images = min(trial.sampling.batch_size, PROBED) if trial.work.device == "cpu" else trial.sampling.batch_size
    side = trial.work.preprocessing.crop_px
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, side, side, generator=drawn)
    start = trial.rows.start
    with torch.no_grad():
        inputs = classifier.eval().prefix(pixels, start) if start else pixels
    return choose_numerics(
        classifier.to(trial.work.device),
        inputs.to(trial.work.device),
        precision=None if config.precision == "auto" else config.precision,
        layout=None if config.layout == "auto" else config.layout,
        start=start,
    )


def _numerics_line(numerics: Numerics) -> str:
    if not numerics.seconds:
        return f"arithmetic: {numerics.precision} {numerics.layout}, as set"
    tried = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in numerics.seconds.items())
    return f"arithmetic: {numerics.precision} {numerics.layout}, from a probe ({tried} a step)"


def _sweep(trial: Trial, choices: Json) -> Sweep:
    work = trial.work
    spec = replace(work.spec(trial.sampling, choices | {"lr": 1e-4}), start=trial.rows.start)
    trainer = Trainer(trial.classifier, spec, preprocessing=work.preprocessing, device=work.device)
    return find_learning_rate(trainer, _batches(trial))


def _batches(trial: Trial) -> Iterator[Batch]:
    """Training batches without an end, epoch after epoch."""
    if trial.rows.train is None:
        assert trial.load is not None, "images are stored or loaded"
        load = trial.load
        return chain.from_iterable(load_here(load, trial.sampling, epoch) for epoch in count())
    stored = StoredRows(rows=Activations.load(trial.rows.train, "train"), views=trial.rows.views)
    return chain.from_iterable(stored.batches(trial.sampling, epoch, rank=0, size=1) for epoch in count())


def some_of_each_class(stored: StoredRows, num_classes: int, *, at_most: int) -> Iterator[Batch]:
    """Batches of the first rows of each class."""
    for label in range(num_classes):
        places = (place for place, found in enumerate(stored.labels.tolist()) if found == label)
        chosen = list(islice(places, at_most))
        if chosen:
            yield stored.batch(chosen)
