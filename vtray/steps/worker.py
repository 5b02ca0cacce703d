"""What a worker process needs before it works on images."""

import ctypes
import sys

import cv2

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
KEPT_BYTES = 256 << 20


def prepare_worker() -> None:
    """One thread per process, and freed image buffers stay with the process.

    One process per CPU does the work, so threads inside each would only fight over them. glibc returns every freed
    buffer above 128 KiB to the kernel, and the next image pays page faults for its pixels again.
    """
    cv2.setNumThreads(0)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc; musl has none
            libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
            libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
            libc.mallopt(M_TOP_PAD, 16 << 20)
