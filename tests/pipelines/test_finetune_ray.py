"""Training on Ray: several workers, streamed images, and SIGKILL of workers and driver in the middle.

VTRAY_KILLS sets how many times a worker and a driver are killed (default 1 each).
"""

import os
import random
import time

import psutil
import pytest
from finetune_support import config_of, history_of, model_bytes, write_backbone, write_images
from killing import Driver

from pipelines import finetune
from vtray import settings
from vtray.errors import VtrayError
from vtray.storage import open_storage
from vtray.verification import verify

pytestmark = pytest.mark.ray
KILLS = int(os.environ.get("VTRAY_KILLS", "1"))
AUGMENT = [{"op": "random_resized_crop", "size_px": 32}, {"op": "flip"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """101 training images and 7 to validate with, and weights."""
    folder = tmp_path_factory.mktemp("train")
    write_images(folder / "images", train=101, val=7)
    write_backbone(folder / "backbone.safetensors")
    return folder


def config_for(place, output, **values):
    values = {"loop": {"epochs": 2, "batch_size": 8}, "operators": AUGMENT, "units": {"max_images": 16}} | values
    return config_of(place / "images", output, place / "backbone.safetensors", **values)


def test_two_workers_share_uneven_rows_and_count_every_validation_image(place, tmp_path, ray_cluster):
    report = finetune.run(config_for(place, tmp_path / "out", num_workers=2))
    history = history_of(tmp_path / "out")
    assert [record["images"] for record in history] == [104, 104]
    assert [record["val_images"] for record in history] == [7, 7]
    assert report.epochs == 2
    assert verify(open_storage(str(tmp_path / "out")), deep=True).faults == ()


def test_kills_at_random_moments_leave_the_same_weights(place, tmp_path, ray_cluster):
    values = {"loop": {"epochs": 5, "batch_size": 8, "ema_decay": 0.9}, "num_workers": 1, "max_restarts": 9}
    calm, output, moments = tmp_path / "calm", tmp_path / "out", random.Random(3)
    tracking = {"tracking": {"uri": "none"}}
    finetune.run(config_for(place, calm, **values | {"num_workers": 0}, **tracking))
    file = tmp_path / "run.yaml"
    file.write_text(settings.dump(config_for(place, output, **values, **tracking)))
    for _ in range(KILLS):
        driver, before = Driver("finetune", file), num_epochs(output)
        assert driver.wait_for(lambda before=before: num_epochs(output) > before and bool(train_workers()))
        time.sleep(moments.uniform(0, 0.3))
        moments.choice(train_workers()).kill()
        now = num_epochs(output)
        driver.wait_for(lambda now=now: num_epochs(output) > now)
        driver.kill()
        assert not (output / "_SUCCESS").exists()
    Driver("finetune", file).end()
    assert model_bytes(output)["model.safetensors"] == model_bytes(calm)["model.safetensors"]
    assert model_bytes(output)["metrics.jsonl"] == model_bytes(calm)["metrics.jsonl"]


def num_epochs(output):
    return len(list(output.glob("_vtray/training-*/epochs/*.json")))


def train_workers():
    """The processes that train, of the cluster that this test run started."""
    return [child for child in psutil.Process().children(recursive=True) if _trains(child)]


def _trains(process):
    try:
        return "RayTrainWorker" in " ".join(process.cmdline()[:1])
    except psutil.Error:  # it has just ended
        return False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_workers": 7}, r"num_workers=7: the cluster has 2 CPUs.*use at most 2"),
        ({"num_workers": [3, 7]}, r"num_workers=3: the cluster has 2 CPUs"),
        ({"num_workers": 2, "loop": {"batch_size": 5}}, r"batch_size 5 cannot be shared by 2 workers"),
        ({"num_workers": 1, "use_gpu": True}, r"use_gpu=true: the cluster has no GPU"),
    ],
)
def test_what_the_cluster_cannot_do_is_refused_before_anything_is_computed(
    place, tmp_path, ray_cluster, values, message
):
    with pytest.raises(VtrayError, match=message) as caught:
        finetune.run(config_for(place, tmp_path / "out", **values))
    assert caught.value.exit_code in (2, 4)
    assert not list((tmp_path / "out").glob("_vtray/training-*/**/*.*"))
