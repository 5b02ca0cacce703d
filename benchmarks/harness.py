"""What benchmarks share: opponents in processes of their own, taken in turn; medians and ratios as JSON."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FIXTURES = Path(os.environ.get("VTRAY_FIXTURES", ROOT.parent / "shared" / "fixtures"))
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default of 15 gives way to whatever else runs

SERVE = """
import json, sys, time
sys.path[:0] = [{root!r}, {here!r}]
import {module} as module
work = module.{function}({argument!r})
print("ready", flush=True)
for line in sys.stdin:
    start = time.process_time()
    work()
    print(json.dumps(time.process_time() - start), flush=True)
"""


class Opponent:
    """A function in its own process: `module.function(argument)` prepares and returns the work to be timed.

    CPU time counts, of one thread: what else runs on the machine then costs neither side.
    """

    def __init__(self, module: str, function: str, argument: str) -> None:
        code = SERVE.format(
            root=str(ROOT), here=str(ROOT / "benchmarks"), module=module, function=function, argument=argument
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{module}.{function} did not start")

    def seconds(self) -> float:
        """CPU seconds of one round."""
        assert self._process.stdin
        assert self._process.stdout
        print("go", file=self._process.stdin, flush=True)
        return float(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def opponents(makers: Mapping[str, Callable[[], Opponent]]) -> Iterator[dict[str, Opponent]]:
    """All opponents started, and ended in any case."""
    started: dict[str, Opponent] = {}
    try:
        for name, make in makers.items():
            started[name] = make()
        yield started
    finally:
        for opponent in started.values():
            opponent.close()


def interleaved(contestants: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant, in turn A B C A B C; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            taken = contestant()
            if number:
                seconds[name].append(taken)
    return seconds


def ratios(seconds: Mapping[str, list[float]], *, of: str, to: str) -> dict[str, float]:
    """How many times longer `of` took than `to`, round by round: median, least and most."""
    pairs = [one / other for one, other in zip(seconds[of], seconds[to], strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds of each contestant."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}


def write(name: str, result: Mapping[str, object]) -> None:
    """Print the result and keep it in benchmarks/results."""
    content = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), **result}
    text = json.dumps(content, indent=1, default=lambda value: round(value, 4))
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
