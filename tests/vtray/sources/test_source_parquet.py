import json

import pyarrow as pa
import pytest
from source_builders import CLASSES, draw, label_columns, write_files, write_parquet

from vtray.errors import InputError
from vtray.sources import open_source, read_unit
from vtray.sources import parquet as parquet_source


def read_all(source, *, max_images=1000):
    units = source.units(max_bytes=10**9, max_images=max_images)
    return {image.ref.image_id: image for unit in units for image in read_unit(unit)}


def image_array(images, kind):
    encoded = [drawn.encoded for drawn in images]
    if kind == "struct":
        return pa.array([{"bytes": body, "path": drawn.name} for body, drawn in zip(encoded, images, strict=True)])
    return pa.array(encoded, type={"binary": pa.binary(), "large_binary": pa.large_binary()}[kind])


@pytest.mark.parametrize("name", ["image", "bytes", "jpg"])
@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_image_columns(tmp_path, name, kind):
    images = draw(12)
    write_parquet(tmp_path / "a.parquet", {name: image_array(images, kind)} | label_columns(images))
    source = open_source(str(tmp_path))
    assert (source.format, source.classes) == ("parquet", CLASSES)
    found = read_all(source)
    for row, drawn in enumerate(images):
        image = found[f"a.parquet:{row}"]
        assert (image.encoded, image.ref.class_name, image.ref.split) == (
            drawn.encoded,
            drawn.class_name,
            drawn.split,
        )


def test_image_id_column_names_images_and_variants(tmp_path):
    images = draw(4)
    columns = {"image": image_array(images, "binary"), "image_id": ["b", "a", "b", "b"], "variant": [0, 0, 1, 2]}
    source = open_source(str(write_parquet(tmp_path / "a.parquet", columns)))
    assert [ref.image_id for ref in source.refs] == ["a", "b", "b#v1", "b#v2"]
    assert [image.encoded for image in read_all(source).values()] == [images[i].encoded for i in (1, 0, 2, 3)]


def test_hugging_face_class_names(tmp_path):
    images = draw(4)
    features = {"info": {"features": {"label": {"names": ["zebra", "ant"], "_type": "ClassLabel"}}}}
    columns = {"image": image_array(images, "struct"), "label": [0, 1, 1, None]}
    write_parquet(tmp_path / "a.parquet", columns, metadata={"huggingface": json.dumps(features)})
    source = open_source(str(tmp_path))
    assert source.classes == ("ant", "zebra")
    assert [ref.label for ref in source.refs] == [1, 0, 0, None]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([3, 10], ("3", "10")),
        (["b", "a"], ("a", "b")),
        ([1.0, None], ("1",)),
        ([[1], [2]], ()),
        ([None, None], ()),
    ],
)
def test_label_column(tmp_path, labels, classes):
    columns = {"image": image_array(draw(2), "binary"), "label": labels}
    assert open_source(str(write_parquet(tmp_path / "a.parquet", columns))).classes == classes


def test_plan_reads_no_image_column(tmp_path, monkeypatch):
    images = draw(10)
    write_parquet(tmp_path / "a.parquet", {"image": image_array(images, "binary")} | label_columns(images))
    asked = []
    real = parquet_source.parquet.ParquetFile

    class Watched(real):
        def read(self, columns=None, **options):
            asked.append(columns)
            return super().read(columns=columns, **options)

    monkeypatch.setattr(parquet_source.parquet, "ParquetFile", Watched)
    source = open_source(str(tmp_path))
    assert asked == [["class_name", "split"]]
    largest, smallest = max(len(drawn.encoded) for drawn in images), min(len(drawn.encoded) for drawn in images)
    assert all(smallest <= ref.num_bytes < 2 * largest for ref in source.refs)  # with the page's own bytes


def test_units_follow_row_groups_and_read_only_theirs(tmp_path, monkeypatch):
    images = draw(12)
    names = [f"{(7 * i) % 12:02d}" for i in range(12)]  # ids in another order than the rows
    columns = {"image": image_array(images, "binary"), "image_id": names}
    source = open_source(str(write_parquet(tmp_path / "a.parquet", columns, row_group_size=4)))
    units = source.units(max_bytes=10**9, max_images=4)
    assert [{ref.row_group for ref in unit.refs} for unit in units] == [{0}, {1}, {2}]
    asked = []
    real = parquet_source._batches
    monkeypatch.setattr(parquet_source, "_batches", lambda file, group: asked.append(group) or real(file, group))
    read = [(image.ref.image_id, image.encoded) for image in read_unit(units[1])]
    assert asked == [1]
    assert read == sorted((names[i], images[i].encoded) for i in range(4, 8))


def test_row_groups_larger_than_units_and_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_source, "ROWS_PER_BATCH", 5)
    images = draw(24)
    columns = {"image": image_array(images, "struct")}
    source = open_source(str(write_parquet(tmp_path / "a.parquet", columns, row_group_size=24)))
    found = read_all(source, max_images=7)
    assert [found[f"a.parquet:{row}"].encoded for row in range(24)] == [drawn.encoded for drawn in images]


def test_empty_rows_fail_alone(tmp_path):
    columns = {"image": pa.array([b"1", None, b"", b"4"])}
    found = read_all(open_source(str(write_parquet(tmp_path / "a.parquet", columns))))
    reasons = [found[f"a.parquet:{row}"].error and found[f"a.parquet:{row}"].error.reason for row in range(4)]
    assert reasons == [None, "unreadable_row", "unreadable_row", None]


def test_broken_row_group_fails_its_rows_and_no_others(tmp_path):
    images = draw(12)
    path = write_parquet(tmp_path / "a.parquet", {"image": image_array(images, "binary")}, row_group_size=4)
    source = open_source(str(path))
    chunk = parquet_source.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(bytes(content))
    found = read_all(source)
    failed = [row for row in range(12) if found[f"a.parquet:{row}"].error]
    assert failed == [4, 5, 6, 7]
    assert all(found[f"a.parquet:{row}"].encoded == images[row].encoded for row in (0, 3, 8, 11))


def test_file_replaced_by_rubbish_since_the_listing_fails_its_rows(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": image_array(draw(2), "binary")})
    source = open_source(str(path))
    path.write_bytes(b"rubbish" * 1000)
    assert [image.error.reason for image in read_all(source).values()] == ["unreadable_row"] * 2
    path.unlink()
    assert [image.error.reason for image in read_all(source).values()] == ["missing"] * 2


def test_addresses_in_parquet_are_a_list(tmp_path):
    images = draw(6)
    write_files(tmp_path / "pictures", {drawn.name: drawn.encoded for drawn in images})
    columns = {"uri": [f"pictures/{drawn.name}" for drawn in images]} | label_columns(images)
    source = open_source(str(write_parquet(tmp_path / "a.parquet", columns)))
    assert (source.format, source.classes) == ("list", CLASSES)
    assert source.refs[0].image_id == "pictures/000.png"
    assert source.refs[0].num_bytes == len(images[0].encoded)
    assert [image.encoded for image in read_all(source).values()] == [drawn.encoded for drawn in images]


def test_same_name_twice_is_refused_with_both_places(tmp_path):
    for name in ("a", "b"):
        write_parquet(tmp_path / f"{name}.parquet", {"image": image_array(draw(1), "binary"), "image_id": ["x"]})
    with pytest.raises(
        InputError, match=r"image_id 'x' stands for two images: .*a\.parquet.*row 0 and .*b\.parquet"
    ):
        open_source(str(tmp_path))


def test_file_without_image_columns_says_what_it_has(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"pixels": [[1], [2]], "image": ["text", "text"]})
    with pytest.raises(InputError, match=r"a\.parquet: no column with images.*it has: pixels, image"):
        open_source(str(tmp_path))


def test_broken_file_is_named(tmp_path):
    write_files(tmp_path, {"odd.parquet": b"PAR1 is not enough"})
    with pytest.raises(InputError, match=r"odd\.parquet: not a readable Parquet file"):
        open_source(str(tmp_path))


def test_no_rows_is_an_empty_input(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"image": pa.array([], pa.binary())})
    with pytest.raises(InputError, match="no image found; looked for rows"):
        open_source(str(tmp_path))
