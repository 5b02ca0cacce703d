"""`ray job submit` to a real head: on loopback, behind a token, in a process group that the test ends itself."""

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_starts import one_start_at_a_time
from style_support import write_painting, write_weights

from vtray.storage import open_storage
from vtray.verification import verify

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
READY_S = 300


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head: where it listens, what its clients need, and its folder."""

    port: int
    env: Mapping[str, str]
    folder: Path

    def get(self, path, *, token=None):
        """Status and body of one HTTP request; without a token it is an outsider's."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def job(self, name):
        """What the job server says of a submitted job, with its log."""
        token = self.env["RAY_AUTH_TOKEN"]
        details, logs = (json.loads(self.get(f"/api/jobs/{name}{part}", token=token)[1]) for part in ("", "/logs"))
        return details | logs

    def submit(self, name, *overrides, job="augment", recipe="smoke"):
        """`ray job submit` of a recipe as a user types it; returns when the job has ended."""
        sets = [part for override in overrides for part in ("--set", override)]
        job = ["python", f"jobs/{job}.py", "--config", f"recipes/{recipe}.yaml", *sets]
        return subprocess.run(
            ["ray", "job", "submit", "--submission-id", name, "--working-dir", str(ROOT), "--", *job],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )


def free_ports(count):
    """Different ports, because all of them are held until the last one is found."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def environment(port):
    """Ours without any other Ray; `python` and `ray` in the job are those of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    ray |= {"RAY_raylet_start_wait_time_s": "120"}  # as long as a machine may take that runs other tests
    return kept | ray | {"PATH": path, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}


def start(head, *, client_port, agent_port):
    """The head as a child and leader of its own process group. Ports are free ones: another Ray may run here."""
    ports = {"port": 0, "dashboard-port": head.port}
    ports |= {"ray-client-server-port": client_port, "dashboard-agent-listen-port": agent_port}
    options = ports | {"dashboard-host": "127.0.0.1", "num-cpus": 2, "object-store-memory": 200_000_000}
    with (head.folder / "head.txt").open("w") as output:
        return subprocess.Popen(
            ["ray", "start", "--head", "--block", "--include-log-monitor=false", f"--temp-dir={head.folder}"]
            + [f"--{name}={value}" for name, value in options.items()],
            env=head.env,
            cwd=head.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def is_ready(head, process):
    """Whether the head answers, after waiting for it as long as it lives."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if head.get("/api/version", token=head.env["RAY_AUTH_TOKEN"])[0] == 200:
                return True
        except OSError:  # nobody listens yet
            pass
        time.sleep(0.2)
    return False


def end(process):
    """End the whole group at once: nothing in it is worth a farewell."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # short: it holds sockets, whose paths are limited
    port, client_port, agent_port = free_ports(3)
    head = Head(port=port, env=environment(port), folder=folder)
    with one_start_at_a_time(tmp_path_factory):
        for _ in range(2):  # Ray gives up a dashboard that takes long
            process = start(head, client_port=client_port, agent_port=agent_port)
            if ready := is_ready(head, process):
                break
            end(process)
    try:
        if not ready:
            pytest.fail(f"the head did not start:\n{(folder / 'head.txt').read_text()}")
        yield head
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def finished(head, tiny_images, tmp_path_factory):
    """A job that went well: the command and its output."""
    output = tmp_path_factory.mktemp("submitted") / "out"
    addresses = (f"input.uri={tiny_images}", f"output.uri={output}")
    return head.submit("good", *addresses, "tracking.uri=none"), output


def test_nobody_gets_in_without_the_token(head):
    assert head.get("/api/jobs/")[0] == 401
    assert head.get("/api/jobs/", token="0" * 64)[0] in (401, 403)
    assert head.get("/api/jobs/", token=head.env["RAY_AUTH_TOKEN"])[0] == 200


def test_a_submitted_job_finishes_its_output(head, finished):
    command, output = finished
    job = head.job("good")
    assert command.returncode == 0, command.stdout + command.stderr
    assert (job["status"], job["driver_exit_code"]) == ("SUCCEEDED", 0)
    assert "48 in" in job["logs"]  # rows in the table: 24 originals, one variant each
    verdict = verify(open_storage(str(output)), deep=True)
    assert (verdict.faults, verdict.num_files > 0) == ((), True)
    assert (output / "_SUCCESS").exists()


def test_the_upload_holds_all_code_and_little_else(head, finished):
    *_, package = head.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    sent = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    code = {
        path.relative_to(ROOT) for name in ("jobs", "pipelines", "vtray") for path in (ROOT / name).rglob("*.py")
    }
    assert len(code) > 50
    assert code - sent == set()
    assert {path.parts[0] for path in sent} & {".venv", ".git", "tests", "docs", "benchmarks", "mlruns"} == set()
    assert sum((package / path).stat().st_size for path in sent) < 5_000_000


def test_a_wrong_config_fails_the_job_with_one_clear_line(head, tiny_images, tmp_path):
    addresses = (f"input.uri={tiny_images}", f"output.uri={tmp_path / 'out'}")
    command = head.submit("wrong", *addresses, "tracking.uri=none", "variant=2")
    job = head.job("wrong")
    assert command.returncode != 0
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)
    (line,) = [line for line in job["logs"].splitlines() if line.startswith("error:")]
    assert "variants" in line
    assert "Traceback" not in job["logs"]
    assert not (tmp_path / "out").exists()


def test_a_submitted_stylize_job_finishes_its_output(head, tiny_images, tmp_path):
    values = {"input.uri": tiny_images / "can", "output.uri": tmp_path / "out", "tracking.uri": "none"}
    values |= {"style.uri": write_painting(tmp_path / "painting.png"), "engine.steps": 2}
    values |= {"features.weights": write_weights(tmp_path / "tiny.pth"), "features.precision": "fp32"}
    values |= {"features.layout": "nchw", "use_gpu": "false", "num_workers": 1}
    overrides = [f"{key}={value}" for key, value in values.items()]
    command = head.submit("style", *overrides, job="stylize", recipe="stylize")
    assert command.returncode == 0, command.stdout + command.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert sorted(path.name for path in (tmp_path / "out/data").iterdir()) == sorted(
        path.name for path in (tiny_images / "can").iterdir()
    )
