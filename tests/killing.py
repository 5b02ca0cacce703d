"""A job as its own process on the cluster of the test run, and ways to kill it and its workers."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 240  # a driver's start alone takes a minute when other tests run beside it


class Driver:
    """`vtray JOB --config FILE`, on the cluster of this test run."""

    def __init__(self, job, config_file):
        import ray

        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-m", "jobs.cli", job, "--config", str(config_file)]
        self.process = subprocess.Popen(
            [*command, "--set", f"cluster={address}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def wait_for(self, condition):
        """True when `condition()` holds; False if the driver ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, "the driver does not get on"
            time.sleep(0.01)
        return True

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self):
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, output.decode()


def num_receipts(output):
    return len(list((output / "_vtray" / "receipts").glob("*.json")))


def workers():
    """The actors of the cluster that this test run started."""
    return [child for child in psutil.Process().children(recursive=True) if _is_worker(child)]


def _is_worker(process):
    try:
        return "MapWorker" in " ".join(process.cmdline()[:1])
    except psutil.Error:  # it has just ended
        return False


def kill_a_worker(moments):
    alive = workers()
    if alive:
        moments.choice(alive).kill()
    return bool(alive)
