"""What tests share: the real images where they are, drawn ones everywhere, and one local Ray cluster."""

import os

import pytest
from drawn import FIXTURES, draw_image
from PIL import Image
from ray_starts import one_start_at_a_time

from jobs import environment

pytest_plugins = ["s3_server", "spread"]

for name, value in environment.DEFAULTS.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side: their threads would wait for each other
os.environ.setdefault("RAY_worker_niceness", "0")  # else tests beside them starve Ray's workers


@pytest.fixture(scope="session")
def fixtures():
    """The folder of real images and weights; tests that need it are skipped elsewhere."""
    if not (FIXTURES / "MANIFEST.csv").is_file():
        pytest.skip(f"no fixtures at {FIXTURES}; set VTRAY_FIXTURES")
    return FIXTURES


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory):
    """A class folder of 24 JPEGs: can, carton and bottle, eight each."""
    root = tmp_path_factory.mktemp("images")
    for number in range(24):
        folder = root / ("bottle", "can", "carton")[number % 3]
        folder.mkdir(exist_ok=True)
        Image.fromarray(draw_image(number)).save(folder / f"{number:02}.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory):
    """One local Ray of two CPUs for a test process; tests share it and end nothing that they did not start."""
    import ray

    with one_start_at_a_time(tmp_path_factory):
        start_ray()
    yield
    ray.shutdown()


def start_ray(attempts=3):
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=200_000_000,
            log_to_driver=False,
            logging_level="warning",
        )
    except Exception:
        if attempts == 1:
            raise
        ray.shutdown()
        start_ray(attempts - 1)


@pytest.fixture
def in_process(monkeypatch):
    """The whole pipeline with the step called here instead of on a cluster: for what does not depend on Ray."""

    from pipelines import batch, cluster, units

    def run_units(units, step, digests, *, workers):
        return (step(unit, digests[unit.unit_id]) for unit in units)

    two_cpus = cluster.Cluster(nodes=(cluster.Node(num_cpus=2),))
    monkeypatch.setattr(cluster, "connect", lambda address: two_cpus)
    monkeypatch.setattr(batch, "run_units", run_units)
    monkeypatch.setattr(units, "run_units", run_units)
