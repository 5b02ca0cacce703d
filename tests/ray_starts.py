"""Starts of Ray, one after the other."""

import fcntl
from contextlib import contextmanager


@contextmanager
def one_start_at_a_time(tmp_path_factory):
    """Around a start of Ray: it gives up what others that start have slowed down for half a minute."""
    with (tmp_path_factory.getbasetemp().parent / "ray-starts").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
