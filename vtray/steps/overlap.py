"""Work beside the engine's: what comes in is made ready ahead of it, what comes out is put away behind it.

For a worker whose own processor would wait for its GPU; one thread for each side, so that the order stays.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
Task = Callable[[], None]

DEPTH = 8  # images that are ready or wait; a few tens of megabytes


def ahead(items: Iterable[T], *, depth: int = DEPTH) -> Iterator[T]:
    """The items in their order, up to `depth` of them made while the one before is in use.

    An exception of the source comes at its place; where nobody asks any more, no further item is made.
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[list[T]]] = deque(thread.submit(_next_of, source) for _ in range(depth))
        try:
            while found := waiting.popleft().result():
                waiting.append(thread.submit(_next_of, source))
                yield found[0]
        finally:
            for future in waiting:
                future.cancel()


def _next_of(source: Iterator[T]) -> list[T]:
    """The next item, or nothing at the end; after an exception a generator is at its end too."""
    return list(islice(source, 1))


@contextmanager
def behind(*, depth: int = DEPTH) -> Iterator[Callable[[Task], None]]:
    """Yields what takes a task and does it later, in order; up to `depth` wait. At the end all are done.

    An exception of a task comes with one of the next tasks, or at the end; those that wait are then left undone.
    """
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as thread:

        def later(task: Task) -> None:
            waiting.append(thread.submit(task))
            if len(waiting) > depth:
                waiting.popleft().result()

        try:
            yield later
            while waiting:
                waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def at_once() -> Iterator[Callable[[Task], None]]:
    """As `behind`, with every task done when it comes."""
    yield lambda task: task()
