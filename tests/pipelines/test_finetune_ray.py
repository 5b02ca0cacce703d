"""Training on Ray: several workers, streamed images, and SIGKILL of workers and driver in the middle.

VTRAY_KILLS sets how many times an only worker and its driver are killed (default 1 each).
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
EPOCHS = 5 + 5 * KILLS  # some are left after the last kill, on a slow machine too
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


GROUP = {"num_workers": 2, "loop": {"epochs": EPOCHS, "batch_size": 8}, "max_restarts": 9}
ALONE = {"loop": {"epochs": EPOCHS, "batch_size": 8, "ema_decay": 0.9}, "max_restarts": 9}


@pytest.fixture(scope="module")
def group_run(place, tmp_path_factory, ray_cluster):
    """A training by two workers that nobody disturbs: its report and its output.

    As an elastic group, whose workers hold all CPUs: the loaders must come to theirs all the same.
    """
    output = tmp_path_factory.mktemp("group") / "out"
    return finetune.run(config_for(place, output, **GROUP | {"num_workers": [2, 2]})), output


def test_two_workers_share_uneven_rows_and_count_every_validation_image(group_run):
    report, output = group_run
    history = history_of(output)
    assert [record["images"] for record in history] == EPOCHS * [104]
    assert [record["val_images"] for record in history] == EPOCHS * [7]
    assert report.epochs == EPOCHS
    assert verify(open_storage(str(output)), deep=True).faults == ()


def test_a_group_that_loses_a_worker_ends_with_the_same_weights(place, group_run, tmp_path):
    output, file = tmp_path / "out", tmp_path / "run.yaml"
    file.write_text(settings.dump(config_for(place, output, **GROUP)))
    driver = Driver("finetune", file)
    kill_one_that_trains(driver, output, random.Random(5))
    driver.end()
    assert_same_model(output, group_run[1])


def test_kills_at_random_moments_leave_the_same_weights(place, tmp_path, ray_cluster):
    calm, output, moments = tmp_path / "calm", tmp_path / "out", random.Random(3)
    finetune.run(config_for(place, calm, **ALONE, num_workers=0))
    file = tmp_path / "run.yaml"
    file.write_text(settings.dump(config_for(place, output, **ALONE, num_workers=1)))
    for _ in range(KILLS):
        driver = Driver("finetune", file)
        kill_one_that_trains(driver, output, moments)
        now = num_epochs(output)
        driver.wait_for(lambda now=now: num_epochs(output) > now)
        driver.kill()
        assert not (output / "_SUCCESS").exists()
    Driver("finetune", file).end()
    assert_same_model(output, calm)


def kill_one_that_trains(driver, output, moments):
    """Wait for the next epoch's record, and a moment more."""
    before = num_epochs(output)
    assert driver.wait_for(lambda: num_epochs(output) > before and bool(train_workers()))
    time.sleep(moments.uniform(0, 0.3))
    moments.choice(train_workers()).kill()


def assert_same_model(output, calm):
    for name in ("model.safetensors", "metrics.jsonl"):
        assert model_bytes(output)[name] == model_bytes(calm)[name], name


def num_epochs(output):
    return len(list(output.glob("_vtray/training-*/epochs/*.json")))


def train_workers():
    """The processes that train, alone or in a group of Ray Train, of the cluster that this test run started."""
    return [child for child in psutil.Process().children(recursive=True) if _trains(child)]


def _trains(process):
    try:
        return "TrainWorker" in " ".join(process.cmdline()[:1])
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
