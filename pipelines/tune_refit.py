"""The best trials trained in full: ordinary trainings with augmentation, of which the best becomes the model."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from pipelines import batch, finetune
from pipelines.finetune_config import FinetuneConfig
from pipelines.finetune_finish import METRICS, validation_logits
from pipelines.finetune_report import FinetuneReport
from pipelines.finetune_rows import CACHES, Store, build_rows, phase_rows
from pipelines.tune_work import TuneWork
from vtray.classify.calibration import fit_temperature
from vtray.classify.model_dir import CONFIG, FOLDER, Model, encode_model, load_model
from vtray.classify.soup import greedy_soup
from vtray.classify.trial_record import Metric, TrialRecord, quality, ranked
from vtray.manifest import canonical
from vtray.storage import absolute_uri, join_uri, open_storage
from vtray.tracking import Tracker

log = logging.getLogger("vtray.tune")

REFITS, SOUP = "refits", "soup.json"


@dataclass(frozen=True, kw_only=True)
class Refit:
    """A trial that was trained in full."""

    trial: TrialRecord
    config: FinetuneConfig
    report: FinetuneReport

    def quality(self, metric: Metric) -> tuple[float, float]:
        return quality({"val_top1": self.report.val_top1, "val_loss": self.report.val_loss}, metric)


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The model of a search. files: of its folder. members: trials whose weights are averaged, or the only one."""

    best: Refit
    files: dict[str, bytes]
    members: tuple[int, ...]
    val_top1: float
    val_loss: float


def to_refit(work: TuneWork, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials to train in full, the best first."""
    search = work.config.search
    order = ranked(records, search.metric)
    chosen = order[: search.top_k]
    return chosen + [each for each in order[search.top_k :] if search.also_default and each.number == 0]


def refit(work: TuneWork, record: TrialRecord, *, under: Tracker) -> Refit:
    """Train with the values of a trial; one that is finished is left alone. Raises: VtrayError."""
    config = refit_config(work, record)
    log.info("training %s in full: %s", record.name, config.output.uri)
    return Refit(trial=record, config=config, report=finetune.run(config, under=under))


def refit_config(work: TuneWork, record: TrialRecord) -> FinetuneConfig:
    """The training of a trial's values: with augmentation, in a folder of its own in the output."""
    config, uri = work.config, work.base.output_uri
    output = config.output.model_dump() | {"uri": join_uri(uri, f"{REFITS}/{record.name}"), "register_as": None}
    caches = absolute_uri(config.cache_uri) if config.cache_uri else join_uri(uri, CACHES)
    name = f"{config.run_name or 'tune'}-refit-{record.name}"
    return config.training(record.values, output=output, cache_uri=caches, run_name=name)


def winner_of(work: TuneWork, refits: Sequence[Refit]) -> Winner:
    """The best of some trainings on the validation images, or the average of their weights if that is better."""
    metric = work.config.search.metric
    best = max(refits, key=lambda each: each.quality(metric))
    if work.config.search.soup and len(refits) > 1:
        mixed = _soup(work, refits, best)
        if mixed is not None:
            return mixed
    report = best.report
    return Winner(
        best=best,
        files=_files_of(best),
        members=(best.trial.number,),
        val_top1=report.val_top1,
        val_loss=report.val_loss,
    )


def _files_of(found: Refit) -> dict[str, bytes]:
    storage = open_storage(absolute_uri(found.config.output.uri))
    names = [entry.key for entry in storage.list(FOLDER)]
    return {name.removeprefix(f"{FOLDER}/"): storage.read(name) for name in names}


def _soup(work: TuneWork, refits: Sequence[Refit], best: Refit) -> Winner | None:
    """The greedy soup of these trainings; None if it is no better than the best of them."""
    models = [load_model(each.config.output.uri) for each in refits]
    logits_of, labels = _judge(work, models[0])
    states = [model.classifier.network.state_dict() for model in models]
    copies = [{name: tensor.clone() for name, tensor in state.items()} for state in states]
    metric = work.config.search.metric

    def score(state: dict[str, torch.Tensor]) -> tuple[float, float]:
        return quality(_measured(logits_of(state), labels), metric)

    soup = greedy_soup(copies, score)
    if len(soup.members) == 1:
        log.info("soup: no average is as good as the best training alone")
        return None
    logits = logits_of(soup.state)
    numbers = tuple(refits[member].trial.number for member in soup.members)
    model = Model(
        classifier=models[0].classifier,
        classes=work.base.classes,
        preprocessing=work.base.preprocessing,
        temperature=fit_temperature(logits, labels),
    )
    kept = _files_of(best)
    files = encode_model(model, config_yaml=kept[CONFIG]) | {METRICS: kept[METRICS]}
    measured = _measured(logits, labels)
    return Winner(
        best=best, files=files | {SOUP: canonical({"trials": list(numbers)})}, members=numbers, **measured
    )


Logits = Callable[[dict[str, torch.Tensor]], torch.Tensor]


def _judge(work: TuneWork, model: Model) -> tuple[Logits, torch.Tensor]:
    """What gives the logits of the validation images under any weights, and their labels."""
    store, base = Store(num_frozen=0, train=False), work.base
    (cache,) = build_rows(base, (store,), model.classifier).values()
    rows = phase_rows(store, cache)

    def logits_of(state: dict[str, torch.Tensor]) -> torch.Tensor:
        model.classifier.network.load_state_dict(state)
        return validation_logits(base, rows, model.classifier.eval())[0]

    return logits_of, validation_logits(base, rows, model.classifier)[1]


def _measured(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    return {
        "val_top1": float((logits.argmax(1) == labels).double().mean()),
        "val_loss": float(functional.cross_entropy(logits, labels)),
    }


def winner_yaml(found: Refit) -> bytes:
    """What `vtray finetune --config` reads to repeat the winner's training."""
    return batch.config_yaml(found.config)
