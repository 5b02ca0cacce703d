"""A search on Ray: what comes out, that the cluster gets everything back, and SIGKILL of trials and driver.

VTRAY_KILLS sets how many drivers are killed (default 1).
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest
from finetune_support import write_backbone, write_images
from killing import Driver
from tune_support import begun, records_of, tune_config

from pipelines import tune
from pipelines.tune_room import Free, everything_returned
from vtray import settings
from vtray.classify.model_dir import load_model
from vtray.errors import ResourcesError
from vtray.storage import open_storage
from vtray.verification import verify

pytestmark = pytest.mark.ray
KILLS = int(os.environ.get("VTRAY_KILLS", "1"))
TRIALS, KILLED_TRIALS = 8, 3
EPOCHS = 20
LASTING = {"loop": {"epochs": EPOCHS}}  # long enough to be met alive
TO_THE_END = {"num_trials": TRIALS, "scheduler": "none"}
SECOND_RAY = (
    "import ray; ray.init('local', num_cpus=1, include_dashboard=False, object_store_memory=80_000_000,"
    " logging_level='error', log_to_driver=False); print('up', flush=True); input()"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    write_images(folder / "images", train=24, val=9)
    write_backbone(folder / "backbone.safetensors")
    return folder


@pytest.fixture(scope="module")
def config_for(place):
    def make(output, **values):
        return tune_config(place / "images", output, place / "backbone.safetensors", **values)

    return make


@pytest.fixture(scope="module")
def calm(config_for, place, ray_cluster):
    """The search of the kill test with nobody killed, its MLflow in calm.db."""
    tracking = {"uri": f"sqlite:///{place}/calm.db"}
    report = tune.run(config_for(place / "calm", search=TO_THE_END, tracking=tracking, **LASTING))
    return place / "calm", report


@pytest.fixture
def second_ray():
    """Another Ray on this host, as a user of the machine might have it."""
    other = subprocess.Popen(
        [sys.executable, "-c", SECOND_RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "up\n"
    yield
    other.communicate("\n")


def test_a_search_leaves_a_model_a_page_records_and_runs(calm, place):
    output, report = calm
    records = records_of(output)
    assert [record["number"] for record in records] == list(range(TRIALS))
    assert {record["status"] for record in records} == {"complete"}
    assert {len(record["epochs"]) for record in records} == {EPOCHS}
    assert records[0]["values"] == {"lr": 1e-3, "freeze": 0}
    assert report.trial_top1 >= report.default_top1
    assert load_model(str(output)).classes == ("a", "b", "c")
    assert f"trial {report.best}" in (output / "report/index.html").read_text()
    assert verify(open_storage(str(output)), deep=True).faults == ()
    again = tune.run(settings.load(tune.TuneConfig, file=output / "_vtray/config.yaml"))
    assert again.nothing_to_do
    assert (again.best, again.values) == (report.best, report.values)


def test_a_parent_run_has_a_child_with_a_curve_for_each_trial(calm, place):
    output, _ = calm
    with sqlite3.connect(place / "calm.db") as store:
        parents = store.execute(
            "select run_uuid from runs where run_uuid not in (select run_uuid from tags where key=?)",
            ("mlflow.parentRunId",),
        ).fetchall()
        assert len(parents) == 1
        children = store.execute(
            "select r.name, r.status, count(m.step), count(distinct m.step)"
            " from runs r join tags t using(run_uuid) join metrics m using(run_uuid)"
            " where t.key='vtray.child' and m.key='val_top1' group by r.run_uuid"
        ).fetchall()
        assert sorted(children) == [(f"{n:04}", "FINISHED", EPOCHS, EPOCHS) for n in range(TRIALS)]
        refits = store.execute("select name from runs where name like 'tune-refit-%'").fetchall()
    assert len(refits) == 1
    assert json.loads((output / "_vtray/tracking.json").read_text())["run_id"] == parents[0][0]


def test_weak_trials_are_stopped_hopeless_ones_are_rows_and_the_cluster_gets_everything_back(
    config_for, tmp_path, ray_cluster, second_ray
):
    before = Free.now()
    search = {"searcher": "grid", "num_trials": None, "metric": "val_loss"}
    space = {"lr": [1e-3, 1e-7, 1e30], "freeze": ["all"]}
    report = tune.run(
        config_for(tmp_path / "out", search=search | {"space": space}, freeze="all", loop={"epochs": 6})
    )
    assert not Free.now().lacks(before)
    records = {record["values"]["lr"]: record for record in records_of(tmp_path / "out")}
    weak, hopeless = records[1e-7], records[1e30]
    assert (weak["status"], len(weak["epochs"])) in [("stopped", 1), ("stopped", 3), ("complete", 6)]
    assert report.stopped == (weak["status"] == "stopped")
    assert (len(records[1e-3]["epochs"]), records[1e-3]["number"]) == (6, 0)
    assert (hopeless["status"], hopeless["attempts"]) == ("failed", 1)
    assert hopeless["reason"].startswith("the loss is nan in epoch 0")
    assert (report.trials, report.trials_failed) == (3, 1)
    assert hopeless["reason"].partition("(")[0] in (tmp_path / "out/report/index.html").read_text()


@pytest.fixture
def driver_of():
    """Start drivers; none outlives the test."""
    drivers = []

    def start(file):
        drivers.append(Driver("tune", file))
        return drivers[-1]

    yield start
    for driver in drivers:
        if driver.process.poll() is None:
            driver.kill()


def is_tracked(database):
    """Whether MLflow has made its tables and begun a run: a kill while it makes them is another story."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as store:
            return bool(store.execute("select count(*) from runs").fetchone()[0])
    except sqlite3.Error:
        return False


def test_killed_trials_and_a_killed_driver_change_nothing(config_for, calm, tmp_path, driver_of, ray_cluster):
    output, moments, file = tmp_path / "out", random.Random(5), tmp_path / "run.yaml"
    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    file.write_text(settings.dump(config_for(output, search=TO_THE_END, tracking=tracking, **LASTING)))
    driver, killed = driver_of(file), set()
    while len(killed) < KILLED_TRIALS:
        wanted = len(killed)
        assert driver.wait_for(lambda wanted=wanted, seen=killed: num_records(output) >= wanted and alive(seen))
        time.sleep(moments.uniform(0, 0.3))
        for victim in alive(killed)[:1]:
            victim.kill()
            killed.add(victim.pid)
    for _ in range(KILLS):
        now = num_records(output)
        assert driver.wait_for(lambda now=now: num_records(output) > now and is_tracked(tmp_path / "mlflow.db"))
        time.sleep(moments.uniform(0, 0.3))
        driver.kill()
        kept = {path: path.read_bytes() for path in output.glob("_vtray/trials/*.json")}
        started = begun(output)
        assert not (output / "_SUCCESS").exists()
        driver = driver_of(file)
    driver.end()
    assert all(path.read_bytes() == content for path, content in kept.items())
    for name, times in begun(output).items():
        over = any(path.stem == name for path in kept)
        assert times == started.get(name, 0) if over else times > started.get(name, 0)
    found, expected = records_of(output), records_of(calm[0])
    sound = [record for record in found if record["status"] != "failed"]
    assert [record["number"] for record in found] == list(range(TRIALS))
    assert len(sound) >= TRIALS - 1  # one trial may have been hit twice
    for record in sound:
        assert curve_of(record) == curve_of(expected[record["number"]])
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        names = [name for (name,) in store.execute("select name from runs")]
    assert sorted(name for name in names if name.isdigit()) == [f"{n:04}" for n in range(TRIALS)]
    assert len([name for name in names if name == "tune"]) == 1


def alive(killed):
    """The processes of trials that have not been killed."""
    return [process for process in trial_processes() if process.pid not in killed]


def curve_of(record):
    return [(epoch["val_top1"], epoch["val_loss"]) for epoch in record["epochs"]]


def num_records(output):
    return len(list(output.glob("_vtray/trials/*.json")))


def trial_processes():
    """The processes of trials, of the cluster that this test run started."""
    return [child for child in psutil.Process().children(recursive=True) if _is_trial(child)]


def _is_trial(process):
    try:
        return "Trainable" in " ".join(process.cmdline()[:1])
    except psutil.Error:  # it has just ended
        return False


def test_trials_do_not_wait_for_ever(config_for, tmp_path, ray_cluster):
    import ray

    @ray.remote(num_cpus=2)
    class Guest:
        def here(self):
            return True

    guest = Guest.remote()
    assert ray.get(guest.here.remote())
    search = {"num_trials": 2, "space": {"lr": [1e-3, 1e-4], "freeze": None}, "wait_s": 2}
    try:
        with pytest.raises(ResourcesError, match=r"could start within 2 s: each needs 1 CPU and .*has 0 CPUs"):
            tune.run(config_for(tmp_path / "out", search=search))
    finally:
        ray.kill(guest)
    assert not records_of(tmp_path / "out")


def test_what_is_not_returned_is_told(ray_cluster):
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    told = pytest.raises(ResourcesError, match=r"not got back .*1 placement groups")
    with told, everything_returned(within_s=0.5):
        group = placement_group([{"CPU": 1}])
        ray.get(group.ready())
    remove_placement_group(group)
