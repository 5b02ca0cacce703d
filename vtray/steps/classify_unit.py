"""What a worker does with one unit: read, decode, classify in batches, write the rows, book the receipt.

Batches are the images of a unit in order, computed with a fixed number of threads: rows have the same bytes
whoever computes them. Pixels stay inside.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtray.classify.calibration import log_probabilities
from vtray.classify.conditions import CONDITIONS
from vtray.classify.evaluation import Doubt, Evaluation, worst
from vtray.classify.metrics import Tally
from vtray.classify.model_dir import Model, load_model
from vtray.classify.predictions import TOP, Prediction, encode_predictions
from vtray.classify.preprocessing import decode_for
from vtray.errors import ImageError, WeightsError
from vtray.manifest import Json, Receipt, sha256
from vtray.shards import QuarantineRow
from vtray.sources import ImageRef, SourceImage, Unit, read_unit
from vtray.steps.results import (
    book_once,
    encoded_of,
    failures_of,
    ledger_at,
    put,
    put_quarantine,
    quarantine_row,
)
from vtray.steps.worker import prepare_worker
from vtray.stopwatch import Stopwatch
from vtray.storage import Storage

Device = Literal["cpu", "cuda"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What an evaluation measures besides the clean images.

    sample: ids of the images that are also classified under every condition and severity; seed: of what conditions
    leave to chance.
    """

    conditions: tuple[str, ...]
    severities: tuple[int, ...]
    sample: frozenset[str]
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifyUnit:
    """The classify step, made once by the driver and called on workers with one unit after the other.

    model_digest: of the model that the driver has seen. checks: for an evaluation, whose images all have a class
    of the model; None for a prediction.
    """

    model_uri: str
    model_digest: str
    device: Device
    threads: int
    batch: int
    max_pixels: int
    output_uri: str
    checks: Checks | None = None

    def __call__(self, unit: Unit, digest: str) -> Receipt:
        """Do the unit and return the receipt that counts.

        Raises: WeightsError if the model is not that of the driver; StorageError if storage fails for good.
        """
        prepare_worker()
        ledger = ledger_at(self.output_uri)
        return book_once(ledger, unit, digest, lambda: self._write(ledger.storage, unit, digest, self.make(unit)))

    def make(self, unit: Unit) -> "Made":
        """All rows and quarantine rows of a unit, nothing written."""
        made = Made()
        with made.clock.phase("load"):
            torch.set_num_threads(self.threads)
            model = loaded_model(self.model_uri, self.model_digest, self.device)
        parts = [torch.empty(0, len(model.classes))]
        for crops in _batches(self._crops(unit, model, made), self.batch):
            with made.clock.phase("classify"):
                parts.append(model.logits(np.stack([crop.image for crop in crops])))
            made.rows += predictions(model, crops, parts[-1], evaluated=self.checks is not None)
            made.kept += [crop for crop in crops if self.checks and crop.ref.image_id in self.checks.sample]
        if self.checks is None:
            made.doubts = worst(map(doubt_of, made.rows))
        else:
            self._evaluate(model, torch.cat(parts), made)
        return made

    def _crops(self, unit: Unit, model: Model, made: "Made") -> Iterator["Crop"]:
        """The images that can be read and decoded, ready for the network; the others go into quarantine."""
        images = read_unit(unit)
        while True:
            with made.clock.phase("read"):
                source = next(images, None)
            if source is None:
                return
            try:
                with made.clock.phase("decode"):
                    crop = self._crop(source, model)
            except ImageError as error:
                made.quarantine.append(quarantine_row(source, error))
            else:
                yield crop

    def _crop(self, source: SourceImage, model: Model) -> "Crop":
        encoded = encoded_of(source)
        image = decode_for(model.preprocessing, encoded, self.max_pixels)
        return Crop(ref=source.ref, image=image, sha256=sha256(encoded))

    def _evaluate(self, model: Model, logits: Tensor, made: "Made") -> None:
        """Add what the rows' logits (N, K) say with their true classes, and the scores of the kept crops."""
        labels = labels_of(model, [row.true_class for row in made.rows])
        losses = -log_probabilities(logits / model.temperature)[np.arange(len(labels)), labels.numpy()]
        made.doubts = worst(map(doubt_of, made.rows, losses.tolist()))
        measured = Evaluation.of(logits, labels, temperature=model.temperature)
        with made.clock.phase("conditions"):
            made.evaluation = replace(measured, **self._under_conditions(model, made.kept))

    def _under_conditions(self, model: Model, crops: Sequence["Crop"]) -> dict[str, Any]:
        """The fields `sampled` and `conditions` of an evaluation."""
        if not crops or self.checks is None or not self.checks.conditions:
            return {}
        conditions = {
            name: {severity: self._tally(model, crops, name, severity) for severity in self.checks.severities}
            for name in self.checks.conditions
        }
        clean = [crop.image for crop in crops]
        return {"sampled": tally_of(model, crops, clean, batch=self.batch), "conditions": conditions}

    def _tally(self, model: Model, crops: Sequence["Crop"], name: str, severity: int) -> Tally:
        assert self.checks is not None, "only evaluations come here"
        condition, seed = CONDITIONS[name], self.checks.seed
        images = [condition(crop.image, severity, seed=seed, source_sha256=crop.sha256) for crop in crops]
        return tally_of(model, crops, images, batch=self.batch)

    def _write(self, storage: Storage, unit: Unit, digest: str, made: "Made") -> Receipt:
        """One shard; its name tells its content, so a late attempt never replaces another's."""
        with made.clock.phase("write"):
            content = encode_predictions(made.rows, evaluated=self.checks is not None)
            name = f"data/{unit.unit_id}-{sha256(content)[:12]}.parquet"
            file = put(storage, name, content, rows=len(made.rows))
            quarantine = put_quarantine(storage, unit.unit_id, made.quarantine)
        return Receipt(
            unit=unit.unit_id,
            digest=digest,
            files=(file,),
            quarantine=quarantine,
            num_images=unit.num_images,
            rows_by_class=dict(Counter(row.class_name for row in made.rows)),
            seconds=made.clock.seconds(),
            records=(made.record(),),
            **failures_of(made.quarantine),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """One image as the network sees it, uint8 (H, W, 3); sha256 of its encoded source."""

    ref: ImageRef
    image: NDArray[np.uint8]
    sha256: str


@dataclass(kw_only=True)
class Made:
    """The results of one unit while it is worked on."""

    rows: list[Prediction] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    kept: list[Crop] = field(default_factory=list)  # of the robustness sample
    doubts: tuple[Doubt, ...] = ()
    evaluation: Evaluation | None = None
    clock: Stopwatch = field(default_factory=Stopwatch)

    def record(self) -> Json:
        """What the receipt keeps for the report."""
        evaluation = self.evaluation.to_json() if self.evaluation else None
        return {"doubts": [asdict(doubt) for doubt in self.doubts], "evaluation": evaluation}


@lru_cache(maxsize=1)
def loaded_model(uri: str, digest: str, device: Device) -> Model:
    """The model of a process, loaded once.

    Raises: WeightsError if it is not there any more, or another one than the driver has seen; StorageError.
    """
    model = load_model(uri)
    if model.digest != digest:
        raise WeightsError(f"{uri}: the model changed since the run began; start it again with --set replan=true")
    return model.to(device)


def labels_of(model: Model, names: Iterable[str | None]) -> Tensor:
    """The true classes as indexes into the model's, int64 (N,)."""
    index: dict[str | None, int] = {name: label for label, name in enumerate(model.classes)}
    return torch.tensor([index[name] for name in names], dtype=torch.int64)


def tally_of(model: Model, crops: Sequence[Crop], images: Sequence[NDArray[np.uint8]], *, batch: int) -> Tally:
    """Of images, uint8 (H, W, 3), that show what `crops` show; at the model's temperature."""
    logits = torch.cat([model.logits(np.stack(part)) for part in _batches(images, batch)])
    return Tally.of(logits / model.temperature, labels_of(model, [crop.ref.class_name for crop in crops]))


def predictions(model: Model, crops: Sequence[Crop], logits: Tensor, *, evaluated: bool) -> list[Prediction]:
    """One row for each crop; logits float32 (B, K), of equal ones the first class counts.

    Raises: WeightsError if a logit is not finite.
    """
    shares = np.exp(log_probabilities(logits / model.temperature))
    order = logits.argsort(dim=1, descending=True, stable=True)[:, :TOP]
    rows = []
    for row, crop in enumerate(crops):
        top = tuple((model.classes[index], float(shares[row, index])) for index in order[row].tolist())
        rows.append(
            Prediction(
                image_id=crop.ref.image_id,
                class_name=top[0][0],
                probability=top[0][1],
                top5=top,
                source_sha256=crop.sha256,
                true_class=crop.ref.class_name if evaluated else None,
                logits=tuple(logits[row].tolist()) if evaluated else None,
            )
        )
    return rows


def doubt_of(row: Prediction, nll: float | None = None) -> Doubt:
    """What a person is told of a row."""
    return Doubt(
        image_id=row.image_id,
        class_name=row.class_name,
        probability=row.probability,
        true_class=row.true_class,
        nll=nll,
    )


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Up to `size` items at a time, in order."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
