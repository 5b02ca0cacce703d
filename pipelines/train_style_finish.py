"""The end of a training: the last weights become a model folder with a preview, and the books are closed."""

from collections.abc import Sequence

import torch

from pipelines import batch
from pipelines.finetune_stream import read_broken
from pipelines.train_style_report import TrainStyleReport
from pipelines.train_style_work import UNIT, TrainStyleWork, described
from vtray import __version__
from vtray.classify.training import read_epochs
from vtray.errors import StorageError, TooManyFailures
from vtray.images import encode
from vtray.manifest import FileRecord, Json, Ledger, Receipt, canonical
from vtray.shards import QuarantineRow, encode_quarantine
from vtray.steps.results import put
from vtray.storage import join_uri
from vtray.style.fast.load import FOLDER, FastModel
from vtray.style.fast.msgnet import MsgNet
from vtray.style.fast.save import encode_fast
from vtray.style.fast.task import FastTask
from vtray.style.fast.trainer import LEVELS, Drawn, FastTrainer, style_pixels
from vtray.style.fast.unseen import paint_unseen, thumbnail, unseen_metrics, unseen_sheet


def state_folder(work: TrainStyleWork) -> str:
    """The folder of a training's state in the output; another plan in the same output has another."""
    return f"_vtray/training-{work.plan().fingerprint[:12]}"


def finish(
    work: TrainStyleWork, task: FastTask, ledger: Ledger, *, seconds: float
) -> tuple[TrainStyleReport, dict[str, bytes]]:
    """Write model and books; returns the report and the files of the model."""
    storage = ledger.storage
    trainer = trained(task, ledger)
    broken = read_broken(storage, task.folder)
    _judge(work, broken)
    painted = paint_unseen(trainer)
    sheet = unseen_sheet(painted, task.unseen, task.styles, title=f"unseen after {task.steps.steps} steps")
    history = read_epochs(storage, task.folder)
    report = _report(work, task, history[-1] | unseen_metrics(painted), broken, seconds=seconds)
    thumbnails = {style.name: encode(thumbnail(style.image), format="png") for style in task.styles}
    model = fast_model(trainer, _config(work, task, report))
    files = encode_fast(model, thumbnails=thumbnails, preview=sheet)
    records = tuple(put(storage, f"{FOLDER}/{name}", files[name], rows=0) for name in sorted(files))
    _close(work, ledger, records, broken, report)
    return report, files


def trained(task: FastTask, ledger: Ledger) -> FastTrainer:
    """The trainer after its last step. Raises: StorageError if its checkpoint is not there any more."""
    found = task.checkpoints(ledger.storage).newest()
    if found is None or found.epoch != task.steps.steps:
        raise StorageError(
            f"{ledger.storage.uri}/{task.folder}: the checkpoint of step {task.steps.steps} is damaged; remove "
            "that folder to train again, or choose a new output.uri"
        )
    trainer = FastTrainer(task=task)
    trainer.load_state_dict(found.state)
    return trainer


@torch.no_grad()
def fast_model(trainer: FastTrainer, config: Json) -> FastModel:
    """The network with what stands for its styles: NAME at the usual size, NAME@PX at each other one."""
    task, network = trainer.task, trainer.network
    grams = {}
    if isinstance(network, MsgNet):
        for style in task.styles:
            for size_px in task.style_px:
                drawn = Drawn(style=style, size_px=size_px)
                pixels = style_pixels(drawn, trainer.extractor, trainer.device)
                name = style.name if size_px == task.style_px[0] else drawn.name
                grams[name] = network.style_gram(pixels * LEVELS)  # in fp32, as engines compute
    names = tuple(style.name for style in task.styles)
    return FastModel(engine=task.network.engine, network=network, styles=names, grams=grams, config=config)


def _config(work: TrainStyleWork, task: FastTask, report: TrainStyleReport) -> Json:
    """What the model's config.json says besides engine, styles and hashes; the same for the same training."""
    network = work.config.network.model_dump(mode="json")
    return {
        "network": network,
        "style_images": described(task.styles),
        "style_px": list(task.style_px),
        "content_px": work.config.crops.size_px,
        "strength": work.config.style.strength,
        "features": {"network": task.features.network, "weights_sha256": task.features.weights_sha256},
        "steps": task.steps.steps,
        "unseen": {"content": report.unseen_content, "style_share": report.unseen_style_share},
        "seed": task.seed,
        "fingerprint": task.fingerprint,
        "versions": {"vtray": __version__, "torch": torch.__version__},
    }


def _judge(work: TrainStyleWork, broken: Sequence[Json]) -> None:
    """Raises: TooManyFailures before anything looks finished."""
    num_images, allowed = len(work.source.refs), batch.allowed_failures(work.config, len(work.source.refs))
    if len(broken) > allowed:
        raise TooManyFailures(
            f"{len(broken)} of {num_images} images are broken, max_failed={work.config.max_failed} allows "
            f"{allowed}; such as {broken[0]['image_id']} ({broken[0]['message']}); "
            "raise max_failed or mend the input"
        )


def _report(
    work: TrainStyleWork, task: FastTask, last: Json, broken: Sequence[Json], *, seconds: float
) -> TrainStyleReport:
    output = work.output_uri
    return TrainStyleReport(
        status="complete",
        output=output,
        model=join_uri(output, FOLDER),
        engine=task.network.engine,
        styles=tuple(style.name for style in task.styles),
        images=len(work.source.refs),
        failed=len(broken),
        examples=tuple(f"{note['image_id']} ({note['message']})" for note in broken[:3]),
        steps=task.steps.steps,
        precision=task.precision,
        layout=task.layout,
        seconds=round(seconds, 3),
        **{name: last[name] for name in ("loss", "content", "style", "steps_per_s")},
        **{name: last[name] for name in ("unseen_content", "unseen_style_share")},
    )


def _close(
    work: TrainStyleWork,
    ledger: Ledger,
    records: Sequence[FileRecord],
    broken: Sequence[Json],
    report: TrainStyleReport,
) -> None:
    """Receipt, manifest, report and `_SUCCESS`."""
    plan, storage = work.plan(), ledger.storage
    quarantine = None
    if broken:
        rows = [QuarantineRow(**note) for note in broken]
        quarantine = put(storage, f"quarantine/{UNIT}.parquet", encode_quarantine(rows), rows=len(rows))
    ledger.book(
        Receipt(
            unit=UNIT,
            digest=plan.unit_digest(UNIT),
            files=tuple(records),
            quarantine=quarantine,
            num_images=report.images,
            num_failed=len(broken),
            examples=report.examples,
        )
    )
    ledger.finish(plan, {"styles": list(report.styles)}, complete=True)
    storage.put(batch.REPORT, canonical(report.to_json()))
    storage.put(batch.CONFIG, batch.config_yaml(work.config))
    ledger.mark_complete()
