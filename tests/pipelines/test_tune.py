"""A search without Ray: its config, its plan, what is booked, how much room it needs, and the end."""

import json
from dataclasses import replace

import pytest
from finetune_support import write_backbone, write_images
from pydantic import ValidationError
from tune_support import SPACE, records_of, tune_config

from pipelines import finetune, tune, tune_refit
from pipelines.cluster import Cluster, Node, WorkerNeeds
from pipelines.finetune_config import FinetuneConfig
from pipelines.tune_cost import CacheCost, merged, search_cost
from pipelines.tune_desk import Desk, read_records
from pipelines.tune_estimate import estimate
from pipelines.tune_refit import refit_config, to_refit, winner_of
from pipelines.tune_room import concurrency_of, trial_needs
from pipelines.tune_rows import SharedRows, prepare
from pipelines.tune_work import TuneWork
from vtray import settings
from vtray.classify.trial_record import TrialRecord
from vtray.errors import ConfigError, PlanMismatch, ResourcesError, UnfinishedUnits
from vtray.manifest import Ledger
from vtray.sources import encode_units
from vtray.steps.train_trial import train_trial
from vtray.storage import open_storage
from vtray.tracking import Tracker, TrackingTarget

AUGMENT = [{"op": "flip"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    write_images(folder / "images")
    write_backbone(folder / "backbone.safetensors")
    return folder


@pytest.fixture
def config_for(place, tmp_path):
    def make(name="out", **values):
        return tune_config(place / "images", tmp_path / name, place / "backbone.safetensors", **values)

    return make


@pytest.fixture
def work_for(config_for):
    return lambda **values: TuneWork.of(config_for(**values), device="cpu")


@pytest.fixture
def without_ray(monkeypatch):
    """Trials run one after the other in this process; the scheduler stops nobody."""
    from pipelines import tune_ray

    two = Cluster(nodes=(Node(num_cpus=2),))

    def run_trials(desk, task_of, *, needs, concurrency):
        for number in desk.pending:
            task = task_of(desk.values(number))
            desk.begin(number)
            for record in train_trial(task):
                desk.epoch(number, record)
            desk.end(number)

    monkeypatch.setattr(tune_ray, "run_trials", run_trials)
    monkeypatch.setattr(tune.cluster, "connect", lambda address: two)
    monkeypatch.setattr(tune, "everything_returned", NothingTaken)


class NothingTaken:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


# the config ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"search": {"space": {"lr": None, "freeze": None}}},
            "search.space: nothing to search; give values",
        ),
        ({"search": {"space": {"lr": []}}}, "no values to try"),
        ({"search": {"space": {"lr": [1e-3, 0]}}}, "0 is not allowed; allowed: above 0"),
        ({"search": {"space": {"lr": {"low": -1, "high": 1}}}}, "greater than 0"),
        ({"search": {"space": {"lr": {"low": 1, "high": 0.1}}}}, "low 1 must be below high 0.1"),
        (
            {"search": {"asha": {"grace_epochs": 3}}},
            "grace_epochs 3: with loop.epochs 3 no trial could",
        ),
        ({"search": {"soup": True}}, "soup: needs two trainings"),
        ({"search": {"space": {"recipe": ["a.yaml"]}}}, "trials see augmented images only with views"),
        ({"search": {"views": 2}}, "views 2: views need operators or a recipe"),
        ({"search": {"space": {"freeze": [1], "train_stages": [[0, 1]]}}}, "search one of them"),
        ({"strategy": "linear_probe", "search": {"space": {"freeze": [1]}}}, "leaves nothing to freeze"),
        ({"lr": "find"}, "trial 0 needs a number"),
    ],
)
def test_what_cannot_be_searched(config_for, values, message):
    with pytest.raises(ValidationError, match=message):
        config_for(**values)


def test_stages_that_are_not_there_are_shown_those_that_are(work_for):
    with pytest.raises(ConfigError, match=r"space\.freeze: 9 is not allowed; give 0 to 5 .*0 conv1, 1 stage2"):
        work_for(search={"space": {"freeze": [0, 9]}})
    with pytest.raises(ConfigError, match=r"search\.space\.freeze: 'stage5' is not a stage.*did you mean"):
        work_for(search={"space": {"freeze": ["stage5"]}})
    with pytest.raises(ConfigError, match=r"search\.space\.train_stages: 'stage4' comes after 'stage2'"):
        work_for(search={"space": {"freeze": None, "train_stages": [["stage4", "stage2"]]}})


def test_depths_are_numbers_each_once_and_auto_is_thirds(work_for):
    assert work_for(search={"space": {"freeze": ["none", 0, "stage3", 3, "all"]}}).space["freeze"] == (0, 3, 5)
    assert work_for(search={"space": {"lr": [1e-3]}}).space["freeze"] == (0, 2, 3, 5)
    assert "freeze" not in work_for(strategy="linear_probe", search={"space": {"lr": [1e-3]}}).space


def test_trial_0_is_the_training_itself(work_for):
    work = work_for(freeze="stage2", strategy="frozen", operators=AUGMENT, search={"space": SPACE})
    assert work.default == {"lr": 1e-3, "freeze": 2}
    assert work.proposals().values(0) == work.default
    config = work.config.training(work.default)
    assert config == FinetuneConfig.model_validate(work.config.model_dump(exclude={"search"}) | {"freeze": 2})


def test_every_key_of_the_space_reaches_the_training(work_for, tmp_path):
    (tmp_path / "flip.yaml").write_text("operators: [{op: flip, p: 0.25}]\n")
    space = {"lr": [1e-4], "freeze": None, "train_stages": [["stage2", "stage3"]]}
    more = {"weight_decay": [0.3], "head_lr_factor": [7], "recipe": [str(tmp_path / "flip.yaml")]}
    work = work_for(operators=AUGMENT, search={"space": space | more, "views": 1, "searcher": "grid"})
    values = work.proposals().values(1)
    config = work.config.training(values)
    assert (config.lr, config.train_stages) == (1e-4, ("stage2", "stage3"))
    assert (config.loop.weight_decay, config.loop.head_lr_factor) == (0.3, 7)
    assert (config.recipe, config.operators) == (str(tmp_path / "flip.yaml"), ())
    assert work.training(values).config.cache == 1
    assert work.training(values).recipe.digest != work.training(work.default).recipe.digest


def test_trials_see_stored_plain_images_and_the_winner_augmented_ones(work_for):
    work = work_for(operators=AUGMENT)
    trial = work.training({"lr": 1e-2, "freeze": 2})
    assert (trial.recipe, trial.config.cache) == (None, "auto")
    assert work.config.training({"freeze": 2}).operators == work.config.operators


def test_the_plan_names_what_decides_the_result(work_for):
    plan = work_for().plan()
    assert plan.fingerprint == work_for(search={"concurrency": 1, "wait_s": 5}).plan().fingerprint
    others = [{"num_trials": 5}, {"searcher": "grid"}, {"metric": "val_loss"}, {"also_default": True}]
    others += [{"scheduler": "none"}, {"asha": {"reduction_factor": 2}}, {"space": {"freeze": [0]}}]
    prints = [work_for(search=other).plan().fingerprint for other in others]
    assert len({plan.fingerprint, *prints}) == len(others) + 1


# room ------------------------------------------------------------------------------------------------------------


def test_how_many_trials_run_at_a_time():
    needs = WorkerNeeds(cpus=2, memory_bytes=4 * 10**9)
    two = Cluster(nodes=(Node(num_cpus=4, memory_bytes=9e9), Node(num_cpus=8, memory_bytes=5e9)))
    assert concurrency_of(two, needs, None) == 3
    assert concurrency_of(two, needs, 2) == 2
    with pytest.raises(
        ResourcesError, match=r"search\.concurrency=4: each trial needs 2 CPUs and 4\.0 GB.*most 3"
    ):
        concurrency_of(two, needs, 4)
    small = Cluster(nodes=(Node(num_cpus=8, memory_bytes=3e9),))
    with pytest.raises(
        ResourcesError, match=r"a trial needs 2 CPUs and 4\.0 GB.*largest has 8 CPUs, 0 GPUs and 3"
    ):
        concurrency_of(small, needs, None)


def test_memory_grows_with_batch_and_rows(work_for):
    def needs(**values):
        work = work_for(**values)
        rows = SharedRows(work=work, classifier=work.base.pretrained())
        return trial_needs(work, rows, [work.default]).memory_bytes

    small, large = needs(), needs(loop={"batch_size": 600})
    assert 700_000_000 < small < 800_000_000
    assert large > small + 50 * 10**6


# the books -------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk_for(work_for, tmp_path):
    def make(**values):
        work = work_for(**values)
        ledger = Ledger(open_storage(str(tmp_path / "out")))
        ledger.begin(work.plan(), lambda: encode_units(work.units()), replan=work.config.replan)
        tracker = Tracker(TrackingTarget(uri="none", experiment="x", run_name="x"), ledger, {})
        found = work.proposals()
        desk = Desk(work=work, ledger=ledger, tracker=tracker, proposals=found, num_trials=work.num_trials(found))
        desk.open(again=work.config.replan)
        return desk

    return make


def epoch(number, *, top1=0.5, done=False):
    return {
        "epoch": number, "step": 2 * number + 2, "phase": "full", "val_top1": top1, "val_loss": 1.0,
        "seconds": 0.5, "images": 12, "val_images": 6, "done": done,
    }  # fmt: skip


def run_trial(desk, number, *tops, done=True):
    desk.values(number)
    desk.begin(number)
    for place, top1 in enumerate(tops):
        desk.epoch(number, epoch(place, top1=top1, done=done and place == len(tops) - 1))
    desk.end(number)


def test_a_trial_with_a_record_is_over(desk_for):
    desk = desk_for()
    run_trial(desk, 0, 0.5, 0.6)
    run_trial(desk, 2, 0.4, done=False)
    desk.values(1)
    desk.fail(1, "no\n luck")
    again = desk_for()
    assert again.pending == [3]
    assert {n: record.status for n, record in again.records.items()} == {0: "complete", 1: "failed", 2: "stopped"}
    assert again.records[1].reason == "no luck"
    assert again.records[0].epochs[1]["val_top1"] == 0.6


def test_an_attempt_that_died_leaves_nothing(desk_for):
    desk = desk_for()
    desk.values(0)
    desk.begin(0)
    desk.epoch(0, epoch(0, top1=0.1))
    desk.begin(0)
    desk.epoch(0, epoch(0, top1=0.3, done=True))
    desk.end(0)
    assert [each["val_top1"] for each in desk.records[0].epochs] == [0.3]
    assert desk.records[0].attempts == 2


def test_the_first_record_of_a_trial_wins(desk_for):
    slow, fast = desk_for(), desk_for()
    run_trial(fast, 0, 0.9)
    run_trial(slow, 0, 0.2)
    assert slow.records[0].kept["val_top1"] == 0.9


def test_a_trial_that_never_began_has_no_record(desk_for):
    desk = desk_for()
    desk.values(0)
    desk.end(0)
    desk.end(3)
    assert desk.pending == [0, 1, 2, 3]


def test_a_longer_search_keeps_its_first_trials_and_tries_failed_ones_again(desk_for):
    desk = desk_for()
    run_trial(desk, 0, 0.5)
    run_trial(desk, 1, 0.6)
    desk.values(2)
    desk.fail(2, "unlucky")
    with pytest.raises(PlanMismatch, match=r"num_trials: 4 -> 6"):
        desk_for(search={"num_trials": 6})
    assert desk_for(search={"num_trials": 6}, replan=True).pending == [2, 3, 4, 5]
    assert desk_for(search={"num_trials": 6}, lr=5e-3, replan=True).pending == [0, 2, 3, 4, 5]


# cost ------------------------------------------------------------------------------------------------------------


def record(number, *, frozen=0, epochs=2, status="complete", top1=0.5):
    return TrialRecord(
        number=number, digest="", values={"lr": 1e-3, "freeze": frozen}, frozen=frozen, status=status,
        epochs=tuple(epoch(place, top1=top1) for place in range(epochs)),
    )  # fmt: skip


def test_cost_by_hand():
    """18 rows an image and epoch; the cache of depth 2 took 0.1 s a row: 4 epochs of 0.5 s and 18 * 0.1 s."""
    caches = [
        CacheCost(frozen=0, rows=18, bytes=1, seconds=0.9),
        CacheCost(frozen=2, rows=18, bytes=1, seconds=1.8),
    ]
    cost = search_cost([record(0), record(1, frozen=2, epochs=1, status="stopped")], caches, epochs=4)
    assert cost.caches == pytest.approx(2.7)
    assert cost.trials == pytest.approx(1.5)
    assert cost.uncached == pytest.approx(4 * (0.5 + 0.9) + 4 * (0.5 + 1.8))
    assert cost.share == pytest.approx(4.2 / cost.uncached)
    newer = CacheCost(frozen=2, rows=18, bytes=1, seconds=9.0)
    assert merged(caches, [newer]) == [caches[0], newer]


def test_the_estimate_counts_caches_trials_and_expected_epochs(config_for):
    found = estimate(
        config_for(search={"searcher": "grid", "num_trials": None, "space": SPACE | {"lr": [1e-3, 1e-4]}})
    )
    assert found.trials == 6
    assert [cache.rows for cache in found.caches] == [18, 18, 18]
    assert [cache.trials for cache in found.caches] == [2, 2, 2]
    assert found.caches[0].bytes == 18 * 32 * 32 * 3
    assert found.expected == pytest.approx((3 + 5 * (1 + 2 / 3)) / 6)
    assert 0 < found.trials_min(found.expected) < found.trials_min(found.epochs) < found.uncached_min
    assert "6 of 3 epochs" in found.table()


# the end ---------------------------------------------------------------------------------------------------------


def test_a_search_from_caches_to_a_finished_output(config_for, without_ray, tmp_path):
    config = config_for(operators=AUGMENT, search={"top_k": 2, "soup": True, "also_default": True})
    report = tune.run(config)
    assert (report.trials, report.trials_failed) == (4, 0)
    assert set(report.refits) <= {record.name for record in read_records(Ledger(open_storage(report.output)))}
    assert report.val_top1 >= max(
        json.loads((tmp_path / f"out/refits/{name}/_vtray/report.json").read_text())["val_top1"]
        for name in report.refits
    )
    refit = settings.load(
        FinetuneConfig, file=tmp_path / "out/winner.yaml", overrides=[f"output.uri={tmp_path}/new"]
    )
    again = finetune.run(refit)
    kept = json.loads((tmp_path / f"out/refits/{report.best}/_vtray/report.json").read_text())
    assert (again.val_top1, again.val_loss) == (kept["val_top1"], kept["val_loss"])
    assert tune.run(config).nothing_to_do


def test_all_trials_failed_is_told_with_a_reason(config_for, without_ray, monkeypatch):
    from pipelines import tune_ray

    def run_trials(desk, task_of, *, needs, concurrency):
        for number in desk.pending:
            desk.values(number)
            desk.fail(number, "out of luck")

    monkeypatch.setattr(tune_ray, "run_trials", run_trials)
    with pytest.raises(UnfinishedUnits, match=r"all 4 trials failed, such as 0000: out of luck"):
        tune.run(config_for())
    assert len(records_of(config_for().output.uri)) == 4


def test_which_trials_are_trained_in_full(work_for):
    records = [record(0, top1=0.1), record(1, top1=0.4), record(2, top1=0.9, status="failed"), record(3, top1=0.8)]
    names = lambda **search: [each.number for each in to_refit(work_for(search=search), records)]  # noqa: E731
    assert names() == [3]
    assert names(top_k=2) == [3, 1]
    assert names(also_default=True) == [3, 0]
    assert names(top_k=4, also_default=True) == [3, 1, 0]


def test_a_refit_lies_in_the_output_and_registers_nothing(work_for, tmp_path):
    work = work_for(output={"register_as": "products"}, run_name="search")
    config = refit_config(work, record(3, frozen=2))
    assert config.output.uri == f"{tmp_path}/out/refits/0003"
    assert config.output.register_as is None
    assert (config.freeze, config.run_name) == (2, "search-refit-0003")


def test_of_two_refits_the_better_one_becomes_the_model(work_for, monkeypatch):
    work = work_for(search={"top_k": 2})
    reports = {0: (0.9, 0.3), 3: (0.9, 0.2)}
    monkeypatch.setattr(tune_refit, "_files_of", lambda each: {})
    refits = [
        tune_refit.Refit(trial=record(number), config=refit_config(work, record(number)), report=Found(*found))
        for number, found in reports.items()
    ]
    assert winner_of(work, refits).members == (3,)
    refits[1] = replace(refits[1], report=Found(0.8, 0.1))
    assert winner_of(work, refits).members == (0,)


class Found:
    def __init__(self, val_top1, val_loss):
        self.val_top1, self.val_loss = val_top1, val_loss


def test_all_trials_share_their_caches_and_first_weights(work_for, tmp_path, in_process):
    work = work_for(search={"searcher": "grid", "num_trials": None})
    ledger = Ledger(open_storage(str(tmp_path / "out")))
    found = work.proposals()
    start = prepare(work, ledger, [found.values(n) for n in range(work.num_trials(found))])
    assert len(start.rows.caches) == 3
    tasks = [start.task(found.values(n)) for n in range(work.num_trials(found))]
    assert len({task.rows[0].train for task in tasks}) == 3
    assert {task.folder for task in tasks} == {start.folder}
    assert len({task.spec.lr for task in tasks}) == 5
    assert len(list((tmp_path / "out/_vtray/caches").iterdir())) == 3
