"""`make demo` without its two runs: what it draws, which settings it gives to the jobs, and what it says."""

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from jobs import augment, finetune, stylize
from jobs import demo as program
from pipelines import stylize as pipeline
from vtray.demo import catalog, kit, pretraining
from vtray.weights import load_weights

FEW = {"train": 2, "val": 1, "test": 1, "showroom": 1}
SMALL = {"counts": {"train": 1, "test": 2}, "size_px": 64}


@pytest.fixture(scope="module")
def style_kit(tmp_path_factory):
    """The painting and the extractor, drawn and learned once for these tests."""
    return kit.write_style_kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture
def runs(monkeypatch, style_kit):
    """What the jobs were asked to run: name -> config. Their outputs are empty, and the catalog is a small one."""
    configs = {}

    def run(name, job, recipe, overrides, *, dry_run):
        assert not dry_run
        configs[name] = job.load(recipe, overrides)
        (Path(configs[name].output.uri) / "data").mkdir(parents=True)

    monkeypatch.setattr(augment, "augment", partial(run, "augment", augment))
    monkeypatch.setattr(stylize, "stylize", partial(run, "stylize", stylize))
    monkeypatch.setattr(kit, "write_style_kit", lambda folder: style_kit)
    monkeypatch.setattr(catalog, "write_catalog", partial(catalog.write_catalog, **SMALL))
    monkeypatch.setattr(program, "train", partial(train_shortly, program.train, configs))
    for name in ("write_pretraining_set", "write_target_set"):
        monkeypatch.setattr(pretraining, name, partial(getattr(pretraining, name), counts=FEW))
    return configs


def train_shortly(train, configs, recipe, source, output, database, changes):
    """The real training, one epoch long."""
    short = ["loop.epochs=1", "loop.warmup_epochs=0", "loop.batch_size=6"]
    configs[output.name] = finetune.load(recipe, [*program.job_settings(source, output, database), *changes])
    train(recipe, source, output, database, [*changes, *short])


def test_the_drawn_catalog_is_augmented_and_one_image_of_each_product_stylized(runs, tmp_path, capsys):
    program.demo(to=tmp_path)
    assert runs["augment"].input.uri == str(tmp_path / "catalog")
    job = pipeline.prepare(runs["stylize"], has_gpu=lambda: False)
    assert [ref.image_id for ref in job.source.refs] == [
        f"{name}/{name}-000.jpg" for name in sorted(catalog.CLASS_NAMES)
    ]
    assert job.work.styles[0].image.shape == (512, 512, 3)
    assert job.work.features.style_layers == ("relu1_1", "relu2_1", "relu3_1")
    for config in runs.values():
        assert config.replan
        assert config.tracking.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line[:2] in ("1.", "2.", "3.", "4.", "5.")] == [
        f"1. drawing the vending-machine catalog to {tmp_path}/catalog",
        f"2. augmenting {tmp_path}/catalog with recipes/showroom.yaml",
        f"3. stylizing 12 images of {tmp_path}/catalog/test with a painting that the demo drew",
        "4. fine-tuning a small network for six products, pre-trained on six others",
        "5. look at",
    ]
    assert "learned here without labels" in printed
    assert re.search(r"from scratch +[0-9.]+ % +[0-9.]+ %\n +fine-tuned .*\n +and showroom recipe ", printed)
    assert runs["scratch"].strategy == "scratch"
    assert runs["finetuned"].weights == str(tmp_path / "pretrained" / "model" / "model.safetensors")
    assert [op.op for op in runs["finetuned-plain"].operators] == ["random_resized_crop", "flip"]
    assert len(runs["finetuned"].operators) == 4
    assert f"{tmp_path}/stylized/preview/index.html" in printed


def test_own_images_are_taken_and_nothing_is_added_to_their_folder(runs, tiny_images, tmp_path):
    images = shutil.copytree(tiny_images, tmp_path / "images")
    before = sorted(images.rglob("*"))
    program.demo(to=tmp_path / "demo", images=images)
    assert sorted(images.rglob("*")) == before
    assert not (tmp_path / "demo" / "catalog").exists()
    assert runs["augment"].output.uri == str(tmp_path / "demo" / "augmented-own")
    assert runs["stylize"].output.uri == str(tmp_path / "demo" / "stylized-own")
    listed = (tmp_path / "demo" / "showcase.csv").read_text().splitlines()
    assert listed[0] == "uri,image_id"
    assert len(listed) == 1 + 12  # every second of 24


def test_the_style_kit_is_the_same_in_every_folder(style_kit, tmp_path):
    settings = program.style_settings(tmp_path / "demo")
    assert settings == [
        f'style.uri="{tmp_path}/demo/painting.png"',
        f'features.weights="{tmp_path}/demo/extractor.safetensors"',
    ]
    for path in (style_kit.painting, style_kit.extractor):
        assert (tmp_path / "demo" / path.name).read_bytes() == path.read_bytes()
    tensors = load_weights(str(style_kit.extractor)).tensors
    assert tensors["features.10.weight"].shape == (64, 32, 3, 3)
    assert style_kit.num_drawings == 12


def test_without_image_files_nothing_is_stylized(runs, tmp_path, capsys):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.parquet").write_bytes(b"")
    program.demo(to=tmp_path / "demo", images=tmp_path / "shards")
    assert list(runs) == ["augment"]
    printed = capsys.readouterr().out
    assert f"3. no image files in {tmp_path}/shards, so none are stylized" in printed
    assert "stylized-own" not in printed
