"""The images that the demo stylizes: spread over the folder, listed under their own names."""

from pathlib import Path

import pytest
from PIL import Image

from vtray.demo.showcase import choose_images, write_showcase
from vtray.sources import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of four images each, and files that are none."""
    root = tmp_path / "catalog"
    for number in range(12):
        path = root / "abc"[number // 4] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    Image.new("RGB", (8, 8)).save(root / ".hidden" / "x.png")
    (root / "folder.png").mkdir()
    return root


def test_the_first_of_each_class_when_there_are_as_many_as_classes(folder: Path) -> None:
    assert choose_images(folder, at_most=3) == ("a/00.jpg", "b/04.jpg", "c/08.jpg")


def test_all_images_when_there_are_few(folder: Path) -> None:
    names = choose_images(folder, at_most=20)
    assert len(names) == 12
    assert names == tuple(sorted(names))


def test_a_folder_without_images_gives_none(tmp_path: Path) -> None:
    assert choose_images(tmp_path) == ()


def test_a_number_below_one_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="at_most is 0; choose at least 1"):
        choose_images(folder, at_most=0)


def test_a_job_reads_the_list_under_the_images_own_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_showcase(tmp_path / "list.csv", ("a/00.jpg", "c/08.jpg"), root=Path("catalog"))
    monkeypatch.chdir("/")
    source = open_source(str(tmp_path / "list.csv"))
    assert source.format == "list"
    assert [ref.image_id for ref in source.refs] == ["a/00.jpg", "c/08.jpg"]
    assert [Path(ref.uri) for ref in source.refs] == [folder / "a" / "00.jpg", folder / "c" / "08.jpg"]
