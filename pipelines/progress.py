"""How a run shows that it goes on: a live bar on a terminal, else one log line every ten seconds."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

log = logging.getLogger("vtray.progress")

LINE_EVERY_S = 10.0


class Progress:
    """Counts finished images; use as a context manager around the work."""

    def __init__(self, *, total: int, done: int = 0) -> None:
        self.total, self.done, self.failed = total, done, 0
        self._done_before = done
        self._start = time.monotonic()
        self._last_line = -LINE_EVERY_S
        self._bar = _bar(self) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, *, images: int, failed: int) -> bool:
        """Count one finished unit; true for the first and then every ten seconds, when it is time to log."""
        self.done += images
        self.failed += failed
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self.done, text=self.text())
        if time.monotonic() - self._last_line < LINE_EVERY_S:
            return False
        self._last_line = time.monotonic()
        if not self._bar:
            log.info("%s/%s images, %s", self.done, self.total, self.text())
        return True

    @property
    def rate(self) -> float:
        """Images per second of this run, without what earlier runs had done."""
        return (self.done - self._done_before) / max(time.monotonic() - self._start, 1e-6)

    def text(self) -> str:
        """Rate, failures and estimated time to the end."""
        left_s = (self.total - self.done) / self.rate if self.rate else 0
        minutes, seconds = divmod(round(left_s), 60)
        rate = f"{1 / self.rate:.1f} s per image" if 0 < self.rate < 1 else f"{self.rate:.1f} images/s"
        return f"{rate}, {self.failed} failed, {minutes}:{seconds:02} left"


def _bar(progress: Progress):  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), console=Console(stderr=True))
    bar.add_task("images", total=progress.total, completed=progress.done, text="starting workers")
    return bar
