"""train-style from photographs to a model folder, in this process; Ray is in test_train_style_ray.py."""

import json
import sqlite3

import pytest
import torch
from fast_training import config_of, model_bytes, write_place
from PIL import Image

from pipelines import train_style
from pipelines.train_style_estimate import estimate
from vtray.classify.training import read_epochs
from vtray.errors import ConfigError, InputError, PlanMismatch, TooManyFailures, TrainingDiverged, WeightsError
from vtray.images import decode
from vtray.storage import open_storage
from vtray.style.fast import training
from vtray.style.fast.load import load_fast
from vtray.style.fast.trainer import FastTrainer
from vtray.verification import verify

MANY = {"network": {"engine": "msgnet", "width": 8}, "style": {"size_px": [32, 48]}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Eight photographs, two styles, and weights of a narrow VGG-19."""
    return write_place(tmp_path_factory.mktemp("train-style"))


@pytest.fixture
def config_for(place, tmp_path):
    def make(name="out", **values):
        return config_of(place, tmp_path / name, **values)

    return make


def many(place, **values):
    style = MANY["style"] | {"uri": str(place / "styles")} | values.pop("style", {})
    return {**MANY, "style": style, **values}


# what comes out --------------------------------------------------------------------------------------------------


def test_one_style_leaves_a_model_and_books(config_for, tmp_path):
    report = train_style.run(config_for())
    model = load_fast(str(tmp_path / "out"))
    assert (model.engine, model.styles) == ("feedforward", ("down",))
    assert set(model_bytes(tmp_path / "out")) == {
        "config.json",
        "model.safetensors",
        "preview.png",
        "thumbnails/down.png",
    }
    stylized = model.network(torch.rand(1, 3, 33, 40) * 255)
    assert stylized.shape == (1, 3, 33, 40)
    assert (report.images, report.failed, report.steps) == (8, 0, 6)
    assert model.config["unseen"]["style_share"] == report.unseen_style_share
    assert decode(model_bytes(tmp_path / "out")["preview.png"]).image.shape[1] > 400
    assert verify(open_storage(str(tmp_path / "out")), deep=True).faults == ()


def test_many_styles_leave_their_grams_at_all_sizes(config_for, place, tmp_path):
    train_style.run(config_for(**many(place)))
    model = load_fast(str(tmp_path / "out"))
    assert (model.engine, model.styles) == ("msgnet", ("across", "down"))
    assert sorted(model.grams) == ["across", "across@48", "down", "down@48"]
    content = torch.rand(1, 3, 32, 32) * 255
    results = [model.network(content, gram) for gram in model.grams.values()]
    assert len({result.numpy().tobytes() for result in results}) == 4


def test_records_of_losses_and_sheets_are_kept(config_for, tmp_path):
    train_style.run(config_for())
    (folder,) = (path.name for path in (tmp_path / "out" / "_vtray").glob("training-*"))
    history = read_epochs(open_storage(str(tmp_path / "out")), f"_vtray/{folder}")
    assert [record["step"] for record in history] == [2, 4, 6]
    assert [len(list((tmp_path / "out").glob(f"_vtray/{folder}/sheets/{n}"))) for n in ("*4.png", "*6.png")] == [
        1,
        1,
    ]


def test_a_finished_output_says_so_and_is_left_alone(config_for, tmp_path, monkeypatch):
    first = train_style.run(config_for())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    monkeypatch.setattr(train_style, "train", None)
    again = train_style.run(config_for())
    assert again.nothing_to_do
    assert "nothing to do" in again.table()
    assert again.unseen_style_share == first.unseen_style_share
    assert {path: path.stat().st_mtime_ns for path in before} == before


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def killed_after(monkeypatch):
    """A function that runs a training and kills it when it asks for the crops of a step."""

    def run_until(config, step):
        class Dying(FastTrainer):
            def step(self, crops):
                if self.done == step:
                    raise Killed
                return super().step(crops)

        with monkeypatch.context() as patch:
            patch.setattr(training, "FastTrainer", Dying)
            with pytest.raises(Killed):
                train_style.run(config)

    return run_until


@pytest.mark.parametrize("engine", ["feedforward", "msgnet"])
def test_a_kill_leaves_the_same_model(config_for, place, tmp_path, killed_after, engine):
    values = many(place) if engine == "msgnet" else {}
    train_style.run(config_for("calm", **values))
    killed_after(config_for(**values), 5)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert list((tmp_path / "out").glob("_vtray/training-*/checkpoints/*.pt"))
    train_style.run(config_for(**values))
    one, other = model_bytes(tmp_path / "out"), model_bytes(tmp_path / "calm")
    assert one == other


def test_losses_and_sheets_are_in_one_mlflow_run(config_for, tmp_path):
    database = tmp_path / "mlflow.db"
    train_style.run(config_for(tracking={"uri": f"sqlite:///{database}"}))
    with sqlite3.connect(database) as rows:
        found = rows.execute("select key, step from metrics order by key, step").fetchall()
        assert rows.execute("select count(*) from runs").fetchone() == (1,)
    assert [step for key, step in found if key == "loss"] == [2, 4, 6]
    assert [step for key, step in found if key == "unseen_style_share"] == [4, 6]
    names = {path.name for path in (tmp_path / "mlartifacts").rglob("*.*")}
    assert {"step-000004.png", "step-000006.png", "preview.png", "model.safetensors"} <= names


# what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"style": {"uri": "{place}/styles"}}, ConfigError, "2 style images, feedforward learns one"),
        ({"network": {"engine": "msgnet"}}, ConfigError, "1 style image, msgnet learns two or more"),
        ({"style": {"count": 3}}, InputError, r"1 style images, style\.count asks for 3"),
        ({"style": {"uri": "{place}/none.jpg"}}, InputError, "no such file"),
        ({"style": {"uri": "{place}/small.png"}}, InputError, "is 20 x 40 px, each side must have 32"),
        ({"style": {"uri": "{place}/broken.jpg"}}, InputError, r"style\.uri: .*broken\.jpg"),
        ({"style": {"uri": "{place}/text"}}, InputError, r"style\.uri: .*text"),
        ({"input": {"uri": "{place}/text"}}, InputError, "text"),
        ({"input": {"uri": "{place}/nowhere"}}, InputError, "nowhere"),
        ({"input": {"uri": "{place}/styles/down.png"}}, InputError, "one image is too few"),
        ({"features": {"weights": "{place}/none.pth"}}, WeightsError, "no such weights file"),
        ({"features": {"style_layers": ["relu9_9"]}}, ConfigError, "has no layer 'relu9_9'"),
        ({"features": {"content_layers": ["relu5_1"]}}, ConfigError, "deeper than the weights"),
    ],
)
def test_bad_input_is_one_clear_line(place, tmp_path, values, error, message):
    Image.new("RGB", (20, 40)).save(place / "small.png")
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (place / "text").mkdir(exist_ok=True)
    (place / "text" / "readme.txt").write_text("no image")
    filled = json.loads(json.dumps(values).replace("{place}", str(place)))
    with pytest.raises(error, match=message) as caught:
        train_style.run(config_of(place, tmp_path / "out", **filled))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_two_styles_of_one_name_are_refused(place, tmp_path):
    uris = [
        str(place / "styles" / "down.png"),
        str(place / "photos" / "00.png"),
        str(place / "styles" / "down.png"),
    ]
    with pytest.raises(InputError, match="two styles are called 'down'"):
        train_style.run(config_of(place, tmp_path / "out", **many(place, style={"uri": uris})))


def test_the_first_styles_by_name_are_learned(place, tmp_path):
    config = config_of(place, tmp_path / "out", style={"uri": str(place / "styles"), "count": 1})
    assert train_style.run(config).styles == ("across",)


def test_another_plan_in_the_same_output_is_refused(config_for):
    train_style.run(config_for())
    with pytest.raises(PlanMismatch, match=r"loop\.lr: 0\.01 -> 0\.02"):
        train_style.run(config_for(loop={"lr": 0.02}))


def test_broken_photographs_are_counted(config_for, tmp_path):
    photos = tmp_path / "photos"
    write_place(tmp_path)
    (photos / "03.png").write_bytes(b"broken")
    config = {"input": {"uri": str(photos)}, "loop": {"batch_size": 8}}
    with pytest.raises(TooManyFailures, match=r"1 of 8 images are broken.*03\.png"):
        train_style.run(config_for(**config))
    report = train_style.run(config_for(**config, max_failed=0.2))
    assert report.failed == 1


def test_a_loss_that_is_not_finite_ends_the_training(config_for):
    with pytest.raises(TrainingDiverged, match="not finite"):
        train_style.run(config_for(loop={"lr": 1e30}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loop": {"checkpoint_every": 3}}, "must be a multiple of log_every 2"),
        ({"crops": {"crop_px": 64}}, r"crop_px 64 is larger than crops\.size_px 32"),
        ({"style": {"size_px": [32, 48]}}, "feedforward learns one size"),
    ],
)
def test_settings_that_do_not_fit_together(config_for, values, message):
    with pytest.raises(ValueError, match=message):
        config_for(**values)


# before it starts ------------------------------------------------------------------------------------------------


def test_an_estimate_says_what_it_costs_and_writes_nothing(config_for, place, tmp_path):
    table = estimate(config_for(**many(place))).table()
    assert "7 to train on, 1 kept out" in table
    assert "2: across, down" in table
    assert "steps/s in fp32 nchw on 1 threads (probed)" in table
    assert "about" in table.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_measured_arithmetic_is_kept_for_going_on(config_for, killed_after, monkeypatch):
    config = config_for(features={"precision": "auto", "layout": "auto"})
    killed_after(config, 3)
    monkeypatch.setattr(train_style, "choose_step", None)  # would be called again
    assert train_style.run(config).precision in ("fp32", "bf16")
