"""The stylize job: its plan and output, what a rerun does, and how it is refused."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import draw_image
from PIL import Image
from style_support import stylize_config, write_painting, write_weights
from support import output_bytes

from pipelines import cluster, stylize
from pipelines.cluster import Cluster, Node
from pipelines.stylize_config import StylizeUnits
from vtray.errors import ConfigError, InputError, PlanMismatch, ResourcesError, TooManyFailures, WeightsError
from vtray.report.records import read_records
from vtray.storage import open_storage
from vtray.style import probe
from vtray.style.networks import NETWORKS
from vtray.verification import verify

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A catalog of nine small images in two sizes, the tiny network and a painting."""
    folder = tmp_path_factory.mktemp("stylize")
    for number in range(9):
        product = folder / "catalog" / ("can", "carton")[number % 2]
        product.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(number, *((48, 64), (40, 40))[number % 3 == 0])).save(product / f"{number}.jpg")
    write_weights(folder / "tiny.pth")
    write_painting(folder / "painting.png")
    return folder


@pytest.fixture
def config_of(place):
    """A config of the place's catalog, with values on top."""

    def make(to, source=place / "catalog", **values):
        return stylize_config(source, to, weights=place / "tiny.pth", painting=place / "painting.png", **values)

    return make


@pytest.fixture(scope="module")
def finished(place, ray_cluster):
    """An undisturbed run on two workers; nobody may change it."""
    output = place / "finished"
    config = stylize_config(place / "catalog", output, weights=place / "tiny.pth", painting=place / "painting.png")
    report = stylize.run(config)
    assert (report.status, report.images, report.failed) == ("complete", 9, 0)
    return output


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def no_ray(monkeypatch):
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))


def plan_of(output):
    return json.loads((output / "_vtray/plan.json").read_text())


def snapshot(output):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in output.rglob("*") if path.is_file()}


class TestOutput:
    def test_it_is_what_design_says(self, finished, place):
        names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
        books = {"plan.json", "units.parquet", "manifest.json", "records.parquet", "report.json", "config.yaml"}
        expected = {f"_vtray/{name}" for name in books} | {
            f"preview/{name}" for name in ("index.html", "results.png")
        }
        assert expected | {"_SUCCESS", "preview/worst.png"} <= names
        catalog = {f"data/{path.relative_to(place / 'catalog').as_posix()}" for path in place.glob("catalog/*/*")}
        assert {name for name in names if name.startswith("data/")} == catalog
        assert verify(open_storage(str(finished)), deep=True).faults == ()

    def test_workers_make_what_one_process_makes(self, finished, tmp_path, config_of, in_process):
        stylize.run(config_of(tmp_path / "out"))
        assert output_bytes(tmp_path / "out") == output_bytes(finished)

    def test_records_are_those_of_the_receipts(self, finished):
        records = read_records((finished / "_vtray/records.parquet").read_bytes())
        receipts = [json.loads(path.read_text()) for path in sorted(finished.glob("_vtray/receipts/*.json"))]
        assert records == sorted(
            (r for receipt in receipts for r in receipt["records"]), key=lambda r: r["image_id"]
        )
        assert len(records) == 9
        assert all(record["total_after"] < record["total_before"] for record in records)
        assert "seconds" not in (finished / "_vtray/manifest.json").read_text()

    @pytest.mark.parametrize("kind", ["tar", "parquet"])
    def test_ids_without_suffix_become_files(self, place, finished, tmp_path, config_of, in_process, kind):
        paths = sorted(place.glob("catalog/can/*.jpg"))
        if kind == "tar":
            with tarfile.open(tmp_path / "shard.tar", "w") as shard:
                for path in paths:
                    shard.add(path, path.name)
        else:
            table = {"image": [p.read_bytes() for p in paths], "image_id": [f"../{p.stem}" for p in paths]}
            pq.write_table(pa.table(table), tmp_path / "catalog.parquet")
        source = tmp_path / ("shard.tar" if kind == "tar" else "catalog.parquet")
        stylize.run(config_of(tmp_path / "out", source))
        folder = tmp_path / "out/data" / ("shard.tar" if kind == "tar" else "%2E%2E")
        made = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert made == {path.name: path.read_bytes() for path in finished.glob("data/can/*")}

    def test_one_format_for_all(self, place, tmp_path, config_of, in_process):
        catalog = tmp_path / "catalog"
        catalog.mkdir()
        for name in ("a.jpg", "a.png", "b.webp"):
            Image.fromarray(draw_image(1)).save(catalog / name)
        stylize.run(config_of(tmp_path / "out", catalog, output={"format": "png"}))
        made = {path.name: Image.open(path).format for path in (tmp_path / "out/data").iterdir()}
        assert made == {"a.jpg.png": "PNG", "a.png": "PNG", "b.png": "PNG"}

    def test_a_name_that_another_image_takes_is_part_of_the_work(self, tmp_path, config_of):
        """a.jpg becomes a.jpg.png because of a.png; without that it is other work, and a replan does it again."""
        catalog = tmp_path / "catalog"
        catalog.mkdir()
        for name in ("a.jpg", "a.png", "b.jpg"):
            Image.fromarray(draw_image(1)).save(catalog / name)
        config = config_of(tmp_path / "out", catalog, units={"max_images": 1}, output={"format": "png"})
        before = stylize.prepare(config, has_gpu=lambda: False).plan.units
        (catalog / "a.png").unlink()
        after = stylize.prepare(config, has_gpu=lambda: False).plan.units
        assert after["00000"] != before["00000"]
        assert after["00001"] == before["00002"]  # b.jpg


class TestRerun:
    def test_a_finished_output_is_left_alone(self, copied, config_of, no_ray):
        before = snapshot(copied)
        report = stylize.run(config_of(copied))
        assert report.nothing_to_do
        assert report.images == 9
        assert snapshot(copied) == before

    def test_it_imports_neither_torch_nor_ray(self, copied, config_of, tmp_path):
        file = tmp_path / "run.yaml"
        file.write_text(config_of(copied).model_dump_json())
        code = (
            "import sys; from jobs import cli\n"
            f"code = cli.main(['stylize', '--config', {str(file)!r}])\n"
            "print(code, sorted({'torch', 'torchvision', 'ray', 'mlflow', 's3fs'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.splitlines()[-1] == "0 []"
        assert "nothing to do" in done.stdout

    def test_only_what_has_no_receipt_is_done_again(self, copied, finished, config_of, in_process):
        kept = (copied / "_vtray/receipts/00000.json").read_bytes()
        (copied / "_vtray/receipts/00001.json").unlink()
        (copied / "_SUCCESS").unlink()
        (copied / "_vtray/manifest.json").unlink()
        (copied / "data" / "left-over.jpg").write_bytes(b"of a killed attempt")
        stylize.run(config_of(copied))
        assert output_bytes(copied) == output_bytes(finished)
        assert (copied / "_vtray/receipts/00000.json").read_bytes() == kept

    def test_another_style_is_refused_and_replan_replaces_it(self, copied, tmp_path, config_of, in_process):
        write_painting(tmp_path / "other.png", width=40)
        before = snapshot(copied)
        with pytest.raises(PlanMismatch, match=r'styles\.0\.name: "painting\.png" -> "other\.png"'):
            stylize.run(config_of(copied, style={"uri": str(tmp_path / "other.png")}))
        assert snapshot(copied) == before
        report = stylize.run(config_of(copied, style={"uri": str(tmp_path / "other.png")}, replan=True))
        assert (report.status, report.nothing_to_do) == ("complete", False)
        assert verify(open_storage(str(copied)), deep=True).faults == ()

    def test_auto_is_decided_once_for_an_output(self, tmp_path, config_of, in_process, monkeypatch):
        """What the probe chose is in the plan; a rerun does not measure again, from whatever folder it starts."""
        auto = {"precision": "auto", "layout": "auto"}
        output, asked = tmp_path / "out", []
        choose = probe.choose_numerics

        def choose_odd(*args, **values):
            asked.append(values)
            return max(choose(*args, **values)[1], key=lambda way: (way.precision, way.layout)), ()

        monkeypatch.setattr(probe, "choose_numerics", choose_odd)
        stylize.run(config_of(output, features=auto))
        assert plan_of(output)["work"]["features"]["precision"] == "fp32"
        assert plan_of(output)["work"]["features"]["layout"] == "nhwc"
        assert plan_of(output)["work"]["features"]["style_layers"] == ["relu1_1", "relu2_1", "relu3_1"]
        assert asked == [{"precision": None, "layout": None, "device": "cpu"}]
        first = output_bytes(output)
        for name in ("_SUCCESS", "_vtray/manifest.json", "_vtray/receipts/00000.json"):
            (output / name).unlink()
        monkeypatch.setattr(probe, "choose_numerics", lambda *_, **__: pytest.fail("measured again"))
        stylize.run(config_of(output, features=auto))
        assert output_bytes(output) == first
        stylize.run(config_of(output, features=auto | {"precision": "fp32"}))  # says what the plan has
        with pytest.raises(PlanMismatch, match=r'layout: "nhwc" -> "nchw"'):
            stylize.run(config_of(output, features={"precision": "fp32", "layout": "nchw"}))

    def test_the_stored_config_repeats_the_run_from_any_folder(self, place, tmp_path, monkeypatch, in_process):
        from vtray import settings
        from vtray.storage import absolute_uri

        monkeypatch.chdir(place)
        config = stylize_config("catalog/can", "../" + tmp_path.name, weights="tiny.pth", painting="painting.png")
        config = config.model_copy(
            update={"output": config.output.model_copy(update={"uri": str(tmp_path / "o")})}
        )
        stylize.run(config)
        monkeypatch.chdir(tmp_path)
        again = settings.load(type(config), file=tmp_path / "o/_vtray/config.yaml")
        assert again.style.uri == (absolute_uri(str(place / "painting.png")),)
        assert stylize.run(again).nothing_to_do


class TestPlan:
    def test_it_names_what_decides_the_bytes(self, finished):
        plan = plan_of(finished)
        assert plan["job"] == "stylize"
        work = plan["work"]
        assert len(work["features"]["weights_sha256"]) == len(work["styles"][0]["sha256"]) == 64
        assert "weights_uri" not in work["features"]
        assert (work["threads"], work["device"], work["colour"]) == (1, "cpu", "style")
        assert {"torch", "numpy", "pillow", "vtray"} <= plan["versions"].keys()

    def test_weights_and_masks_decide_the_fingerprint_and_their_address_does_not(self, place, tmp_path, config_of):
        def fingerprint(**values):
            return stylize.prepare(config_of(tmp_path / "out", **values), has_gpu=lambda: False).plan.fingerprint

        moved = shutil.copy(place / "tiny.pth", tmp_path / "moved.pth")
        other = write_weights(tmp_path / "other.pth", scale=0.9)
        masks = tmp_path / "masks"
        masks.mkdir()
        Image.new("L", (64, 48)).save(masks / "1.png")
        plain = fingerprint()
        assert fingerprint(features={"weights": str(moved)}) == plain
        assert fingerprint(features={"weights": str(other)}) != plain
        masked = fingerprint(style={"masks": str(masks)})
        assert masked != plain
        Image.new("L", (64, 49)).save(masks / "1.png")
        assert fingerprint(style={"masks": str(masks)}) != masked

    @pytest.mark.parametrize(
        ("num_images", "batch", "expected"),
        [
            (1, 1, 1),
            (12, 1, 1),
            (60, 1, 2),
            (128, 1, 8),
            (60_000, 1, 8),
            (300_000, 1, 32),
            (10**6, 1, 64),
            (12, 6, 6),
        ],
    )
    def test_units_are_small(self, num_images, batch, expected):
        assert StylizeUnits().bound_for(num_images, batch=batch) == expected
        assert StylizeUnits().bound_for(num_images, batch=100) == 100
        assert StylizeUnits(max_images=5).bound_for(num_images, batch=batch) == 5

    def test_networks_in_the_config_are_those_of_the_library(self):
        from typing import get_args

        from pipelines.stylize_config import NetworkName

        assert get_args(NetworkName) == tuple(NETWORKS)


class TestFailures:
    def test_too_many_bad_images_are_told(self, place, tmp_path, config_of, in_process):
        catalog = shutil.copytree(place / "catalog", tmp_path / "catalog")
        (catalog / "can" / "cut.jpg").write_bytes((catalog / "can" / "0.jpg").read_bytes()[:300])
        with pytest.raises(TooManyFailures, match=r"1 of 10 images failed, max_failed=0\.01.*can/cut\.jpg"):
            stylize.run(config_of(tmp_path / "out", catalog))
        assert not (tmp_path / "out/_SUCCESS").exists()
        report = stylize.run(config_of(tmp_path / "out", catalog, max_failed=0.1))
        assert (report.status, report.failures) == ("complete", {"decode: truncated": 1})
        assert verify(open_storage(str(tmp_path / "out")), deep=True).faults == ()

    def test_a_run_in_which_no_image_could_be_stylized(self, place, tmp_path, config_of, in_process):
        huge = write_weights(tmp_path / "huge.pth", scale=1e12)
        with pytest.raises(TooManyFailures, match="9 of 9 images failed"):
            stylize.run(config_of(tmp_path / "out", features={"weights": str(huge)}))
        assert read_records((tmp_path / "out/_vtray/records.parquet").read_bytes()) == []

    def test_workers_larger_than_the_machine_are_refused(self, tmp_path, config_of, monkeypatch):
        monkeypatch.setattr(cluster, "connect", lambda _: Cluster(nodes=(Node(num_cpus=2), Node(num_cpus=2))))
        with pytest.raises(ResourcesError, match=r"each worker needs 3 CPUs and .*B; no node .* 2 CPUs"):
            stylize.run(config_of(tmp_path / "out", threads=3))
        with pytest.raises(ResourcesError, match=r"num_workers=3: the cluster has 4 CPUs .* use at most 2"):
            stylize.run(config_of(tmp_path / "new", threads=2, num_workers=3))

    def test_gpus_that_are_not_there_are_told(self, tmp_path, config_of, monkeypatch):
        monkeypatch.setattr(cluster, "connect", lambda _: Cluster(nodes=(Node(num_cpus=2),)))
        with pytest.raises(ResourcesError, match="each worker needs 1 CPU and 1 GPU; no node"):
            stylize.run(config_of(tmp_path / "out", use_gpu=True))


class TestWrongInput:
    """Everything that can be told before a cluster starts is told then, in one line, and nothing is written."""

    @pytest.fixture
    def refusal(self, tmp_path, config_of, no_ray):
        def run(error, match, **values):
            with pytest.raises(error, match=match) as raised:
                stylize.run(config_of(tmp_path / "out", **values))
            assert "\n" not in str(raised.value)
            assert not (tmp_path / "out").exists()

        return run

    def test_style_that_is_no_image(self, refusal, tmp_path):
        (tmp_path / "style.jpg").write_bytes(b"\xff\xd8 cut")
        refusal(
            InputError, r"style\.uri: .*style\.jpg: .*; choose another", style={"uri": f"{tmp_path}/style.jpg"}
        )

    def test_style_that_is_missing(self, refusal):
        refusal(InputError, r"style\.uri: /no/such\.jpg: no such file", style={"uri": "/no/such.jpg"})

    def test_style_of_eight_pixels(self, refusal, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "dot.png")
        refusal(InputError, r"dot\.png is 8 x 8 px, each side must have 32", style={"uri": f"{tmp_path}/dot.png"})

    def test_start_image_that_is_missing(self, refusal):
        refusal(InputError, r"engine\.start: /no/such\.jpg: no such file", engine={"start": "/no/such.jpg"})

    def test_mask_that_is_missing(self, refusal):
        refusal(
            InputError, r"style\.masks: /no/such: no such file, or an empty folder", style={"masks": "/no/such"}
        )

    def test_mask_that_is_broken(self, refusal, tmp_path):
        (tmp_path / "mask.png").write_text("white")
        refusal(InputError, r"style\.masks: .*mask\.png: not a readable", style={"masks": f"{tmp_path}/mask.png"})

    def test_layer_that_is_not_there(self, refusal):
        wrong = {"style_layers": ["relu1_1", "relu2_9"]}
        refusal(ConfigError, r"no layer 'relu2_9' \(did you mean relu2_\d\?\); it has conv1_1", features=wrong)

    def test_layer_that_the_weights_do_not_reach(self, refusal):
        refusal(ConfigError, r"'relu4_2' is deeper than the weights", features={"content_layers": ["relu4_2"]})

    def test_weights_of_another_network(self, refusal):
        refusal(WeightsError, "no weights of vgg19_normalised", features={"network": "vgg19_normalised"})

    def test_weights_that_are_all_zero(self, refusal, tmp_path):
        zero = write_weights(tmp_path / "zero.pth", scale=0.0)
        refusal(WeightsError, r"zero\.pth: weights all zero", features={"weights": str(zero)})

    def test_weights_with_another_hash(self, refusal):
        refusal(WeightsError, "0000", features={"sha256": "0" * 64})

    def test_weights_that_are_missing(self, refusal, place):
        refusal(WeightsError, r"tiny\.pt", features={"weights": str(place / "tiny.pt")})

    def test_output_that_holds_other_files(self, tmp_path, config_of, no_ray):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.txt").write_text("mine")
        with pytest.raises(InputError, match=r"did not write \(such as thesis\.txt\)"):
            stylize.run(config_of(tmp_path / "out"))

    def test_output_inside_the_catalog(self, place, config_of, no_ray):
        with pytest.raises(ConfigError, match="inside the input"):
            stylize.run(config_of(place / "catalog" / "out"))

    @pytest.mark.parametrize(
        ("values", "match"),
        [
            ({"style": {"weights": [1, 2]}}, "weights: 2 for 1 style images"),
            ({"style": {"masks": ["a", "b"]}}, "masks: 2 for 1 style images"),
            ({"loss": {"style_weight": 1000}}, "give all three or none"),
            ({"engine": {"start": "contnet"}}, "neither content nor noise nor an image file"),
            ({"features": {"network": "vgg18"}}, "vgg19"),
            ({"style": {"scale": 0}}, "greater than or equal"),
        ],
    )
    def test_keys_that_do_not_fit(self, tmp_path, config_of, values, match):
        with pytest.raises(ValueError, match=match):
            config_of(tmp_path / "out", **values)


def test_masks_and_two_styles_end_to_end(place, tmp_path, config_of, in_process):
    """A blend by regions: left one painting, right the other."""
    write_painting(tmp_path / "other.png", height=64)
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    Image.fromarray(draw_image(1)).save(catalog / "a.png")
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    Image.fromarray(left).save(tmp_path / "left.png")
    Image.fromarray(255 - left).save(tmp_path / "right.png")
    styles = [str(place / "painting.png"), str(tmp_path / "other.png")]
    masks = [str(tmp_path / "left.png"), str(tmp_path / "right.png")]
    report = stylize.run(config_of(tmp_path / "out", catalog, style={"uri": styles, "masks": masks}))
    assert (report.status, report.failed) == ("complete", 0)
    assert plan_of(tmp_path / "out")["work"]["masks"] != [None, None]


@pytest.mark.s3
def test_everything_may_lie_in_a_bucket(place, finished, tmp_path, s3_bucket, config_of, in_process):
    """Catalog, painting, weights, masks and output: the same bytes as from a disk."""
    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    for path in [*place.glob("catalog/*/*"), place / "tiny.pth", place / "painting.png"]:
        client.upload_file(str(path), bucket, path.relative_to(place).as_posix())
        if path.suffix == ".jpg":  # white masks change nothing
            Image.new("L", Image.open(path).size, 255).save(tmp_path / "mask.png")
            name = path.relative_to(place / "catalog").with_suffix(".png").as_posix()
            client.upload_file(str(tmp_path / "mask.png"), bucket, f"masks/{name}")
    style = {"uri": f"{s3_bucket}/painting.png", "masks": f"{s3_bucket}/masks"}
    config = config_of(
        f"{s3_bucket}/out",
        f"{s3_bucket}/catalog",
        style=style,
        features={"weights": f"{s3_bucket}/tiny.pth"},
    )
    assert stylize.run(config).status == "complete"
    assert verify(open_storage(f"{s3_bucket}/out"), deep=True).faults == ()
    names = {entry.key for entry in open_storage(f"{s3_bucket}/out").list("data")}
    assert names == {path.relative_to(finished).as_posix() for path in finished.glob("data/*/*")}
    assert stylize.run(config).nothing_to_do


def test_one_mlflow_run_with_losses_and_pictures(tmp_path, config_of, in_process):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    stylize.run(config_of(tmp_path / "out", tracking={"uri": uri}))
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("vtray").experiment_id])
    assert (run.info.run_name, run.info.status) == ("stylize", "FINISHED")
    assert {"images", "loss_p10", "loss_p50", "loss_p90", "hours_per_1000_images"} <= run.data.metrics.keys()
    assert run.data.params["engine.steps"] == "4"
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"manifest.json", "config.yaml", "index.html", "results.png", "worst.png"} <= artifacts
