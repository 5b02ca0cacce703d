"""SIGKILL of stylize's driver and workers at random moments, then the same command: the same bytes.

VTRAY_KILLS sets how many times (default 2); from 10 on the catalog is sixty real files, where they are.
"""

import os
import random
import time

import pytest
from drawn import FIXTURES, draw_image
from killing import Driver, kill_a_worker, num_receipts, workers
from PIL import Image
from style_support import stylize_config, write_painting, write_weights
from support import output_bytes

from pipelines import stylize
from vtray import settings
from vtray.storage import open_storage
from vtray.verification import verify

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

KILLS = int(os.environ.get("VTRAY_KILLS", "2"))
MANY = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A catalog of several sizes with broken files among them."""
    folder = tmp_path_factory.mktemp("kill")
    (folder / "catalog").mkdir()
    if KILLS >= MANY and FIXTURES.is_dir():
        for path in [*FIXTURES.glob("messy/*"), *FIXTURES.glob("content/*")]:
            (folder / "catalog" / path.name).symlink_to(path)
    else:
        for number in range(6 * KILLS):
            Image.fromarray(draw_image(number, 48, 48 + 16 * (number % 2))).save(
                folder / f"catalog/{number:03}.png"
            )
        (folder / "catalog/broken.jpg").write_bytes(b"\xff\xd8\xff")
    write_weights(folder / "tiny.pth")
    write_painting(folder / "painting.png")
    return folder


def config_for(place, output):
    return stylize_config(
        place / "catalog",
        output,
        weights=place / "tiny.pth",
        painting=place / "painting.png",
        engine={"steps": 40, "size_px": 64},
        units={"max_images": 2},
        max_failed=0.25,
    )


def test_kills_at_random_moments(place, tmp_path, ray_cluster, in_process):
    calm, output, moments = tmp_path / "calm", tmp_path / "out", random.Random(5)
    stylize.run(config_for(place, calm))
    file = tmp_path / "run.yaml"
    file.write_text(settings.dump(config_for(place, output)))
    num_units = len(list((calm / "_vtray/receipts").iterdir()))
    killed = {"driver": 0, "worker": 0}
    while sum(killed.values()) < KILLS and num_receipts(output) < num_units - 1:
        driver, wanted = Driver("stylize", file), num_receipts(output) + moments.choice([0, 1])
        assert driver.wait_for(lambda wanted=wanted: num_receipts(output) >= wanted and bool(workers()))
        time.sleep(moments.uniform(0, 0.5))
        if sum(killed.values()) % 2 == 0:
            killed["worker"] += kill_a_worker(moments)
            now = num_receipts(output)
            driver.wait_for(lambda now=now: num_receipts(output) > now)
        driver.kill()
        killed["driver"] += 1
        assert_nothing_looks_finished(output, num_units)
    Driver("stylize", file).end()
    assert killed["driver"] >= 1
    assert killed["worker"] >= 1
    assert output_bytes(output) == output_bytes(calm)
    assert verify(open_storage(str(output)), deep=True).faults == ()
    print(f"killed {killed}")


def assert_nothing_looks_finished(output, num_units):
    """No mark, no manifest, and every file in `data` is a whole image."""
    if num_receipts(output) < num_units:
        assert not (output / "_SUCCESS").exists()
        assert not (output / "_vtray" / "manifest.json").exists()
    for path in output.glob("data/*"):
        Image.open(path).load()
