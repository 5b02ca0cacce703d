import json
import os
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest
from support import config_for, identities, output_bytes, rows_of, sources_of

from pipelines import augment, cluster
from pipelines.replay import replay_image
from vtray.errors import ConfigError, InputError, PlanMismatch, ResourcesError, TooManyFailures
from vtray.manifest import sha256
from vtray.storage import open_storage
from vtray.verification import verify


@pytest.fixture(scope="module")
def all_sources(tiny_images, tmp_path_factory):
    return sources_of(tiny_images, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def finished(tiny_images, tmp_path_factory, ray_cluster):
    """An undisturbed run on the drawn images; nobody may change it."""
    output = tmp_path_factory.mktemp("finished") / "out"
    report = augment.run(config_for(tiny_images, output))
    assert (report.status, report.images, report.failed, report.rows) == ("complete", 24, 0, 72)
    return output


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished output under another name; its plan says nothing of where it is."""
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def no_ray(monkeypatch):
    """Fails the test if the run asks for a cluster."""
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))


def snapshot(output):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in output.rglob("*") if path.is_file()}


def test_the_output_is_what_design_says(finished):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    expected = {f"_vtray/{name}" for name in ("plan.json", "units.parquet", "manifest.json", "events.jsonl")}
    expected |= {"_SUCCESS", "preview/index.html", "preview/variants.png", "preview/operators.png"}
    assert expected <= names
    assert verify(open_storage(str(finished)), deep=True).faults == ()
    assert not any("tmp" in name for name in names)


def test_rows_carry_their_provenance(finished, tiny_images):
    rows = rows_of(finished)
    assert Counter(row.variant for row in rows) == {0: 24, 1: 24, 2: 24}
    assert Counter(row.class_name for row in rows) == {"bottle": 24, "can": 24, "carton": 24}
    for row in rows:
        source = (tiny_images / row.image_id).read_bytes()
        assert row.source_sha256 == sha256(source)
        applied = [record["op"] for record in json.loads(row.operators)]
        if row.variant == 0:
            assert (row.image, applied) == (source, [])
        else:
            assert (row.width, row.height) == (32, 32)
            assert applied[0] == "random_resized_crop"
            assert applied[-1] == "noise"


def test_class_list_is_in_manifest_and_shards(finished):
    manifest = json.loads((finished / "_vtray/manifest.json").read_text())
    assert manifest["classes"] == ["bottle", "can", "carton"]
    for file in manifest["files"]:
        metadata = pq.read_schema(finished / file["key"]).metadata
        assert any(json.loads(value) == manifest["classes"] for value in metadata.values() if value[:1] == b"[")


@pytest.mark.parametrize("kind", ["tar", "parquet", "list"])
def test_the_format_of_the_input_does_not_matter(finished, all_sources, tmp_path, in_process, kind):
    augment.run(config_for(all_sources[kind], tmp_path / "out"))
    assert identities(tmp_path / "out") == identities(finished)


def test_one_worker_makes_what_two_make(finished, tiny_images, tmp_path, ray_cluster):
    augment.run(config_for(tiny_images, tmp_path / "out", num_workers=1))
    assert output_bytes(tmp_path / "out") == output_bytes(finished)


@pytest.mark.parametrize(
    "values",
    [
        {"units": {"max_images": 24}},
        {"units": {"max_images": 1}},
        {"units": {"max_bytes": 3000}},
        {"output_format": "webdataset"},
    ],
    ids=str,
)
def test_units_and_output_format_do_not_matter(finished, tiny_images, tmp_path, in_process, values):
    values = dict(values)
    output = {"uri": str(tmp_path / "out"), "format": values.pop("output_format", "parquet")}
    augment.run(config_for(tiny_images, tmp_path / "out", **values, output=output))
    assert identities(tmp_path / "out") == identities(finished)


def test_the_order_of_the_listing_does_not_matter(finished, tiny_images, tmp_path, in_process, monkeypatch):
    scandir = os.scandir

    class Backwards:
        def __init__(self, folder):
            with scandir(folder) as items:
                self.items = sorted(items, key=lambda item: item.name, reverse=True)

        def __enter__(self):
            return iter(self.items)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    augment.run(config_for(tiny_images, tmp_path / "out"))
    monkeypatch.undo()
    assert output_bytes(tmp_path / "out") == output_bytes(finished)


def test_variants_do_not_depend_on_how_many_there_are(finished, tiny_images, tmp_path, in_process):
    augment.run(config_for(tiny_images, tmp_path / "out", variants=1, keep_original=False))
    assert identities(tmp_path / "out") == [entry for entry in identities(finished) if entry[1] == 1]


def test_another_seed_gives_other_pixels(finished, tiny_images, tmp_path, in_process):
    augment.run(config_for(tiny_images, tmp_path / "out", seed=1))
    mine, theirs = identities(tmp_path / "out"), identities(finished)
    assert not {entry[2] for entry in mine if entry[1]} & {entry[2] for entry in theirs if entry[1]}


def test_a_finished_output_is_left_alone(copied, tiny_images, no_ray):
    before = snapshot(copied)
    report = augment.run(config_for(tiny_images, copied))
    assert report.nothing_to_do
    assert (report.images, report.rows) == (24, 72)
    assert snapshot(copied) == before


def test_only_what_has_no_receipt_is_done_again(copied, tiny_images, finished, ray_cluster):
    kept = json.loads((copied / "_vtray/receipts/00000.json").read_text())
    for unit in ("00001", "00003"):
        (copied / f"_vtray/receipts/{unit}.json").unlink()
        next(copied.glob(f"data/{unit}-*")).unlink()
    (copied / "_SUCCESS").unlink()
    (copied / "_vtray/manifest.json").unlink()
    augment.run(config_for(tiny_images, copied))
    assert output_bytes(copied) == output_bytes(finished)
    assert json.loads((copied / "_vtray/receipts/00000.json").read_text()) == kept
    starts = [json.loads(line) for line in (copied / "_vtray/events.jsonl").read_text().splitlines()]
    assert [event["pending"] for event in starts if event["event"] == "start"] == [5, 2]


def test_killed_between_the_last_receipt_and_the_manifest(copied, tiny_images, finished, no_ray):
    (copied / "_SUCCESS").unlink()
    (copied / "_vtray/manifest.json").unlink()
    assert augment.run(config_for(tiny_images, copied)).status == "complete"
    assert output_bytes(copied) == output_bytes(finished)


def test_another_plan_is_refused_and_replan_replaces_it(copied, tiny_images, in_process):
    before = snapshot(copied)
    with pytest.raises(PlanMismatch, match="variants: 2 -> 3"):
        augment.run(config_for(tiny_images, copied, variants=3))
    assert snapshot(copied) == before
    assert augment.run(config_for(tiny_images, copied, variants=3, replan=True)).rows == 96
    assert verify(open_storage(str(copied)), deep=True).faults == ()


def test_a_changed_input_is_refused(copied, tiny_images, tmp_path, no_ray):
    images = shutil.copytree(tiny_images, tmp_path / "images")
    with pytest.raises(PlanMismatch, match=r"input\.uri"):
        augment.run(config_for(images, copied))


def test_only_the_training_split_gets_variants(tiny_images, tmp_path, in_process):
    for split in ("train", "test"):
        shutil.copytree(tiny_images, tmp_path / "images" / split)
    report = augment.run(config_for(tmp_path / "images", tmp_path / "out"))
    counts = Counter((row.split, row.variant > 0) for row in rows_of(tmp_path / "out"))
    assert counts == {("train", False): 24, ("train", True): 48, ("test", False): 24}
    assert report.rows == 96


@pytest.fixture
def spoiled(tiny_images, tmp_path):
    """24 good images, one that is cut short, one that is text."""
    images = shutil.copytree(tiny_images, tmp_path / "images")
    whole = (images / "can" / "01.jpg").read_bytes()
    (images / "can" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "can" / "text.png").write_text("not an image")
    return images


def test_bad_images_are_rows_in_quarantine(spoiled, tmp_path, in_process):
    report = augment.run(config_for(spoiled, tmp_path / "out", max_failed=0.1))
    assert (report.images, report.failed, report.rows) == (26, 2, 72)
    assert report.failures == {"decode: truncated": 1, "decode: unidentified": 1}
    quarantined = [row for p in (tmp_path / "out/quarantine").iterdir() for row in pq.read_table(p).to_pylist()]
    assert {row["image_id"]: row["error_type"] for row in quarantined} == {
        "can/cut.jpg": "truncated",
        "can/text.png": "unidentified",
    }
    assert all(row["stage"] == "decode" and len(row["bytes_sha256"]) == 64 for row in quarantined)


def test_too_many_failures_leave_no_mark_until_they_are_allowed(spoiled, tmp_path, in_process, monkeypatch):
    output = tmp_path / "out"
    with pytest.raises(TooManyFailures, match=r"2 of 26 images failed, max_failed=0\.05 allows 1.*can/cut\.jpg"):
        augment.run(config_for(spoiled, output, max_failed=0.05))
    assert not (output / "_SUCCESS").exists()
    assert json.loads((output / "_vtray/manifest.json").read_text())["status"] == "partial"
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))
    assert augment.run(config_for(spoiled, output, max_failed=0.1)).status == "complete"
    assert (output / "_SUCCESS").exists()


@pytest.mark.parametrize("format", ["parquet", "webdataset", "folder"])
def test_replay_makes_the_same_bytes(tiny_images, tmp_path, in_process, format):
    output = tmp_path / "out"
    augment.run(config_for(tiny_images, output, output={"uri": str(output), "format": format}))
    for image_id, variant in (("can/01.jpg", 0), ("can/01.jpg", 2), ("bottle/00.jpg", 1)):
        replayed = replay_image(str(output), image_id=image_id, variant=variant)
        assert replayed.identical
        assert "byte-identical" in replayed.text()


def test_replay_of_what_is_not_there(finished):
    with pytest.raises(InputError, match="no image 'x'; ids look like"):
        replay_image(str(finished), image_id="x", variant=0)
    with pytest.raises(InputError, match=r"no variant 9; variants there: 0, 1, 2"):
        replay_image(str(finished), image_id="can/01.jpg", variant=9)
    with pytest.raises(InputError, match="holds no vtray output"):
        replay_image(str(finished.parent), image_id="x", variant=0)


def test_more_workers_than_cpus_are_refused(tiny_images, tmp_path, ray_cluster):
    with pytest.raises(ResourcesError, match=r"num_workers=64: the cluster has 2 CPUs"):
        augment.run(config_for(tiny_images, tmp_path / "out", num_workers=64))


def test_local_paths_on_several_nodes_are_refused():
    two = cluster.Cluster(nodes=(cluster.Node(num_cpus=2),) * 2)
    with pytest.raises(ConfigError, match=r"a local path on a cluster of 2 nodes.*shared_paths"):
        cluster.require_shared_paths(two, ["s3://b/in", "/data/out"], shared=False)
    cluster.require_shared_paths(two, ["/data/out"], shared=True)
    cluster.require_shared_paths(two, ["s3://b/in"], shared=False)


def test_one_mlflow_run_also_after_a_crash(tiny_images, tmp_path, in_process):
    from mlflow.tracking import MlflowClient

    output, uri = tmp_path / "out", f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = config_for(tiny_images, output, tracking={"uri": uri}, run_name="night")
    augment.run(config)
    for name in ("_SUCCESS", "_vtray/manifest.json", "_vtray/receipts/00002.json"):
        (output / name).unlink()
    augment.run(config)
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("vtray").experiment_id])
    assert (run.info.run_name, run.info.status) == ("night", "FINISHED")
    assert run.data.metrics["rows"] == 72
    assert run.data.params["variants"] == "2"
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"manifest.json", "config.yaml", "index.html", "variants.png", "operators.png"} <= artifacts
    assert (tmp_path / "mlartifacts").is_dir()


def test_a_run_goes_on_when_mlflow_is_away(tiny_images, tmp_path, in_process, caplog):
    tracking = {"uri": f"sqlite:///{tmp_path}/no/such/folder/mlflow.db"}
    (tmp_path / "no").write_text("a file where a folder should be")
    assert augment.run(config_for(tiny_images, tmp_path / "out", tracking=tracking)).status == "complete"
    assert "the run goes on without it" in caplog.text
