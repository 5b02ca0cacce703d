"""How often a unit was begun: one that kills its worker each time must end as a failure, not go on for ever.

A marker lies in the output while a unit is worked on; a process that dies leaves it there, for the next to see.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vtray.errors import UnfinishedUnits
from vtray.storage import Storage

FOLDER = "_vtray/attempts"
LIMIT = 5  # spot machines take workers away too, but hardly the same unit's so many times


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """The attempts of one run; another run of the same command counts anew."""

    storage: Storage
    run: str

    @contextmanager
    def of(self, unit: str) -> Iterator[None]:
        """Around the work on a unit. Raises: UnfinishedUnits if LIMIT processes ended inside of it."""
        number = next((n for n in range(1, LIMIT + 1) if self.storage.create(self._key(unit, n), b"")), None)
        if number is None:
            raise UnfinishedUnits(
                f"{LIMIT} workers in a row died while they worked on it: too little memory, or a crash in a "
                "library; Ray's logs have the signal; make units smaller or take the image out"
            )
        try:
            yield
        finally:
            for earlier in range(1, number + 1):
                self.storage.delete(self._key(unit, earlier))

    def _key(self, unit: str, number: int) -> str:
        return f"{FOLDER}/{self.run}/{unit}-{number}"


def clear_attempts(storage: Storage) -> None:
    """Remove the markers that killed processes left."""
    for entry in storage.list(FOLDER):
        storage.delete(entry.key)
