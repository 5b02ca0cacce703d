"""The catalog: counts, bytes that depend on the seed only, a showroom that is really another place."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vtray.demo.catalog import COUNTS, CatalogImage, catalog_images, write_catalog
from vtray.demo.products import CLASS_NAMES
from vtray.images import decode

SIZE_PX = 96


@pytest.fixture(scope="module")
def pictures() -> list[CatalogImage]:
    counts = {"train": 4, "test": 2, "showroom": 2}
    return list(catalog_images(seed=3, counts=counts, size_px=SIZE_PX))


def of_split(pictures: list[CatalogImage], split: str) -> list[CatalogImage]:
    return [picture for picture in pictures if picture.split == split]


def mean_colour(pictures: list[CatalogImage]) -> np.ndarray:
    return np.mean([picture.image.mean(axis=(0, 1)) for picture in pictures], axis=0)


def centre_histogram(image: np.ndarray) -> np.ndarray:
    """Colours of the middle of the picture, 4 x 4 x 4 bins."""
    middle = image[image.shape[0] // 4 :, image.shape[1] // 4 : -image.shape[1] // 4] // 64
    bins = middle.reshape(-1, 3).astype(int) @ [16, 4, 1]
    return np.bincount(bins, minlength=64) / len(bins)


def test_every_class_gets_its_count_in_every_split(pictures: list[CatalogImage]) -> None:
    found = Counter((picture.split, picture.class_name) for picture in pictures)
    assert len(CLASS_NAMES) == 12
    assert found == {
        (split, name): count
        for split, count in (("train", 4), ("test", 2), ("showroom", 2))
        for name in CLASS_NAMES
    }
    assert len({(picture.split, picture.name) for picture in pictures}) == len(pictures)
    assert sum(COUNTS.values()) * len(CLASS_NAMES) == 312


def test_pictures_are_rgb_bytes_of_the_asked_size_with_light_and_dark(pictures: list[CatalogImage]) -> None:
    for picture in pictures:
        assert picture.image.shape == (SIZE_PX, SIZE_PX, 3)
        assert picture.image.dtype == np.uint8
        assert picture.image.std() > 12, f"{picture.name} is nearly blank"


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others() -> None:
    def first_pixels(seed: int) -> list[bytes]:
        return [p.image.tobytes() for p in catalog_images(seed=seed, counts={"val": 1}, size_px=SIZE_PX)]

    once, again, other = first_pixels(1), first_pixels(1), first_pixels(2)
    assert once == again
    assert not set(once) & set(other)


def test_another_number_of_images_keeps_the_common_ones(pictures: list[CatalogImage]) -> None:
    many = {(p.split, p.name): p.image.tobytes() for p in pictures}
    few = list(catalog_images(seed=3, counts={"showroom": 1, "train": 1}, size_px=SIZE_PX))
    assert len(few) == 24
    assert all(many[p.split, p.name] == p.image.tobytes() for p in few)


def test_no_picture_appears_twice(pictures: list[CatalogImage]) -> None:
    assert len({picture.image.tobytes() for picture in pictures}) == len(pictures) == 96


def test_the_showroom_is_darker_and_warmer_than_the_test_split(pictures: list[CatalogImage]) -> None:
    test, showroom = (mean_colour(of_split(pictures, split)) for split in ("test", "showroom"))
    assert showroom.mean() < 0.75 * test.mean()
    assert showroom[0] / showroom[2] > 1.4 * test[0] / test[2]


def test_colours_tell_classes_apart_in_the_machine_and_less_so_in_the_showroom(
    pictures: list[CatalogImage],
) -> None:
    train = of_split(pictures, "train")
    centroids = np.stack(
        [
            np.mean([centre_histogram(p.image) for p in train if p.class_name == name], axis=0)
            for name in CLASS_NAMES
        ]
    )

    def accuracy(split: str) -> float:
        hits = [
            CLASS_NAMES[int(np.abs(centroids - centre_histogram(p.image)).sum(axis=1).argmin())] == p.class_name
            for p in of_split(pictures, split)
        ]
        return float(np.mean(hits))

    assert accuracy("test") > 3 / 12  # chance is 1 / 12
    assert accuracy("showroom") < accuracy("test")


def test_the_written_folder_holds_the_pictures_and_a_second_run_writes_nothing(tmp_path: Path) -> None:
    counts = {"train": 1, "showroom": 1}
    assert write_catalog(tmp_path, seed=3, counts=counts, size_px=SIZE_PX) == 24
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) == 24
    assert all(path.suffix == ".jpg" for path in written)
    assert write_catalog(tmp_path, seed=3, counts=counts, size_px=SIZE_PX) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written

    for picture in catalog_images(seed=3, counts={"train": 1}, size_px=SIZE_PX):
        path = tmp_path / "train" / picture.class_name / f"{picture.name}.jpg"
        assert np.abs(decode(path.read_bytes()).image.astype(int) - picture.image).mean() < 6


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    write_catalog(tmp_path, counts={"val": 1}, size_px=64)
    victim = tmp_path / "val" / "cola_can" / "cola_can-000.jpg"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    assert write_catalog(tmp_path, counts={"val": 1}, size_px=64) == 1
    assert victim.read_bytes() == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": {"trian": 1}}, "no split trian; choose from train"),
        ({"counts": {"val": -1}}, "0 or more"),
        ({"size_px": 10}, "size_px is 10"),
    ],
)
def test_wrong_options_are_refused_with_the_value(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(catalog_images(**options))
