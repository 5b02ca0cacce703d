"""What a training begins from: the weights with their head, and the task that names everything."""

from dataclasses import dataclass

import torch

from pipelines.finetune_choices import some_of_each_class
from pipelines.finetune_work import FinetuneWork
from vtray.classify.activations import Activations
from vtray.classify.backbone import Classifier
from vtray.classify.batches import StoredRows
from vtray.classify.head import HeadRow, class_means
from vtray.classify.training import PhaseRows, TrainTask
from vtray.manifest import Json

MEAN_IMAGES = 32  # of each class, for rows that are imprinted


@dataclass(frozen=True, kw_only=True, eq=False)
class Beginning:
    """A training that is about to begin. folder: of its state, in the output. choices: the measured ones."""

    work: FinetuneWork
    rows: tuple[PhaseRows, ...]
    folder: str
    choices: Json
    threads: int

    def task(self) -> TrainTask:
        """All that the training depends on."""
        work, sampling = self.work, self.work.sampling(num_images(self.work, self.rows))
        return TrainTask(
            output_uri=work.output_uri,
            folder=self.folder,
            fingerprint=work.plan().fingerprint,
            backbone=work.config.backbone,
            num_classes=len(work.classes),
            dropout=work.config.head.dropout,
            preprocessing=work.preprocessing,
            phases=work.phases,
            rows=self.rows,
            spec=work.spec(sampling, self.choices),
            sampling=sampling,
            balanced=work.config.loop.sampling == "balanced",
            patience=work.config.loop.patience,
            device=work.device,
            threads=self.threads,
        )


def num_images(work: FinetuneWork, rows: tuple[PhaseRows, ...]) -> int:
    """Training images: those that are stored, without the broken ones."""
    stored = next((each.train for each in rows if each.train), None)
    return len(Activations.open(stored, "train")) if stored else len(work.examples.train)


def give_head(work: FinetuneWork, classifier: Classifier, rows: PhaseRows) -> tuple[HeadRow, ...]:
    """Give the classifier the head that training begins with; returns where its rows come from."""
    return work.with_head(classifier, _means(work, classifier, rows) if work.needs_means else None)


def described(row: HeadRow) -> Json:
    """A row of the head for the output's books."""
    origin = f"{row.wnid or f'row {row.row}'} {row.lemma or ''}".strip() if row.row is not None else ""
    return {"class_name": row.class_name, "source": row.source, "row": row.row, "origin": origin}


def _means(work: FinetuneWork, classifier: Classifier, rows: PhaseRows) -> torch.Tensor:
    """Mean features of some images of each class: training images if they are stored, else those of val."""
    split = "train" if rows.train else "val"
    stored = StoredRows(rows=Activations.load(rows.train or rows.val, split))
    prepared = work.preprocessing.pixels
    batches = some_of_each_class(stored, len(work.classes), at_most=MEAN_IMAGES)
    inputs = ((prepared(b.inputs) if rows.start == 0 else b.inputs.float(), b.labels) for b in batches)
    return class_means(classifier, inputs, len(work.classes), start=rows.start)
