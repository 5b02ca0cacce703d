"""Every exception that vtray raises on purpose.

VtrayError                  exit code 4
├── ConfigError             2   wrong option, key or value; all faults at once
├── InputError              2   the named input is missing, empty or of an unknown kind
├── PlanMismatch            2   the output holds another plan
├── TooManyFailures         3   more images failed than max_failed allows
├── UnfinishedUnits         3   some units have no receipt; running again does the rest
├── TrainingDiverged        3   the loss is not finite any more; the last good checkpoint is kept
├── StorageError            4   storage said no, or not now
│   └── StorageDenied       4   no permission
├── ResourcesError          4   the cluster cannot run this
├── WeightsError            4   no weights there, or none that can be used
└── ImageError              -   one bad image; becomes a quarantine row, never leaves a step
"""


class VtrayError(Exception):
    """Something the user can act on; the message is one clear line (or one line per fault)."""

    exit_code = 4


class ConfigError(VtrayError):
    """A wrong option, key or value; the message lists all faults, one line each."""

    exit_code = 2


class InputError(VtrayError):
    """The named input is missing, empty or of an unknown kind."""

    exit_code = 2


class PlanMismatch(VtrayError):
    """The output holds another plan; the message shows the differences."""

    exit_code = 2


class TooManyFailures(VtrayError):
    """More images failed than `max_failed` allows; the output is not marked complete."""

    exit_code = 3


class UnfinishedUnits(VtrayError):
    """Some units have no receipt; running the same command again does only those."""

    exit_code = 3


class TrainingDiverged(VtrayError):
    """The loss became NaN or infinite; the message names the batch, and the last good checkpoint is kept."""

    exit_code = 3


class StorageError(VtrayError):
    """Storage refused or failed after all retries."""


class StorageMissing(StorageError):
    """There is no object or folder of that name."""


class StorageDenied(StorageError):
    """Storage refused for lack of permission."""


class ResourcesError(VtrayError):
    """The cluster has not the CPUs, GPUs or memory that the run asks for."""


class WeightsError(VtrayError):
    """The weights of a network are missing, damaged, not the expected ones, or not weights at all."""


class ImageError(VtrayError):
    """One image cannot be used: `stage` (read, decode, augment, encode) and a short `reason`.

    Steps turn it into one quarantine row; it never ends a job.
    """

    def __init__(self, stage: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str, str]]:
        return type(self), (self.stage, self.reason, str(self))
