"""What this machine has for work, known without starting Ray."""

import os
from pathlib import Path

from pipelines.cluster import Node

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def this_machine(*, num_gpus: int = 0) -> Node:
    """The CPUs that this process may use."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return Node(num_cpus=len(usable), num_gpus=num_gpus)


def gpu_here() -> bool:
    """Whether this machine has a GPU; imports torch."""
    import torch

    return torch.cuda.is_available()


def memory_bytes() -> int:
    """The memory of this machine, or of the container around this process if that has less."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([installed, *filter(None, map(_limit_in, CGROUP_LIMITS))])


def _limit_in(file: str) -> int | None:
    """Bytes in a file of the kernel's; None where there is none or it says "max"."""
    try:
        text = Path(file).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
