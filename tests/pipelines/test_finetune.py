"""The training job from images to a model folder, in this process; Ray is in test_finetune_ray.py."""

import json
import shutil
import sqlite3

import pytest
import torch
from finetune_support import (
    BACKBONE,
    config_of,
    history_of,
    model_bytes,
    tensors_of,
    write_backbone,
    write_images,
)
from safetensors.torch import load_file

from pipelines import finetune
from vtray.classify import training
from vtray.classify.backbone import build_classifier
from vtray.classify.checkpoint import Checkpoints
from vtray.classify.model_dir import load_model
from vtray.errors import ConfigError, InputError, PlanMismatch, TrainingDiverged
from vtray.storage import open_storage
from vtray.verification import verify

EVERYTHING = ("conv1.", "stage2.", "stage3.", "stage4.", "conv5.")
AUGMENT = [{"op": "random_resized_crop", "size_px": 32}, {"op": "flip"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of three classes, and weights."""
    folder = tmp_path_factory.mktemp("finetune")
    write_images(folder / "images")
    write_backbone(folder / "backbone.safetensors")
    return folder


@pytest.fixture
def config_for(place, tmp_path):
    def make(name="out", **values):
        images = values.pop("images", place / "images")
        return config_of(images, tmp_path / name, place / "backbone.safetensors", **values)

    return make


# what comes out --------------------------------------------------------------------------------------------------


def test_a_training_leaves_a_model_a_page_and_books(config_for, tmp_path):
    report = finetune.run(config_for())
    model = load_model(str(tmp_path / "out"))
    assert model.classes == ("a", "b", "c")
    assert model.classifier.backbone == BACKBONE
    assert model.preprocessing.crop_px == 32
    assert set(model_bytes(tmp_path / "out")) == {
        "config.yaml",
        "labels.json",
        "metrics.jsonl",
        "model.safetensors",
        "preprocess.json",
    }
    assert BACKBONE in (tmp_path / "out" / "report" / "index.html").read_text()
    history = history_of(tmp_path / "out")
    assert [record["epoch"] for record in history] == [0, 1, 2]
    assert [record["step"] for record in history] == [2, 4, 6]
    assert {record["val_images"] for record in history} == {6}
    assert report.val_top1 == max(record["val_top1"] for record in history)
    assert verify(open_storage(str(tmp_path / "out")), deep=True).faults == ()


def test_a_finished_output_says_so_and_is_left_alone(config_for, tmp_path, monkeypatch):
    first = finetune.run(config_for())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    monkeypatch.setattr(finetune, "FinetuneRun", None)
    again = finetune.run(config_for())
    assert again.nothing_to_do
    assert again.val_top1 == first.val_top1
    assert "nothing to do" in again.table()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_plan_in_the_same_output_is_refused_and_can_replace_it(config_for, tmp_path):
    finetune.run(config_for(loop={"epochs": 1}))
    with pytest.raises(PlanMismatch, match=r"loop\.epochs: 1 -> 2"):
        finetune.run(config_for(loop={"epochs": 2}))
    finetune.run(config_for(loop={"epochs": 2}, replan=True))
    assert len(history_of(tmp_path / "out")) == 2


def test_the_same_config_gives_the_same_model(config_for, tmp_path):
    for name in ("one", "two"):
        finetune.run(config_for(name, operators=AUGMENT, loop={"mix": [{"op": "mixup"}], "ema_decay": 0.9}))
    one, two = model_bytes(tmp_path / "one"), model_bytes(tmp_path / "two")
    one.pop("config.yaml"), two.pop("config.yaml")  # they name the output
    assert one == two


# strategies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "frozen"),
    [
        ({"strategy": "frozen", "freeze": "stage3"}, ("conv1.", "stage2.", "stage3.")),
        ({"strategy": "linear_probe"}, EVERYTHING),
        ({"strategy": "frozen", "freeze": 2, "cache": "off"}, ("conv1.", "stage2.")),
        ({"train_stages": ["stage3", "stage4"]}, ("conv1.", "stage2.", "conv5.")),
        ({"strategy": "linear_probe", "operators": AUGMENT, "cache": 2}, EVERYTHING),
        ({"strategy": "full", "operators": AUGMENT, "freeze": 1}, ("conv1.",)),
    ],
    ids=["frozen", "probe", "uncached", "window", "views", "augmented"],
)
def test_frozen_is_frozen_to_the_last_bit(config_for, place, tmp_path, values, frozen):
    report = finetune.run(config_for(**values))
    before, after = load_file(place / "backbone.safetensors"), tensors_of(tmp_path / "out")
    names = [name for name in before if not name.startswith("fc.")]
    unmoved = {name for name in names if torch.equal(before[name], after[name])}
    assert {name for name in names if name.startswith(frozen)} <= unmoved
    others = [name for name in names if not name.startswith(frozen) and name.endswith("weight")]
    assert not unmoved & set(others)
    assert report.frozen_sha256
    assert after["fc.weight"].shape == (3, 1024)


def test_lp_ft_trains_the_head_on_stored_features_and_then_everything(config_for, place, tmp_path):
    values = {"strategy": "lp_ft", "loop": {"epochs": 4, "probe_epochs": 2, "keep": "last"}, "operators": AUGMENT}
    finetune.run(config_for(**values))
    history = history_of(tmp_path / "out")
    assert [record["phase"] for record in history] == ["probe", "probe", "tune", "tune"]
    assert [record["step"] for record in history] == [2, 4, 6, 8]
    before, after = load_file(place / "backbone.safetensors"), tensors_of(tmp_path / "out")
    assert not torch.equal(before["conv5.0.weight"], after["conv5.0.weight"])
    caches = [
        json.loads(path.read_text()) for path in (tmp_path / "out/_vtray/caches").glob("*/_vtray/manifest.json")
    ]
    assert sorted(cache["dtype"] for cache in caches)[1] == "uint8"


def test_from_scratch_needs_no_weights(config_for, tmp_path):
    finetune.run(config_for(strategy="scratch", weights=str(tmp_path / "nowhere.pth"), loop={"epochs": 1}))
    assert tensors_of(tmp_path / "out")["fc.weight"].shape == (3, 1024)


def test_a_head_is_re_used_by_class_name_and_the_rest_imprinted(place, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(place / "images", images)
    for split in ("train", "val"):
        (images / split / "a").rename(images / split / "goldfish")
        (images / split / "b").rename(images / split / "n07697537")
    config = config_of(
        images,
        tmp_path / "out",
        place / "backbone.safetensors",
        head={"init": "reuse"},
        loop={"epochs": 1},
        lr=1e-9,
    )
    report = finetune.run(config)
    before, after = load_file(place / "backbone.safetensors"), tensors_of(tmp_path / "out")
    classes = load_model(str(tmp_path / "out")).classes
    assert report.head_reused == 2
    for name, row in (("goldfish", 1), ("n07697537", 934)):
        found = after["fc.weight"][classes.index(name)]
        assert torch.allclose(found, before["fc.weight"][row], atol=1e-6)


# going on after a crash ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As abrupt as it gets in one process."""


@pytest.fixture
def kill_after(monkeypatch):
    """Let the process die when an epoch has been booked."""

    def arrange(epoch):
        real = training._Books.write

        def write(self, trainer, record, **seconds):
            real(self, trainer, record, **seconds)
            if record["epoch"] == epoch:
                self.checkpoints.wait()
                raise Killed

        monkeypatch.setattr(training._Books, "write", write)
        return lambda: monkeypatch.setattr(training._Books, "write", real)

    return arrange


@pytest.mark.parametrize(
    "values",
    [
        {"operators": AUGMENT, "loop": {"epochs": 4, "ema_decay": 0.8, "mix": [{"op": "cutmix"}]}},
        {"strategy": "lp_ft", "loop": {"epochs": 4, "probe_epochs": 2}},
        {"strategy": "frozen", "freeze": 3, "loop": {"epochs": 4, "optimizer": "sgd"}, "head": {"dropout": 0.5}},
    ],
    ids=["augmented", "lp_ft", "cached"],
)
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_killed_training_ends_with_the_same_weights(config_for, tmp_path, kill_after, values, epoch):
    finetune.run(config_for("calm", **values))
    revive = kill_after(epoch)
    with pytest.raises(Killed):
        finetune.run(config_for("killed", **values))
    revive()
    finetune.run(config_for("killed", **values))
    calm, killed = model_bytes(tmp_path / "calm"), model_bytes(tmp_path / "killed")
    assert killed["model.safetensors"] == calm["model.safetensors"]
    assert killed["metrics.jsonl"] == calm["metrics.jsonl"]


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(config_for, tmp_path, kill_after):
    values = {"loop": {"epochs": 4}}
    finetune.run(config_for("calm", **values))
    revive = kill_after(2)
    with pytest.raises(Killed):
        finetune.run(config_for("damaged", **values))
    revive()
    newest = max((tmp_path / "damaged").glob("_vtray/training-*/checkpoints/*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    finetune.run(config_for("damaged", **values))
    assert (
        model_bytes(tmp_path / "damaged")["model.safetensors"]
        == model_bytes(tmp_path / "calm")["model.safetensors"]
    )


def test_one_mlflow_run_with_every_step_once(config_for, tmp_path, kill_after):
    tracking = {"tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"}, "output": {"register_as": "drawn"}}
    revive = kill_after(1)
    with pytest.raises(Killed):
        finetune.run(config_for(**tracking))
    revive()
    finetune.run(config_for(**tracking))
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
        steps = store.execute("select step from metrics where key = 'val_top1' order by step").fetchall()
        versions = store.execute("select name, version from model_versions").fetchall()
    assert steps == [(2,), (4,), (6,)]
    assert versions == [("drawn", 1)]


def test_training_stops_when_it_gets_no_better(config_for, tmp_path):
    finetune.run(config_for(lr=1e-12, loop={"epochs": 9, "patience": 2}))
    assert len(history_of(tmp_path / "out")) == 3


# faults ----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_last_good_checkpoint(config_for, tmp_path):
    with pytest.raises(TrainingDiverged, match=r"images? .*train/"):
        finetune.run(config_for(lr=1e30, loop={"epochs": 4, "warmup_epochs": 0, "optimizer": "sgd"}))
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize("operators", [[], AUGMENT], ids=["stored", "streamed"])
def test_a_broken_image_costs_one_row(place, config_for, tmp_path, operators):
    images = tmp_path / "images"
    shutil.copytree(place / "images", images)
    (images / "train" / "a" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = finetune.run(config_for(images=images, operators=operators, max_failed=0.2))
    assert report.failed == 1
    assert "000.png" in report.examples[0]
    assert (tmp_path / "out" / "quarantine" / "model.parquet").exists()


BAD = {
    "one class": (
        lambda f: [shutil.rmtree(f / s / c) for s in ("train", "val") for c in "bc"],
        {},
        "one class only",
    ),
    "no val": (lambda f: shutil.rmtree(f / "val" / "b"), {}, "val: no images of b"),
    "no train": (lambda f: shutil.rmtree(f / "train" / "b"), {}, "train: no images of b"),
    "backbone": (None, {"backbone": "resnet81"}, "did you mean"),
    "stage": (None, {"freeze": "layer9", "strategy": "frozen"}, "conv1, stage2, stage3, stage4, conv5"),
    "crop": (None, {"preprocess": {"resize_px": 16, "crop_px": 32}}, "crop_px 32 is larger"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line_before_anything_is_trained(place, config_for, tmp_path, case):
    spoil, values, message = BAD[case]
    images = tmp_path / "images"
    shutil.copytree(place / "images", images)
    if spoil:
        spoil(images)
    with pytest.raises(Exception, match=message) as caught:
        finetune.run(config_for(images=images, **values))
    assert caught.value.exit_code in (2, 4)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("_vtray/training-*/checkpoints/*"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0}, "lr 0.0: must be above 0"),
        ({"cache": 3}, "cache 3: views need operators"),
        ({"strategy": "frozen"}, "say what with freeze or train_stages"),
        ({"strategy": "scratch", "freeze": 2}, "strategy scratch trains all"),
        ({"num_workers": [3, 2]}, r"num_workers \(3, 2\)"),
        ({"strategy": "lp_ft", "loop": {"epochs": 3, "probe_epochs": 3}}, "probe_epochs 3: must be below"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(config_for, values, message):
    with pytest.raises(ValueError, match=message):
        config_for(**values)


def test_a_folder_inside_the_input_is_no_output(place, config_for):
    config = config_of(place / "images", place / "images" / "out", place / "backbone.safetensors")
    with pytest.raises(ConfigError, match="inside the input"):
        finetune.run(config)


def test_images_of_no_split_give_their_own_validation(tmp_path, place):
    write_images(tmp_path / "flat", train=24, val=0)
    config = config_of(tmp_path / "flat" / "train", tmp_path / "out", place / "backbone.safetensors")
    report = finetune.run(config)
    assert report.images == 24
    assert history_of(tmp_path / "out")[0]["val_images"] == 3


def test_unlabelled_images_are_refused(tmp_path, place):
    images = write_images(tmp_path / "images", train=3, val=0) / "train" / "a"
    config = config_of(images, tmp_path / "out", place / "backbone.safetensors")
    with pytest.raises(InputError, match="have no label"):
        finetune.run(config)


def test_the_network_of_the_checkpoints_is_the_one_that_was_kept(config_for, tmp_path):
    """`keep: last` gives the weights of the last epoch, whatever came before."""
    finetune.run(config_for("last", loop={"epochs": 2, "keep": "last"}))
    storage = open_storage(str(tmp_path / "last"))
    (folder,) = {entry.key.split("/")[1] for entry in storage.list("_vtray") if "training-" in entry.key}
    plan = json.loads(storage.read("_vtray/plan.json"))
    found = Checkpoints(
        storage=storage, fingerprint=plan["fingerprint"], folder=f"_vtray/{folder}/checkpoints"
    ).newest()
    assert found is not None
    assert found.epoch == 1
    fresh = build_classifier(BACKBONE, num_classes=3)
    assert set(tensors_of(tmp_path / "last")) == set(fresh.network.state_dict())
    kept = found.state["trainer"]["tensors"]["fc.weight"]
    assert torch.equal(kept, tensors_of(tmp_path / "last")["fc.weight"])


# places ----------------------------------------------------------------------------------------------------------


@pytest.mark.s3
def test_images_weights_and_model_on_s3(place, tmp_path, s3_bucket):
    images, output = open_storage(f"{s3_bucket}/images"), f"{s3_bucket}/out"
    for path in (place / "images").rglob("*.png"):
        images.put(path.relative_to(place / "images").as_posix(), path.read_bytes())
    open_storage(s3_bucket).put("weights.safetensors", (place / "backbone.safetensors").read_bytes())
    values = {"loop": {"epochs": 2}, "strategy": "frozen", "freeze": 3}
    report = finetune.run(config_of(f"{s3_bucket}/images", output, f"{s3_bucket}/weights.safetensors", **values))
    finetune.run(config_of(place / "images", tmp_path / "out", place / "backbone.safetensors", **values))
    assert report.output == output
    assert load_model(output).describe() == load_model(str(tmp_path / "out")).describe()
    assert verify(open_storage(output), deep=True).faults == ()


def test_a_finished_output_needs_no_cluster(config_for, monkeypatch):
    """Also where the config leaves workers and device to the cluster."""
    finetune.run(config_for(loop={"epochs": 1}))
    monkeypatch.setattr(finetune.cluster, "connect", None)
    assert finetune.run(config_for(loop={"epochs": 1}, num_workers=None, use_gpu=None)).nothing_to_do
