"""The stylize job with the engines of one pass: outputs, books, resume, and how wrong settings are told."""

import json
import shutil

import numpy as np
import pytest
from drawn import draw_image
from painters import ENGINES, STYLES, feedforward_model, msgnet_model
from PIL import Image
from style_support import write_painting
from support import output_bytes

from jobs import stylize as job
from pipelines import cluster, stylize
from pipelines.stylize_config import StylizeConfig
from pipelines.stylize_estimate import estimate
from vtray.errors import ConfigError, InputError, PlanMismatch, WeightsError
from vtray.report.records import read_records
from vtray.storage import open_storage
from vtray.verification import verify

SIZES = ((48, 64), (40, 40), (33, 57))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A catalog of seven small images in three sizes, one too small, one broken; a painting and two models."""
    folder = tmp_path_factory.mktemp("fast")
    catalog = folder / "catalog"
    catalog.mkdir()
    for number in range(7):
        Image.fromarray(draw_image(number, *SIZES[number % 3])).save(catalog / f"{number}.png")
    write_painting(folder / "painting.png")
    feedforward_model(folder / "feedforward")
    msgnet_model(folder / "msgnet")
    return folder


@pytest.fixture
def config_of(place, fixtures):
    """A config of one engine; `values` on top, sections merged."""
    vgg = fixtures / "style/vgg_normalised"
    engines = {
        "feedforward": {"model": str(place / "feedforward")},
        "msgnet": {"model": str(place / "msgnet")},
        "adain": {
            "encoder": str(vgg / "vgg_normalised_conv3_1.pth"),
            "decoder": str(vgg / "feature_invertor_conv3_1.pth"),
        },
        "microast": {"model": str(fixtures / "style/MicroAST")},
    }
    painting = {"uri": str(place / "painting.png")}
    styles = {"feedforward": {}, "msgnet": {"name": STYLES[0]}, "adain": painting, "microast": painting}

    def make(engine, output, source=place / "catalog", /, **values):
        settings = {
            "input": {"uri": str(source)},
            "output": {"uri": str(output)},
            "style": styles[engine],
            "engine": {"name": engine, "precision": "fp32", "layout": "nchw", **engines[engine]},
            "units": {"max_images": 3},
            "tracking": {"uri": "none"},
            "use_gpu": False,
        }
        for name, value in values.items():
            both = isinstance(value, dict) and isinstance(settings.get(name), dict)
            settings[name] = settings[name] | value if both else value
        return StylizeConfig.model_validate(settings)

    return make


@pytest.mark.parametrize("engine", ENGINES)
class TestEveryEngine:
    def test_a_run_leaves_what_every_run_leaves(self, engine, config_of, place, tmp_path, in_process):
        report = stylize.run(config_of(engine, tmp_path / "out"))
        assert (report.status, report.images, report.failed, report.loss) == ("complete", 7, 0, {})
        for number in range(7):
            made = np.asarray(Image.open(tmp_path / f"out/data/{number}.png"))
            content = np.asarray(Image.open(place / f"catalog/{number}.png"))
            assert made.shape == content.shape
            assert np.abs(made.astype(int) - content).mean() > 3
        records = read_records((tmp_path / "out/_vtray/records.parquet").read_bytes())
        assert [record["engine"] for record in records] == [engine] * 7
        assert {(record["steps"], record["total_before"], record["tv_after"]) for record in records} == {
            (0, None, None)
        }
        assert all(record["seconds"] > 0 for record in records)
        assert verify(open_storage(str(tmp_path / "out")), deep=True).faults == ()
        assert {"index.html", "results.png"} <= {path.name for path in (tmp_path / "out/preview").iterdir()}
        assert engine in (tmp_path / "out/preview/index.html").read_text()
        assert "loss" not in report.table()

    def test_what_is_missing_is_done_again_with_the_same_bytes(self, engine, config_of, tmp_path, in_process):
        config = config_of(engine, tmp_path / "out")
        stylize.run(config)
        before = output_bytes(tmp_path / "out")
        for receipt in sorted((tmp_path / "out/_vtray/receipts").iterdir())[::2]:
            receipt.unlink()
        for name in ("_SUCCESS", "_vtray/manifest.json", "data/0.png", "data/6.png"):
            (tmp_path / "out" / name).unlink()
        assert stylize.run(config).images == 7
        assert output_bytes(tmp_path / "out") == before
        assert stylize.run(config).nothing_to_do

    def test_the_dry_run_tells_time_and_memory(self, engine, config_of, tmp_path):
        table = estimate(stylize.prepare(config_of(engine, tmp_path / "out"), has_gpu=lambda: False)).table()
        assert "7 in 3 units" in table
        assert "one pass (probed at 64 x 48)" in table
        assert "a worker" in table
        assert not (tmp_path / "out").exists()

    def test_images_that_cannot_be_used_go_to_quarantine(self, engine, config_of, place, tmp_path, in_process):
        catalog = shutil.copytree(place / "catalog", tmp_path / "catalog")
        Image.fromarray(draw_image(1, 1, 5)).save(catalog / "tiny.png")
        (catalog / "broken.png").write_bytes((catalog / "0.png").read_bytes()[:100])
        report = stylize.run(config_of(engine, tmp_path / "out", catalog, max_failed=0.5))
        assert report.failed == 2
        assert report.failures["stylize: too_small"] == 1
        assert any("16 px a side" in example for example in report.examples)


def test_workers_make_what_one_process_makes(config_of, tmp_path, ray_cluster, monkeypatch):
    stylize.run(config_of("microast", tmp_path / "ray"))
    from pipelines import batch

    monkeypatch.setattr(
        batch, "run_units", lambda units, step, digests, *, workers: (step(u, digests[u.unit_id]) for u in units)
    )
    stylize.run(config_of("microast", tmp_path / "here"))
    assert output_bytes(tmp_path / "ray") == output_bytes(tmp_path / "here")


def test_auto_is_decided_once_and_kept(config_of, tmp_path, in_process, monkeypatch):
    values = {"engine": {"precision": "auto", "layout": "auto"}}
    stylize.run(config_of("feedforward", tmp_path / "out", **values))
    chosen = json.loads((tmp_path / "out/_vtray/plan.json").read_text())["work"]["fast"]
    assert chosen["precision"] in ("fp32", "bf16")
    monkeypatch.setattr("pipelines.stylize.with_fast_numerics", lambda *_, **__: pytest.fail("measured again"))
    assert stylize.run(config_of("feedforward", tmp_path / "out", **values)).nothing_to_do


def test_colour_and_format_are_kept_as_for_every_engine(config_of, place, tmp_path, in_process):
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(draw_image(3, 48, 64)).save(catalog / "a.jpg", exif=exif, quality=95)
    alpha = np.dstack([draw_image(4, 40, 50), np.full((40, 50), 77, np.uint8)])
    Image.fromarray(alpha).save(catalog / "b.png")
    stylize.run(config_of("microast", tmp_path / "out", catalog, colour="luma"))
    upright, kept = (Image.open(tmp_path / "out/data" / name) for name in ("a.jpg", "b.png"))
    assert (upright.format, upright.size, upright.getexif()[0x0112]) == ("JPEG", (48, 64), 1)
    assert (kept.mode, kept.size) == ("RGBA", (50, 40))
    assert np.array_equal(np.asarray(kept)[..., 3], alpha[..., 3])
    before, after = (Image.fromarray(np.asarray(image)[..., :3]).convert("YCbCr") for image in (alpha, kept))
    assert np.abs(np.asarray(before, int) - np.asarray(after))[..., 1:].mean() < 12


class TestWhatIsRefused:
    """One clear line each."""

    @pytest.mark.parametrize(
        ("engine", "values", "message"),
        [
            (
                "adain",
                {"style": {"uri": None}},
                r"style\.uri: required, but not given \(the style image",
            ),
            ("msgnet", {"style": {"name": None}}, r"style\.name: required, but not given \(a style of the model"),
            ("adain", {"style": {"name": "across"}}, r"style\.name: engine adain knows no names"),
            ("feedforward", {"style": {"uri": "x.png"}}, r"engine feedforward has its style inside engine\.model"),
            ("msgnet", {"style": {"uri": "x.png"}}, r"style\.uri and style\.name: give one"),
            ("microast", {"style": {"masks": "m.png"}}, r"style\.masks: engine microast paints the whole image"),
            ("msgnet", {"style": {"weights": [1, 2, 3]}}, r"weights: 3 for 1 styles; give one for each"),
            ("adain", {"engine": {"steps": 3}}, "steps"),
            ("adain", {"engine": {"memory_mb": 1}}, "memory_mb"),
        ],
    )
    def test_settings_that_do_not_belong_together(self, config_of, tmp_path, engine, values, message):
        with pytest.raises(ValueError, match=message):
            config_of(engine, tmp_path / "out", **values)

    def test_an_unknown_engine_or_key_is_told_with_what_is_allowed(self):
        values = ["input.uri=x", "output.uri=y", "style.uri=z.png"]
        with pytest.raises(ConfigError, match=r"engine: 'adian' is not known; did you mean 'adain'"):
            job.load(None, [*values, "engine.name=adian"])
        with pytest.raises(ConfigError, match=r"engine\.decoder: required, but not given \(weights of"):
            job.load(None, [*values, "engine.name=adain", "engine.encoder=e.pth"])
        with pytest.raises(ConfigError, match=r"engine\.steps: not a known key; .*allowed: .*tiling"):
            job.load(None, [*values, "engine.name=microast", "engine.model=m", "engine.steps=3"])

    def test_a_style_that_the_model_does_not_know(self, config_of, tmp_path):
        config = config_of("msgnet", tmp_path / "out", style={"name": "acros"})
        with pytest.raises(ConfigError, match=r"no style 'acros' \(did you mean across\?\); it has across, along"):
            stylize.prepare(config, has_gpu=lambda: False)

    def test_a_model_of_another_engine(self, config_of, place, tmp_path):
        config = config_of("feedforward", tmp_path / "out", engine={"model": str(place / "msgnet")})
        with pytest.raises(ConfigError, match=r"is of engine msgnet; use engine\.name=msgnet"):
            stylize.prepare(config, has_gpu=lambda: False)

    def test_corrupted_weights(self, config_of, place, tmp_path):
        model = shutil.copytree(place / "feedforward", tmp_path / "model")
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        config = config_of("feedforward", tmp_path / "out", engine={"model": str(model)})
        with pytest.raises(WeightsError, match=r"model\.safetensors: "):
            stylize.prepare(config, has_gpu=lambda: False)

    def test_a_folder_without_the_four_files(self, config_of, place, tmp_path):
        config = config_of("microast", tmp_path / "out", engine={"model": str(place / "msgnet")})
        with pytest.raises(WeightsError, match=r"no file content_encoder\*; the folder must have one each of"):
            stylize.prepare(config, has_gpu=lambda: False)

    def test_a_style_image_that_is_too_small(self, config_of, tmp_path):
        Image.fromarray(draw_image(0, 8, 8)).save(tmp_path / "dot.png")
        config = config_of("adain", tmp_path / "out", style={"uri": str(tmp_path / "dot.png")})
        with pytest.raises(InputError, match="is 8 x 8 px, each side must have 32"):
            stylize.prepare(config, has_gpu=lambda: False)

    def test_another_style_is_another_plan(self, config_of, tmp_path, in_process):
        stylize.run(config_of("msgnet", tmp_path / "out"))
        with pytest.raises(PlanMismatch, match="styles"):
            stylize.run(config_of("msgnet", tmp_path / "out", style={"name": STYLES[1]}))


def test_the_config_beside_the_output_repeats_the_run(config_of, tmp_path, in_process, monkeypatch):
    stylize.run(config_of("msgnet", tmp_path / "out"))
    monkeypatch.chdir(tmp_path)
    again = job.load(tmp_path / "out/_vtray/config.yaml", [])
    assert again.engine.name == "msgnet"
    assert stylize.run(again).nothing_to_do


def test_no_cluster_is_started_for_what_is_wrong(config_of, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="it has across, along"):
        stylize.run(config_of("msgnet", tmp_path / "out", style={"name": "none"}))
