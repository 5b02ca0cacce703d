"""Finetune: labelled images and a pretrained backbone in, a classifier out.

plan -> rows (crops or activations, once) -> initial weights, measured choices -> Ray Train -> model, page, MLflow
Every step is kept in the output when it is done, so the same command goes on wherever an earlier one was killed.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from safetensors.torch import save

from pipelines import batch, cluster
from pipelines.cluster import Cluster, WorkerNeeds
from pipelines.finetune_begin import Beginning, described, give_head, num_images
from pipelines.finetune_choices import Trial, choose
from pipelines.finetune_config import FinetuneConfig
from pipelines.finetune_finish import Trained, example_images, finish, model_files
from pipelines.finetune_report import FinetuneReport
from pipelines.finetune_rows import build_rows, phase_rows, store_of
from pipelines.finetune_train import Group, WorkerJob, train
from pipelines.finetune_work import JOB, Device, FinetuneWork
from pipelines.machine import gpu_here, this_machine
from vtray.classify.backbone import Classifier
from vtray.classify.examples import Examples
from vtray.classify.head import head_table
from vtray.classify.mlflow_model import mlflow_model
from vtray.classify.training import INITIAL, PhaseRows, as_tensors
from vtray.classify.views import ViewMaker
from vtray.errors import ResourcesError
from vtray.manifest import PLAN, Json, Ledger, canonical
from vtray.sources import encode_units
from vtray.steps.load_batch import LoadBatch
from vtray.storage import Storage, absolute_uri, open_storage
from vtray.tracking import Tracker

log = logging.getLogger("vtray.finetune")

HEAD = "head.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class FinetuneRun:
    """A training on its way through its steps, on a connected cluster."""

    work: FinetuneWork
    ledger: Ledger
    cluster: Cluster

    @property
    def storage(self) -> Storage:
        return self.ledger.storage

    @cached_property
    def folder(self) -> str:
        """Where this training keeps its state; another plan in the same output has another."""
        return f"_vtray/training-{self.work.plan().fingerprint[:12]}"

    @cached_property
    def group(self) -> Group:
        """The workers. Raises: ResourcesError if the cluster has no room for them."""
        return group_of(self.work, self.cluster)

    def train(self, report: Callable[[Json], None]) -> Trained:
        """All steps up to trained weights, whose checkpoints are in the output."""
        group, classifier = self.group, self.work.pretrained()
        stores = tuple(store_of(self.work, phase, classifier) for phase in self.work.phases)
        caches = build_rows(self.work, stores, classifier)
        rows = tuple(phase_rows(store, caches[store]) for store in stores)
        load = None if all(each.train for each in rows) else self._load()
        head = self._begin(classifier, rows[0])
        sampling = self.work.sampling(num_images(self.work, rows))
        choices = choose(
            Trial(
                work=self.work,
                classifier=classifier,
                rows=rows[-1],
                sampling=sampling,
                load=load,
                threads=group.cpus,
            ),
            self.ledger,
            self.folder,
        )
        task = Beginning(work=self.work, rows=rows, folder=self.folder, choices=choices, threads=group.cpus).task()
        train(WorkerJob(task=task, load=load, loaders=group.loaders), group, report=report)
        return Trained(work=self.work, task=task, ledger=self.ledger, head=head, choices=choices)

    def _load(self) -> LoadBatch:
        work = self.work
        return LoadBatch(
            refs=work.examples.train,
            format=work.source.format,
            maker=ViewMaker(
                preprocessing=work.preprocessing,
                recipe=work.recipe,
                seed=work.config.seed,
                max_pixels=work.config.max_pixels,
            ),
        )

    def _begin(self, classifier: Classifier, rows: PhaseRows) -> tuple[Json, ...]:
        """Give the classifier its head, and keep the weights that training begins with; gives the head's rows."""
        found = give_head(self.work, classifier, rows)
        self.storage.create(f"{self.folder}/{INITIAL}", save(dict(as_tensors(classifier))))
        rows_of_head = [described(row) for row in found]
        if self.work.config.head.init == "reuse":
            log.info("%s", head_table(found))
        self.storage.put(f"{self.folder}/{HEAD}", canonical(rows_of_head))
        return tuple(rows_of_head)


def group_of(work: FinetuneWork, found: Cluster) -> Group:
    """How many workers train and what each takes: one per GPU, or one per node with all its CPUs.

    Raises: ResourcesError with the numbers if the cluster has no room for them; ConfigError for a batch size that
    they cannot share.
    """
    config = work.config
    if config.here:
        cpus = config.threads or int(this_machine().num_cpus)
        return Group(num_workers=0, cpus=cpus, gpus=0, max_restarts=0, loaders=1)
    gpus = 1 if work.device == "cuda" else 0
    nodes = [node for node in found.nodes if (node.num_gpus if gpus else node.num_cpus) >= 1]
    default = int(found.num_gpus) if gpus else len(nodes)
    wanted = config.num_workers or max(1, default)
    least, most = (wanted, wanted) if isinstance(wanted, int) else wanted
    largest = max((int(node.num_cpus) for node in nodes), default=1)
    cpus = config.threads or max(1, largest * max(1, len(nodes)) // most if most > len(nodes) else largest)
    cluster.workers_for(found, least, WorkerNeeds(cpus=cpus, gpus=gpus))
    for size in {least, most}:
        work.sampling(1).rank_size(size)
    return Group(
        num_workers=wanted if isinstance(wanted, int) else (least, most),
        cpus=cpus,
        gpus=gpus,
        max_restarts=config.max_restarts,
        loaders=config.loaders,
    )


def run(config: FinetuneConfig, *, under: Tracker | None = None) -> FinetuneReport:
    """Train what is not trained yet, and finish the output; a finished one is left untouched and said so.

    under: the run of a search that this training's MLflow run belongs to. Raises: VtrayError.
    """
    started = time.monotonic()
    batch.require_apart(config)
    ledger = Ledger(open_storage(absolute_uri(config.output.uri)))
    work = FinetuneWork.of(config, device=device_of(config, ledger.read_json(PLAN)))
    plan = work.plan()
    ledger.begin(plan, lambda: encode_units(work.units()), replan=config.replan)
    if ledger.is_complete():
        return _finished(ledger, seconds=time.monotonic() - started)
    if ledger.done():
        ledger.require_versions(plan)
    ledger.log({"event": "start", "time": time.time()})
    with batch.tracked(config, plan, ledger, under=under) as tracker:
        connected = Cluster(nodes=(this_machine(),)) if config.here else cluster.connect(config.cluster)
        places = [work.source.uri, ledger.storage.uri]
        cluster.require_shared_paths(connected, places, shared=config.shared_paths)
        trained = FinetuneRun(work=work, ledger=ledger, cluster=connected).train(_reporter(work, tracker))
        report, files = finish(trained, seconds=time.monotonic() - started)
        tracker.log_history([{"step": trained.history[-1]["step"], **report.metrics()}])
        tracker.log_artifacts(files)
        package = mlflow_model(model_files(files), example_images(work))
        tracker.log_model(package, registered_name=config.output.register_as, alias=config.output.alias)
    ledger.log({"event": "complete", "time": time.time(), "val_top1": report.val_top1})
    return report


def _finished(ledger: Ledger, *, seconds: float) -> FinetuneReport:
    """The report of an output that was finished before."""
    values = json.loads(ledger.storage.read(batch.REPORT))
    values["examples"] = tuple(values["examples"])
    return FinetuneReport(**(values | {"nothing_to_do": True, "seconds": round(seconds, 3)}))


def device_of(config: FinetuneConfig, there: Json | None, *, job: str = JOB) -> Device:
    """Where to train; an output that was begun keeps its device, so that a finished one needs no cluster.

    Raises: ResourcesError if a GPU is asked for and the cluster has none.
    """
    if config.use_gpu is False:
        return "cpu"
    if config.use_gpu is None and there is not None and there["job"] == job:
        return "cuda" if there["work"]["device"] == "cuda" else "cpu"
    has_gpu = gpu_here() if config.here else cluster.connect(config.cluster).num_gpus >= 1
    if config.use_gpu and not has_gpu:
        raise ResourcesError("use_gpu=true: the cluster has no GPU; use --set use_gpu=false, or add a GPU node")
    return "cuda" if has_gpu else "cpu"


def _reporter(work: FinetuneWork, tracker: Tracker) -> Callable[[Json], None]:
    """What is done with the record of an epoch: a line for people, metrics for MLflow."""

    def report(record: Json) -> None:
        log.info(
            "epoch %d of %d: loss %.4f, val loss %.4f, val top-1 %.1f %%, %.0f images/s",
            record["epoch"] + 1,
            work.epochs,
            record["loss"],
            record["val_loss"],
            100 * record["val_top1"],
            record["images_per_s"],
        )
        tracker.log_history([record])

    return report


def checked_split(config: FinetuneConfig) -> str | None:
    """The split that a finished model is evaluated on; None for none, or if it has seen all that there is."""
    if config.check.split == "none":
        return None
    examples = Examples.of(batch.open_input(config), val_fraction=config.val_fraction, seed=config.seed)
    if config.check.split == "auto" and not examples.test and examples.carved:
        log.info("no evaluation: the input has neither test nor val images; see `vtray evaluate`")
        return None
    return config.check.split
