"""SIGKILL at random moments, then the same command: nothing is lost, nothing differs.

VTRAY_KILLS sets how many times (default 4); a driver and a worker are killed in turn.
"""

import os
import random
import signal
import time

from killing import PATIENCE_S, Driver, kill_a_worker, num_receipts, workers
from support import config_for, output_bytes

from pipelines import augment
from vtray import settings
from vtray.shards import read_rows
from vtray.storage import open_storage
from vtray.verification import verify

KILLS = int(os.environ.get("VTRAY_KILLS", "4"))
VARIANTS = 250 if KILLS <= 4 else 1500  # more kills need longer units, or the work is done before the last
WORK = {"variants": VARIANTS, "units": {"max_images": 1}}  # 24 units


def test_kills_at_random_moments(tiny_images, tmp_path, ray_cluster):
    augment.run(config_for(tiny_images, tmp_path / "calm", **WORK))
    output, moments = tmp_path / "out", random.Random(7)
    file = tmp_path / "run.yaml"
    file.write_text(settings.dump(config_for(tiny_images, output, **WORK)))
    killed = {"driver": 0, "worker": 0}
    while sum(killed.values()) < KILLS and num_receipts(output) < 23:
        driver, wanted = Driver("augment", file), num_receipts(output) + moments.choice([0, 0, 1, 2])
        assert driver.wait_for(lambda wanted=wanted: num_receipts(output) > wanted - 1 and bool(workers()))
        time.sleep(moments.uniform(0, 0.5))
        if sum(killed.values()) % 2:
            killed["worker"] += kill_a_worker(moments)
            now = num_receipts(output)
            driver.wait_for(lambda now=now: num_receipts(output) > now)
        driver.kill()
        killed["driver"] += 1
        assert_nothing_looks_finished(output)
    last = Driver("augment", file)
    last.end()
    assert killed["driver"] >= 2
    assert killed["worker"] >= 1
    assert output_bytes(output) == output_bytes(tmp_path / "calm")
    assert verify(open_storage(str(output)), deep=True).faults == ()
    print(f"killed {killed}")


def assert_nothing_looks_finished(output):
    """No mark, no manifest, and every file in `data` is whole."""
    if num_receipts(output) < 24:
        assert not (output / "_SUCCESS").exists()
        assert not (output / "_vtray" / "manifest.json").exists()
    for path in output.glob("data/*"):
        assert len(read_rows(path.read_bytes(), format="parquet")) == VARIANTS + 1


def test_an_interrupted_run_says_so(tiny_images, tmp_path, ray_cluster):
    output, file = tmp_path / "out", tmp_path / "run.yaml"
    file.write_text(settings.dump(config_for(tiny_images, output, **WORK)))
    driver = Driver("augment", file)
    assert driver.wait_for(lambda: num_receipts(output) > 1)
    driver.process.send_signal(signal.SIGTERM)
    text, _ = driver.process.communicate(timeout=PATIENCE_S)
    assert driver.process.returncode == 130, text.decode()
    assert "run the same command again to go on" in text.decode()
    assert not (output / "_SUCCESS").exists()
