"""The process around a job: environment variables, log lines, signals and exit codes."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from click.exceptions import Abort, ClickException

from vtray.errors import VtrayError

INTERRUPTED = 130

DEFAULTS = {
    "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait slow each other down on a busy machine
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; unset, it warns at every start
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process of its own, for notices that we do not read
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",  # workers that do not come end the run, with a message
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else every pool of actors prints a line that looks like an error
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files of every trial: we keep records
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one prints about failed trials even when it is told to be quiet
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it ends a search as if it were over; ours says that it goes on
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "true",
}


def prepare() -> None:
    """Set what must be set before Ray and MLflow are imported, and send our log lines to stderr."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("vtray").setLevel(logging.INFO)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # says that its own bars are off
    signal.signal(signal.SIGTERM, _interrupt)  # `ray job stop` and schedulers: end as Ctrl-C does


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def dispatch(app: Callable[..., Any], arguments: list[str] | None = None) -> int:
    """Run a typer app; wrong usage becomes one line and exit code 2."""
    try:
        code = app(arguments, standalone_mode=False)
    except ClickException as error:
        print(f"error: {error.format_message()} (--help shows what there is)", file=sys.stderr)
        return error.exit_code
    except Abort:
        raise KeyboardInterrupt from None
    if code == INTERRUPTED:  # typer swallows the interrupt and keeps its exit code
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def exit_code_of(call: Callable[[], int]) -> int:
    """Run a command; our errors become one clear message on stderr and their exit code."""
    try:
        return call()
    except VtrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # a file that the command line named; storage has errors of its own
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return VtrayError.exit_code
