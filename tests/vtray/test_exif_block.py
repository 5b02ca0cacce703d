import struct

import pytest
from PIL import Image as Pillow

from vtray.images.exif_block import PREFIX, tags_for_tiff, tags_of_tiff, upright_exif

EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
THUMBNAIL = b"\xff\xd8 a small picture \xff\xd9"


def directory(order, entries, *, following=0):
    """TIFF directory of (tag, type, count, value) with 4-byte values; SHORTs stand at the left."""
    packed = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count) + struct.pack(f"{order}{'HH' if kind == 3 else 'I'}", *value)
        for tag, kind, count, *value in entries
    )
    return struct.pack(f"{order}H", len(entries)) + packed + struct.pack(f"{order}I", following)


def block(order, entries, *, following=0, after=b""):
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return PREFIX + magic + struct.pack(f"{order}I", 8) + directory(order, entries, following=following) + after


def read(exif, tag=None):
    loaded = Pillow.Exif()
    loaded.load(exif)
    return dict(loaded) if tag is None else loaded.get_ifd(tag)


def with_thumbnail(*, after=b""):
    """One tag, then a second directory at 26 that points to a JPEG at 56 (8 + 2 + 12 + 4 = 26, 26 + 30 = 56)."""
    second = directory("<", [(0x0201, 4, 1, 56), (0x0202, 4, 1, len(THUMBNAIL))])
    return block("<", [(0x0112, 3, 1, 1, 0)], following=26, after=second + THUMBNAIL + after)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [3, 4], ids=["short", "long"])
def test_orientation_becomes_1_and_no_other_byte_changes(order, kind):
    turned = (6, 0) if kind == 3 else (6,)
    before = block(order, [(0x010F, 2, 4, 0x41424300), (0x0112, kind, 1, *turned), (0x0128, 3, 1, 2, 0)])
    after = block(order, [(0x010F, 2, 4, 0x41424300), (0x0112, 3, 1, 1, 0), (0x0128, 3, 1, 2, 0)])
    assert upright_exif(before, turned=False) == after
    assert upright_exif(after, turned=False) == after
    assert read(after)[0x0112] == 1


def test_letters_outside_ascii_stay():
    text = "© Ürsula".encode()
    exif = block("<", [(0x8298, 2, len(text), 26)], after=text)
    assert upright_exif(exif, turned=False) == exif
    assert read(exif)[0x8298].encode("latin-1") == text


@pytest.mark.parametrize("order", "<>")
def test_a_quarter_turn_swaps_widths_and_heights(order):
    # the main directory of five tags ends at 8 + 2 + 60 + 4 = 74, where the Exif directory begins
    main = [(0x0100, 4, 1, 4000), (0x0101, 4, 1, 3000), (0x011A, 4, 1, 300), (0x011B, 4, 1, 150), (EXIF, 4, 1, 74)]
    exif = block(order, main, after=directory(order, [(0xA002, 4, 1, 4000), (0xA003, 3, 1, 3000, 0)]))
    turned = upright_exif(exif, turned=True)
    assert read(turned) == {0x0100: 3000, 0x0101: 4000, 0x011A: 150, 0x011B: 300, EXIF: 74}
    assert read(turned, EXIF) == {0xA002: 3000, 0xA003: 4000}
    assert upright_exif(turned, turned=True) == exif
    assert upright_exif(exif, turned=False) == exif


def test_a_directory_outside_the_block_is_left_alone():
    exif = block("<", [(0x0112, 3, 1, 1, 0), (EXIF, 4, 1, 5000)])
    assert upright_exif(exif, turned=True) == exif


def test_a_thumbnail_at_the_end_is_cut_off():
    exif = upright_exif(with_thumbnail(), turned=False)
    assert len(exif) == len(with_thumbnail()) - len(THUMBNAIL)
    assert read(exif) == {0x0112: 1}
    assert read(exif, 1) == {}


def test_a_thumbnail_in_the_middle_is_blanked():
    exif = upright_exif(with_thumbnail(after=b"maker note"), turned=False)
    assert exif.endswith(bytes(len(THUMBNAIL)) + b"maker note")
    assert read(exif, 1) == {}


def test_what_only_claims_to_be_a_thumbnail_is_unlinked_and_kept():
    exif = with_thumbnail().replace(b"\xff\xd8", b"??")
    assert upright_exif(exif, turned=False)[36:] == exif[36:]
    assert read(upright_exif(exif, turned=False), 1) == {}


def test_of_a_cut_directory_the_tags_that_are_there_are_kept():
    whole = block("<", [(0x0112, 3, 1, 8, 0), (0x0128, 3, 1, 2, 0)])
    cut = whole[:-10]
    assert upright_exif(cut, turned=False) == cut.replace(
        struct.pack("<HHIHH", 0x0112, 3, 1, 8, 0), struct.pack("<HHIHH", 0x0112, 3, 1, 1, 0)
    )


def test_the_prefix_is_written_once_whatever_came():
    exif = block(">", [(0x0112, 3, 1, 1, 0)])
    assert {upright_exif(given, turned=False) for given in (exif, exif[6:], PREFIX + exif)} == {exif}


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0garbage", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM"]
)
def test_damaged_blocks_are_refused(exif):
    with pytest.raises(ValueError, match=r"not an EXIF block|no EXIF directory"):
        upright_exif(exif, turned=True)


def test_every_cut_and_every_flipped_byte_gives_a_block_or_a_value_error():
    whole = with_thumbnail()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(len(whole))]
    outcomes = set()
    for exif in damaged:
        try:
            outcomes.add(upright_exif(exif, turned=True)[:6])
        except ValueError:
            outcomes.add("refused")
    assert outcomes == {PREFIX, "refused"}


class TestTiffTags:
    def tags(self):
        tags = Pillow.Exif()
        tags[256], tags[259], tags[273] = 640, 5, 8  # storage: width, compression, strip
        tags[271], tags[0x8298], tags[0x0112] = "Maker", "© Ürsula".encode(), 6
        tags[700], tags[34675] = b"<xmp/>", b"profile"
        tags[65000] = 7
        tags[EXIF] = {0x9003: "2020:01:02 03:04:05", INTEROP: {1: "R98"}}
        tags[GPS] = {1: "N", 2: (52.0, 30.0, 1.5)}
        loaded = Pillow.Exif()
        loaded.load(tags.tobytes())
        return loaded

    def test_what_describes_the_picture_is_kept(self):
        exif = tags_of_tiff(self.tags()).tobytes()
        found = read(exif)
        assert found.keys() == {271, 0x8298, 65000, EXIF, GPS}
        assert (found[271], found[65000]) == ("Maker", 7)
        assert found[0x8298].encode("latin-1").decode() == "© Ürsula"
        assert read(exif, EXIF)[0x9003] == "2020:01:02 03:04:05"
        assert read(exif, INTEROP) == {1: "R98"}
        assert read(exif, GPS) == {1: "N", 2: (52.0, 30.0, 1.5)}

    def test_a_block_becomes_tags_and_the_same_block_again(self):
        exif = tags_of_tiff(self.tags()).tobytes()
        tags = tags_for_tiff(exif, b"<xmp/>")
        assert tags[700] == b"<xmp/>"
        del tags[700]
        assert tags.tobytes() == exif

    def test_a_directory_in_the_wrong_place_is_left_out(self):
        """Pillow's writer would follow its offset."""
        tags = Pillow.Exif()
        tags[INTEROP], tags[271] = 500, "Maker"
        assert dict(tags_of_tiff(tags)) == {271: "Maker"}

    def test_nothing_gives_no_tags(self):
        assert len(tags_for_tiff(None, None)) == 0
