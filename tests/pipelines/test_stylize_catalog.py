"""Sixty real files as a catalog: turned, with profiles, transparent, grey, CMYK, of odd sizes and broken."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from style_support import stylize_config, write_painting, write_weights

from pipelines import stylize
from vtray.errors import ImageError
from vtray.images.picture import extension_for, read_picture
from vtray.report.records import read_records
from vtray.storage import open_storage
from vtray.verification import verify

pytestmark = [pytest.mark.fixtures, pytest.mark.filterwarnings("ignore::UserWarning:PIL")]

TEXT_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132)  # description, make, model, software, date
ORIENTATION = 0x0112
TOO_SMALL = {"orientation_rectangle.jpg"}  # 1 x 2 px


@pytest.fixture(scope="module")
def catalog(fixtures, tmp_path_factory):
    """Links to all messy files in one folder and to photographs in another."""
    folder = tmp_path_factory.mktemp("catalog")
    for name in ("messy", "content"):
        (folder / name).mkdir()
        for path in (fixtures / name).iterdir():
            (folder / name / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def pictures(catalog):
    """id -> what the file holds, or None where it is broken."""
    return {path.relative_to(catalog).as_posix(): readable(path) for path in sorted(catalog.glob("*/*"))}


def readable(path):
    try:
        return read_picture(path.read_bytes())
    except ImageError:
        return None


@pytest.fixture(scope="module")
def output(catalog, tmp_path_factory):
    """The catalog, stylized in this process without Ray."""
    from pipelines import batch, cluster

    folder = tmp_path_factory.mktemp("stylized")
    config = stylize_config(
        catalog,
        folder / "out",
        weights=write_weights(folder / "tiny.pth"),
        painting=write_painting(folder / "painting.png"),
        engine={"steps": 2, "size_px": 64, "batch": 2},
        units={"max_images": 8},
        max_failed=0.25,
    )

    def run_units(units, step, digests, *, workers):
        return (step(unit, digests[unit.unit_id]) for unit in units)

    with pytest.MonkeyPatch.context() as patch:
        two_cpus = cluster.Cluster(nodes=(cluster.Node(num_cpus=2),))
        patch.setattr(cluster, "connect", lambda address: two_cpus)
        patch.setattr(batch, "run_units", run_units)
        assert stylize.run(config).status == "complete"
    return folder / "out"


def result_of(output, image_id, picture):
    return output / "data" / extension_for(image_id, picture.format, "same")


def good(pictures):
    return {i: picture for i, picture in pictures.items() if picture and i.rpartition("/")[2] not in TOO_SMALL}


def test_every_image_has_its_result_and_every_other_its_row(output, pictures):
    expected = {result_of(output, image_id, picture) for image_id, picture in good(pictures).items()}
    assert {path for path in output.glob("data/**/*") if path.is_file()} == expected
    rows = [row for path in output.glob("quarantine/*") for row in pq.read_table(path).to_pylist()]
    assert {row["image_id"] for row in rows} == pictures.keys() - good(pictures).keys()
    assert {row["error_type"] for row in rows if row["stage"] == "stylize"} == {"too_small"}
    assert len(pictures) >= 60
    assert len(rows) == 11
    assert verify(open_storage(str(output)), deep=True).faults == ()


def test_names_and_sizes_are_those_of_the_input(output, pictures):
    renamed = 0
    for image_id, picture in good(pictures).items():
        path = result_of(output, image_id, picture)
        renamed += path != output / "data" / image_id
        height, width = picture.image.shape[:2]
        assert Image.open(path).size == (width, height), image_id
    assert renamed == 6  # AVIF, GIF, ICO, JPEG 2000 and PGM files


def test_metadata_is_that_of_the_input(output, pictures, catalog):
    compared = {"text": 0, "icc": 0, "alpha": 0, "turned": 0}
    for image_id, picture in good(pictures).items():
        source, result = Image.open(catalog / image_id), Image.open(result_of(output, image_id, picture))
        for tag in TEXT_TAGS if picture.metadata.exif else ():
            if source.getexif().get(tag):
                compared["text"] += 1
                assert result.getexif().get(tag) == source.getexif()[tag], (image_id, tag)
        assert result.getexif().get(ORIENTATION, 1) == 1, image_id
        compared["turned"] += source.getexif().get(ORIENTATION, 1) != 1
        if picture.metadata.icc:
            compared["icc"] += 1
            assert result.info["icc_profile"] == source.info["icc_profile"], image_id
        if picture.alpha is not None:
            compared["alpha"] += 1
            kept = np.asarray(result.convert("RGBA").getchannel("A"))  # WebP leaves an opaque plane out
            assert np.array_equal(kept, picture.alpha), image_id
    assert compared["text"] >= 20
    assert compared["icc"] >= 3
    assert compared["alpha"] >= 10
    assert compared["turned"] >= 8


def test_records_tell_what_was_lost(output):
    records = {
        record["image_id"]: record for record in read_records((output / "_vtray/records.parquet").read_bytes())
    }
    assert any("CMYK" in text for text in records["messy/pil_sample_cmyk.jpg"]["warnings"])
    assert any("first of 31" in text for text in records["messy/chi.gif"]["warnings"])
    wide = records["messy/exif_Landscape_6.jpg"]
    assert (wide["width"], wide["height"]) == (1800, 1200)
    assert max(wide["working_width"], wide["working_height"]) == 64
