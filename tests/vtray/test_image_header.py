import io

import pytest
from PIL import Image

from vtray.errors import ImageError
from vtray.images import decode
from vtray.images.header import size_in_header

ORIENTATION = 0x0112


def encoded(kind, *, orientation=1, width=30, height=20):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = io.BytesIO()
    Image.new("RGB", (width, height)).save(content, kind, exif=exif)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_image(kind, orientation):
    file = encoded(kind, orientation=orientation)
    assert size_in_header(file) == ((20, 30) if orientation < 5 else (30, 20))
    assert size_in_header(file) == decode(file).image.shape[:2]


def test_the_first_bytes_are_enough():
    file = encoded("JPEG", width=900, height=700)
    assert size_in_header(file[: len(file) // 2]) == (700, 900)


@pytest.mark.parametrize("file", [b"", b"GIF89a", b"<html>", encoded("PNG")[:12]])
def test_what_does_not_tell_is_none(file):
    assert size_in_header(file) is None


@pytest.mark.fixtures
def test_odd_files_have_the_size_that_decoding_gives(fixtures):
    seen = 0
    for path in sorted((fixtures / "messy").iterdir()):
        content = path.read_bytes()
        try:
            shape = decode(content).image.shape[:2]
        except ImageError:
            continue  # a broken file may still have a readable header
        assert size_in_header(content) == shape, path.name
        seen += 1
    assert seen >= 45
