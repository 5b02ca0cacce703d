"""Rows loaded ahead of a training, in order: by a thread of this process, or by loader processes of Ray Data."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Row = dict[str, Any]
Loader = Callable[[Row], Row]

LOADER_CPUS = 0  # loaders use what the training leaves over: workers may hold every CPU, and any share would wait
AHEAD = 3  # rows that wait in this process


def rows_here(rows: Sequence[Row], loader: Loader) -> Iterator[Row]:
    """The rows loaded by one thread, some ahead of the training."""
    waiting = deque[Future[Row]]()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
        for row in rows:
            waiting.append(pool.submit(loader, row))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def rows_on_ray(
    rows: Sequence[Row], loader: type[Any], arguments: Mapping[str, Any], *, loaders: int
) -> Iterator[Row]:
    """The rows loaded by `loaders` processes, each with a `loader` made with `arguments`."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    dataset = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
        loader,
        fn_constructor_kwargs=dict(arguments),
        num_cpus=LOADER_CPUS,
        compute=ray.data.ActorPoolStrategy(size=loaders),
    )
    yield from dataset.iter_rows()
