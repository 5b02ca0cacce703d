"""The pipeline on real photographs and on the odd files of the fixtures."""

import io
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps
from support import config_for, identities, output_bytes, rows_of, sources_of

from pipelines import augment
from pipelines.replay import replay_image
from vtray.errors import TooManyFailures
from vtray.seeding import rng_for

RECIPE = {
    "operators": [
        {"op": "random_resized_crop", "size_px": 96},
        {"op": "flip"},
        {"op": "flip_top_bottom"},
        {"op": "jpeg_compression", "p": 0.5},
    ],
    "variants": 2,
    "image": {"format": "png"},
    "units": {"max_images": 40},
}


@pytest.fixture(scope="module")
def photographs(fixtures):
    return fixtures / "datasets" / "grocery10" / "train"


@pytest.fixture(scope="module")
def folder_run(photographs, tmp_path_factory, ray_cluster):
    output = tmp_path_factory.mktemp("folder") / "out"
    report = augment.run(config_for(photographs, output, **RECIPE))
    assert (report.images, report.rows, report.failed) == (287, 861, 0)
    return output


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("tar", {"num_workers": 1}),
        ("parquet", {"units": {"max_images": 7}}),
        ("list", {"units": {"max_bytes": 10**6}}),
    ],
)
def test_same_images_whatever_the_input_workers_and_units(
    photographs, folder_run, tmp_path, ray_cluster, kind, values
):
    source = sources_of(photographs, tmp_path)[kind]
    augment.run(config_for(source, tmp_path / "out", **(RECIPE | values)))
    assert identities(tmp_path / "out") == identities(folder_run)


def test_replay_of_a_hundred_random_rows(folder_run):
    rows = rows_of(folder_run)
    chosen = rng_for("replay").choice(len(rows), 100, replace=False)
    replayed = [replay_image(str(folder_run), image_id=rows[i].image_id, variant=rows[i].variant) for i in chosen]
    assert [again.image for again in replayed] == [rows[i].image for i in chosen]
    assert all(again.identical for again in replayed)


def test_provenance_redone_with_bare_pillow_gives_the_same_pixels(folder_run, photographs):
    """Crop box, flips and JPEG quality are all that is needed; nothing of vtray is called."""
    done = Counter()
    for row in rows_of(folder_run):
        if row.variant == 0:
            continue
        image = ImageOps.exif_transpose(Image.open(photographs / row.image_id)).convert("RGB")
        for record in json.loads(row.operators):
            done[record["op"]] += 1
            if record["op"] == "random_resized_crop":
                size = record["width"], record["height"]
                image = image.crop(record["box"]).resize(size, Image.Resampling.BILINEAR)
            elif record["op"] == "flip":
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            elif record["op"] == "flip_top_bottom":
                image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
            else:
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=record["quality"])
                image = Image.open(buffer)
        assert image.tobytes() == Image.open(io.BytesIO(row.image)).tobytes(), row
    assert done["random_resized_crop"] == 574
    assert min(done.values()) > 200


@pytest.fixture
def mixed(fixtures, photographs, tmp_path):
    """The odd files among forty good photographs, all in one flat folder."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in [*sorted(photographs.glob("*/*"))[:40], *(fixtures / "messy").iterdir()]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_odd_files_among_good_ones(mixed, tmp_path, ray_cluster):
    output = tmp_path / "out"
    config = config_for(mixed, output, max_failed=0.05)
    with pytest.raises(TooManyFailures, match="of 95 images failed"):
        augment.run(config)
    assert not (output / "_SUCCESS").exists()
    report = augment.run(config_for(mixed, output, max_failed=0.2))
    quarantined = {
        row["image_id"]: row["error_type"]
        for path in (output / "quarantine").iterdir()
        for row in pq.read_table(path).to_pylist()
    }
    images = {row.image_id for row in rows_of(output)}
    assert images | set(quarantined) == {path.name for path in mixed.iterdir()}
    assert not images & set(quarantined)
    assert report.images == 95 == len(images) + report.failed
    assert sum(report.failures.values()) == report.failed == len(quarantined)
    assert {
        name: quarantined[name] for name in ("truncated_jpeg.jpg", "broken.png", "decompression_bomb.gif")
    } == {
        "truncated_jpeg.jpg": "truncated",
        "broken.png": "broken",
        "decompression_bomb.gif": "too_many_pixels",
    }


def test_odd_files_give_the_same_bytes_again(mixed, tmp_path, ray_cluster):
    for name in ("a", "b"):
        augment.run(config_for(mixed, tmp_path / name, max_failed=0.2, num_workers=1 if name == "a" else 2))
    assert output_bytes(tmp_path / "a") == output_bytes(tmp_path / "b")
