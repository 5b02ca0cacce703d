"""Train-style: content images and style images in, a fast style network out.

plan -> measured arithmetic -> Ray Train (records, sheets, checkpoints in the output) -> model folder, MLflow
Every step is kept in the output when it is done, so the same command goes on wherever an earlier one was killed.
"""

import json
import logging
import time
from collections.abc import Callable

from pipelines import batch, cluster
from pipelines.cluster import Cluster
from pipelines.machine import gpu_here, this_machine
from pipelines.train_group import Group, group_for, train
from pipelines.train_style_config import Device, TrainStyleConfig
from pipelines.train_style_finish import finish, state_folder
from pipelines.train_style_report import TrainStyleReport
from pipelines.train_style_train import StyleJob
from pipelines.train_style_work import JOB, TrainStyleWork
from vtray.errors import ResourcesError
from vtray.manifest import PLAN, Json, Ledger, canonical
from vtray.sources import encode_units
from vtray.storage import Storage, absolute_uri, open_storage
from vtray.style.fast.probe import choose_step, with_numerics
from vtray.style.fast.task import FastTask
from vtray.tracking import Tracker
from vtray.weights import TORCHVISION

log = logging.getLogger("vtray.train_style")

NUMERICS = "numerics.json"


def run(config: TrainStyleConfig) -> TrainStyleReport:
    """Train what is not trained yet, and finish the output; a finished one is left untouched and said so.

    Raises: VtrayError.
    """
    started = time.monotonic()
    batch.require_apart(config)
    ledger = Ledger(open_storage(absolute_uri(config.output.uri)))
    work = TrainStyleWork.of(config, device=device_of(config, ledger.read_json(PLAN)))
    plan = work.plan()
    ledger.begin(plan, lambda: encode_units(work.units()), replan=config.replan)
    if ledger.is_complete():
        return _finished(ledger, seconds=time.monotonic() - started)
    ledger.log({"event": "start", "time": time.time()})
    with batch.tracked(config, plan, ledger) as tracker:
        found = Cluster(nodes=(this_machine(),)) if config.here else cluster.connect(config.cluster)
        cluster.require_shared_paths(found, _places(work, ledger.storage), shared=config.shared_paths)
        group = group_for(config, found, device=work.device)
        task = definite_task(work, ledger.storage, threads=group.cpus)
        _train(work, task, group, _reporter(work, ledger.storage, tracker))
        report, files = finish(work, task, ledger, seconds=time.monotonic() - started)
        tracker.log_history([{"step": report.steps, **report.metrics()}])
        tracker.log_artifacts(files)
    ledger.log({"event": "complete", "time": time.time(), "unseen_style_share": report.unseen_style_share})
    return report


def _places(work: TrainStyleWork, storage: Storage) -> list[str]:
    """What workers open."""
    weights = work.features.weights_uri
    return [work.source.uri, storage.uri, *([] if weights.startswith(TORCHVISION) else [weights])]


def _train(work: TrainStyleWork, task: FastTask, group: Group, report: Callable[[Json], None]) -> None:
    sampling = work.sampling
    counts = group.num_workers if isinstance(group.num_workers, tuple) else (group.num_workers,)
    for count in set(counts) - {0}:
        sampling.rank_size(count)  # whether they can share a batch
    train(StyleJob(task=task, load=work.load, sampling=sampling, loaders=group.loaders), group, report=report)


def task_of(work: TrainStyleWork, *, output_uri: str, folder: str, threads: int) -> FastTask:
    """The training with fp32 nchw as its arithmetic. Raises: InputError if no image can be read."""
    return FastTask(
        output_uri=output_uri,
        folder=folder,
        fingerprint=work.plan().fingerprint,
        network=work.network,
        styles=work.styles,
        style_px=work.config.style.size_px,
        features=work.features,
        loss=work.loss,
        steps=work.steps,
        unseen=work.unseen,
        seed=work.config.seed,
        device=work.device,
        threads=threads,
    )


def definite_task(work: TrainStyleWork, storage: Storage, *, threads: int) -> FastTask:
    """The training with its arithmetic; a training that was begun keeps what was measured then."""
    task = task_of(work, output_uri=storage.uri, folder=state_folder(work), threads=threads)
    key = f"{task.folder}/{NUMERICS}"
    if not storage.exists(key):
        chosen = choose_step(task, **open_numerics(work.config), crop_px=work.config.crops.crop_px)
        storage.create(key, canonical({"precision": chosen.precision, "layout": chosen.layout}))
        ways = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in chosen.seconds.items())
        log.info("steps in %s (seconds of one step: %s)", chosen.name, ways)
    kept = json.loads(storage.read(key))
    return with_numerics(task, kept["precision"], kept["layout"])


def open_numerics(config: TrainStyleConfig) -> Json:
    """What the config fixes of precision and layout; None where it says auto."""
    chosen = {"precision": config.features.precision, "layout": config.features.layout}
    return {name: None if value == "auto" else value for name, value in chosen.items()}


def device_of(config: TrainStyleConfig, there: Json | None) -> Device:
    """Where to train; an output that was begun keeps its device, so that a finished one needs no cluster.

    Raises: ResourcesError if a GPU is asked for and there is none.
    """
    if config.use_gpu is False:
        return "cpu"
    if config.use_gpu is None and there is not None and there["job"] == JOB:
        return "cuda" if there["work"]["device"] == "cuda" else "cpu"
    has_gpu = gpu_here() if config.here else cluster.connect(config.cluster).num_gpus >= 1
    if config.use_gpu and not has_gpu:
        raise ResourcesError("use_gpu=true: the cluster has no GPU; use --set use_gpu=false, or add a GPU node")
    return "cuda" if has_gpu else "cpu"


def _finished(ledger: Ledger, *, seconds: float) -> TrainStyleReport:
    """The report of an output that was finished before."""
    values = json.loads(ledger.storage.read(batch.REPORT))
    return TrainStyleReport.from_json(values | {"nothing_to_do": True, "seconds": round(seconds, 3)})


def _reporter(work: TrainStyleWork, storage: Storage, tracker: Tracker) -> Callable[[Json], None]:
    """What is done with a record: a line for people, metrics and sheets for MLflow."""
    steps = work.config.loop.steps

    def report(record: Json) -> None:
        tracker.log_history([record])
        if "sheet" not in record:
            return
        log.info(
            "step %d of %d: loss %.3f; unseen images: style at %.0f %% of before, content %.2f; %.2f steps/s",
            record["step"],
            steps,
            record["loss"],
            100 * record["unseen_style_share"],
            record["unseen_content"],
            record["steps_per_s"],
        )
        tracker.log_artifacts({f"sheets/step-{record['step']:06}.png": storage.read(record["sheet"])})

    return report
