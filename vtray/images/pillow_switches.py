"""Pillow's process-wide switches, set while we decode and given back afterwards."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from PIL import Image as Pillow
from PIL import ImageFile


class PillowSwitches:
    """Pillow's process-wide switches as decoding needs them, while any thread decodes.

    Truncated files are refused, bombs are measured by our limit, and warnings of Pillow are silent; the user's own
    settings come back when the last thread leaves. One shared state, because neither these switches nor
    `warnings.catch_warnings` are safe when threads set and restore them in turn.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._restore = ExitStack()

    @contextmanager
    def __call__(self, max_pixels: int) -> Iterator[None]:
        with self._lock:
            if self._threads == 0:
                self._set()
            # Pillow checks while it opens, before we see the size, and raises at twice this number.
            Pillow.MAX_IMAGE_PIXELS = max(Pillow.MAX_IMAGE_PIXELS, max_pixels)
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._restore.close()

    def _set(self) -> None:
        self._restore.callback(setattr, Pillow, "MAX_IMAGE_PIXELS", Pillow.MAX_IMAGE_PIXELS)
        self._restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
        self._restore.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        Pillow.MAX_IMAGE_PIXELS = 0
        ImageFile.LOAD_TRUNCATED_IMAGES = False


pillow_switches = PillowSwitches()
