"""Epoch-boundary checkpoints of a training in a storage folder, local or s3://.

One checkpoint is a blob (`000007-<sha256>.pt`) and, written after it, a sidecar (`.json`) with its hash: without a
right sidecar it does not exist. Uploads run in the background; a damaged newest one falls back to the one before.
"""

import hashlib
import io
import json
import logging
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from vtray.errors import StorageError, StorageMissing
from vtray.manifest import canonical
from vtray.storage import Storage

log = logging.getLogger(__name__)

FOLDER = "_vtray/checkpoints"
BLOB, SIDECAR = ".pt", ".json"
NAME_DIGITS = 12  # of the sha256 in a key: two runs of an epoch with different bits do not overwrite each other

State = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a training after `epoch` (counted from 0); tensors lie on the CPU."""

    epoch: int
    metrics: dict[str, float]
    state: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What is known of a blob without reading it; `fingerprint` is the identity of the training."""

    epoch: int
    fingerprint: str
    sha256: str
    bytes: int
    metrics: dict[str, float]

    @property
    def stem(self) -> str:
        """The key of blob and sidecar, without folder and ending."""
        return f"{self.epoch:06}-{self.sha256[:NAME_DIGITS]}"


@dataclass(frozen=True)
class _Upload:
    score: float
    stored: Future[None]


@dataclass(kw_only=True)
class Checkpoints:
    """The checkpoints of one training: save and forget, find the newest or the best that is whole.

    fingerprint: of everything that decides the weights; checkpoints with another one are neither used nor removed.
    best_by: the metric that the best checkpoint is chosen by, higher is better; of equal ones the earliest wins.
    Only one process saves (rank 0).
    """

    storage: Storage
    fingerprint: str
    folder: str = FOLDER
    keep_last: int = 2
    keep_best: int = 1
    best_by: str = "top1"

    def __post_init__(self) -> None:
        self._uploader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint-upload")
        self._uploads: list[_Upload] = []
        self._best: _Upload | None = None

    def save(self, epoch: int, state: State, *, metrics: Mapping[str, float]) -> None:
        """Take the state as it is now and store it in the background; returns when the state may change again.

        A checkpoint that still waits for an earlier upload gives way to this one, unless it is the best so far.
        Raises: TypeError if `state` holds what torch.load(weights_only=True) would refuse.
        """
        stored = self._uploader.submit(self._store, epoch, dict(metrics), _encoded(state))
        upload = _Upload(self._score(metrics), stored)
        if self._best is None or upload.score > self._best.score:
            self._best = upload
        self._uploads = [earlier for earlier in self._uploads if not self._give_way(earlier)] + [upload]

    def wait(self) -> None:
        """Return when everything is stored. Raises: what kept the newest or the best checkpoint from storage."""
        wait_for([upload.stored for upload in self._uploads])
        for upload in self._uploads[-1:] + ([self._best] if self._best else []):
            upload.stored.result()

    def newest(self) -> Checkpoint | None:
        """The whole checkpoint of the latest epoch; damaged ones are passed over with a warning.

        Raises: StorageError if storage does not answer: that is no reason to train from the beginning.
        """
        return next(self._whole(self._own_sidecars()), None)

    def best(self) -> Checkpoint | None:
        """The whole checkpoint with the highest `best_by`. Raises: as newest."""
        return next(self._whole(self._ranked(self._own_sidecars())), None)

    def clear(self) -> None:
        """Remove all checkpoints of the folder, whosesoever they are."""
        self.wait()
        self._delete(self._stems())

    def _give_way(self, upload: _Upload) -> bool:
        """Whether an upload can be forgotten: it has ended, or had not begun and is cancelled now."""
        return upload is not self._best and (upload.stored.cancel() or upload.stored.done())

    def _store(self, epoch: int, metrics: dict[str, float], blob: bytes) -> None:
        digest = hashlib.sha256(blob).hexdigest()
        sidecar = Sidecar(
            epoch=epoch, fingerprint=self.fingerprint, sha256=digest, bytes=len(blob), metrics=metrics
        )
        try:
            self.storage.put(self._key(sidecar.stem, BLOB), blob)
            self.storage.put(self._key(sidecar.stem, SIDECAR), canonical(asdict(sidecar)))
        except StorageError as error:  # heard of now; wait() raises it, but may be called hours later
            log.warning("checkpoint of epoch %d is not stored: %s", sidecar.epoch, error)
            raise
        try:
            self._prune(sidecar)
        except StorageError as error:  # costs space only
            log.warning("old checkpoints are not removed: %s", error)

    def _prune(self, saved: Sidecar) -> None:
        """Keep the last, the best and what was saved now; nothing else of its epoch, no blob without a sidecar."""
        stems = self._stems()
        sidecars = self._sidecars(stems)
        foreign = [sidecar for sidecar in sidecars if sidecar.fingerprint != self.fingerprint]
        own = [
            sidecar
            for sidecar in sidecars
            if sidecar not in foreign and (sidecar.epoch != saved.epoch or sidecar.stem == saved.stem)
        ]
        kept = [saved, *foreign, *own[: self.keep_last], *self._ranked(own)[: self.keep_best]]
        self._delete(stems - {sidecar.stem for sidecar in kept})

    def _delete(self, stems: set[str]) -> None:
        for stem in sorted(stems):  # the sidecar first: a blob alone is nothing, a sidecar alone is a warning
            self.storage.delete(self._key(stem, SIDECAR))
            self.storage.delete(self._key(stem, BLOB))

    def _whole(self, sidecars: list[Sidecar]) -> Iterator[Checkpoint]:
        """The checkpoints that are as they were written, read one at a time."""
        for sidecar in sidecars:
            blob = self._blob(sidecar)
            if blob is not None:
                state = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
                yield Checkpoint(epoch=sidecar.epoch, metrics=sidecar.metrics, state=state)

    def _blob(self, sidecar: Sidecar) -> bytes | None:
        """The blob, or None with a warning if it is not the one that was written."""
        key = self._key(sidecar.stem, BLOB)
        try:
            blob = self.storage.read(key)
        except StorageMissing:
            log.warning("%s/%s: is missing; passed over", self.storage.uri, key)
            return None
        if hashlib.sha256(blob).hexdigest() != sidecar.sha256:
            fault = f"{len(blob)} of {sidecar.bytes} bytes" if len(blob) != sidecar.bytes else "another sha256"
            log.warning("%s/%s: is damaged (%s); passed over", self.storage.uri, key, fault)
            return None
        return blob

    def _own_sidecars(self) -> list[Sidecar]:
        """The sidecars of this training, latest epoch first."""
        return [s for s in self._sidecars(self._stems()) if s.fingerprint == self.fingerprint]

    def _sidecars(self, stems: set[str]) -> list[Sidecar]:
        """The sidecars that can be read, latest epoch first."""
        return [sidecar for stem in sorted(stems, reverse=True) if (sidecar := self._sidecar(stem))]

    def _sidecar(self, stem: str) -> Sidecar | None:
        """What the sidecar says; None if there is none, or with a warning if it cannot be read."""
        key = self._key(stem, SIDECAR)
        try:
            return Sidecar(**json.loads(self.storage.read(key)))
        except StorageMissing:
            return None
        except (ValueError, TypeError):
            log.warning("%s/%s: is damaged; passed over", self.storage.uri, key)
            return None

    def _ranked(self, sidecars: list[Sidecar]) -> list[Sidecar]:
        """Best first; of equal ones the earliest first."""
        return sorted(sidecars, key=lambda sidecar: (-self._score(sidecar.metrics), sidecar.epoch))

    def _score(self, metrics: Mapping[str, float]) -> float:
        score = metrics.get(self.best_by, math.nan)
        return -math.inf if math.isnan(score) else score

    def _stems(self) -> set[str]:
        """Everything that begins or completes a checkpoint in the folder."""
        keys = (entry.key.rpartition("/")[2] for entry in self.storage.list(self.folder))
        return {key.rpartition(".")[0] for key in keys if key.endswith((BLOB, SIDECAR))}

    def _key(self, stem: str, ending: str) -> str:
        return f"{self.folder}/{stem}{ending}"


def _encoded(state: State) -> bytes:
    """The state as torch.save writes it. Raises: TypeError if it needs more than tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    needed = torch.serialization.get_unsafe_globals_in_checkpoint(buffer)
    if needed:
        raise TypeError(f"a checkpoint holds tensors and plain values only, not {', '.join(sorted(needed))}")
    return buffer.getvalue()
