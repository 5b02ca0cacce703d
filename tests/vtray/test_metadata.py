import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms, PngImagePlugin

from vtray.images import decode
from vtray.images.metadata import read_metadata
from vtray.images.profile import colour_space, to_srgb

EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0\0\0\0\0"  # one directory, orientation 8
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gradient(height=12, width=20):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 12, y * 20, (x + y) * 8], axis=2).astype(np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def read(encoded):
    return read_metadata(encoded, decode(encoded, keep_alpha=True))


def icc(space, connection, tags):
    """A version 2 printer profile with nothing but these tags (ICC.1:2001-04, section 6)."""
    d50 = struct.pack(">3i", 63190, 65536, 54061)  # XYZ of the illuminant in 1/65536
    tags = {b"wtpt": b"XYZ \0\0\0\0" + d50} | tags
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI4s4s4s", 128 + len(table) + len(body), 0x02100000, b"prtr", space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + d50 + bytes(48)
    return header + table + body


def grey_profile():
    """Levels are amounts of light: a curve of no points is the straight line."""
    return icc(b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(8)})


def cmyk_profile():
    """No ink is white and full black is black, as it should be; cyan alone prints as the grey of L* 50."""
    line = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    nodes = bytearray()
    for node in range(16):  # of two per ink, cyan first
        cyan, black = node >> 3, node & 1
        lightness = 0 if black else 128 if cyan else 255
        nodes += bytes([lightness, 128, 128])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + line * 4 + bytes(nodes) + line * 3
    return icc(b"CMYK", b"Lab ", {b"A2B0": table})


def cmyk_tiff(**options):
    ink = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    return saved(Pillow.frombytes("CMYK", (3, 1), ink.tobytes()), "TIFF", **options)


def with_chunk(png, kind, content):
    """The PNG with one more chunk before its end."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:-12] + chunk + png[-12:]


class TestProfiles:
    def test_colour_spaces(self):
        assert [colour_space(profile) for profile in (SRGB, grey_profile(), cmyk_profile())] == [
            "RGB",
            "GRAY",
            "CMYK",
        ]

    @pytest.mark.parametrize("profile", [b"", b"short", bytes(500)])
    def test_what_is_not_a_profile(self, profile):
        with pytest.raises(ValueError, match=f"not an ICC profile \\({len(profile)} bytes\\)"):
            colour_space(profile)

    def test_a_profile_for_other_pixels_is_refused(self):
        with pytest.raises(ValueError, match="cannot be applied"):
            to_srgb(Pillow.new("L", (2, 2)), cmyk_profile())

    def test_rgb_is_kept_and_the_pixels_with_it(self):
        image, metadata = read(saved(gradient(), "PNG", icc_profile=SRGB))
        assert metadata.icc == SRGB
        assert metadata.notes == ()
        np.testing.assert_array_equal(image, gradient())

    def test_rgb_fits_grey_pixels_that_are_rgb_now(self):
        image, metadata = read(saved(Pillow.new("L", (4, 4), 100), "PNG", icc_profile=SRGB))
        assert (metadata.icc, metadata.notes) == (SRGB, ("grey -> RGB",))
        assert (image == 100).all()

    @pytest.mark.parametrize("mode", ["L", "LA"])
    def test_grey_goes_through_its_profile(self, mode):
        grey = Pillow.fromarray(np.array([[0, 55, 128, 255]], np.uint8)).convert(mode)
        image, metadata = read(saved(grey, "PNG", icc_profile=grey_profile()))
        # light 55 / 255 = 0.2157 is sRGB 1.055 * 0.2157 ** (1 / 2.4) - 0.055 = 0.5018 -> 128; 128 -> 0.7366 -> 188
        assert np.abs(image.astype(int) - np.array([0, 128, 188, 255])[None, :, None]).max() <= 1
        assert metadata.icc is None
        assert metadata.notes == ("GRAY -> sRGB through the ICC profile", "grey -> RGB")

    def test_ink_goes_through_its_profile(self):
        image, metadata = read(cmyk_tiff(icc_profile=cmyk_profile()))
        # L* 50 is sRGB 119; without a profile cyan is (0, 255, 255)
        assert np.abs(image.astype(int) - np.array([255, 0, 119])[None, :, None]).max() <= 2
        assert metadata.icc is None
        assert metadata.notes == ("CMYK -> sRGB through the ICC profile", "CMYK -> RGB")

    def test_ink_is_turned_upright(self):
        ink = Pillow.frombytes("CMYK", (2, 1), bytes([0, 0, 0, 0, 0, 0, 0, 255]))
        encoded = saved(ink.resize((32, 16), 0), "JPEG", exif=EXIF, icc_profile=cmyk_profile())
        image, _ = read(encoded)
        assert image.shape == (32, 16, 3)  # orientation 8: the right side of the file is the top of the image
        assert image[2].max() < 30
        assert image[-2].min() > 225

    def test_ink_without_a_profile_is_what_decode_gives(self):
        image, metadata = read(cmyk_tiff())
        assert image.tolist() == [[[255, 255, 255], [0, 0, 0], [0, 255, 255]]]
        assert metadata.notes == ("CMYK -> RGB",)

    @pytest.mark.parametrize(
        ("profile", "note"),
        [
            (SRGB, "ICC profile dropped: it is for RGB, the pixels were CMYK"),
            (grey_profile(), "ICC profile dropped: it is for GRAY, the pixels were CMYK"),
            (b"nonsense", "damaged ICC profile dropped"),
            (cmyk_profile()[:200], "damaged ICC profile dropped"),
        ],
    )
    def test_profiles_that_do_not_fit_are_dropped_with_a_note(self, profile, note):
        image, metadata = read(cmyk_tiff(icc_profile=profile))
        np.testing.assert_array_equal(image, decode(cmyk_tiff()).image)
        assert metadata.icc is None
        assert note in metadata.notes


class TestParts:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_exif_of_every_format_that_has_a_block(self, kind):
        _, metadata = read(saved(gradient(), kind, exif=EXIF))
        assert metadata.exif == EXIF.replace(b"\x08\0\0\0\0\0\0\0", b"\x01\0\0\0\0\0\0\0")

    def test_exif_of_avif_where_pillow_moves_the_orientation(self):
        _, metadata = read(saved(gradient(), "AVIF", exif=EXIF))
        exif = Pillow.Exif()
        exif.load(metadata.exif)
        assert dict(exif) == {0x0112: 1}

    def test_exif_after_the_pixels_of_a_png(self):
        _, metadata = read(with_chunk(saved(gradient(), "PNG"), b"eXIf", EXIF[6:]))
        assert metadata.exif is not None
        assert metadata.exif.startswith(b"Exif\0\0II*")

    def test_exif_as_old_programs_write_it_into_png(self):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("Raw profile type exif", f"\nexif\n{len(EXIF):8}\n{EXIF.hex()}\n", zip=True)
        _, metadata = read(saved(gradient(), "PNG", pnginfo=chunks))
        assert metadata.exif is not None
        assert len(metadata.exif) == len(EXIF)

    def test_damaged_exif_is_dropped_and_the_rest_stays(self):
        _, metadata = read(saved(gradient(), "JPEG", exif=b"Exif\0\0garbage", icc_profile=SRGB, dpi=(200, 100)))
        assert (metadata.exif, metadata.icc, metadata.dpi) == (None, SRGB, (200, 100))
        assert metadata.notes == ("damaged EXIF dropped",)

    @pytest.mark.parametrize(
        "written", [b'tiff:Orientation="6"', b"tiff:Orientation='6'", b"<tiff:Orientation>6</"]
    )
    def test_orientation_in_xmp(self, written):
        packet = b'<x dc:rights="\xc2\xa9 Me" ' + written + b">"
        image, metadata = read(saved(gradient(), "WEBP", xmp=packet, lossless=True))
        assert metadata.xmp == packet.replace(b"6", b"1")
        assert image.shape == ((20, 12, 3) if b'"6"' in written or b">6" in written else (12, 20, 3))

    @pytest.mark.parametrize(
        ("kind", "options", "dpi"),
        [
            ("JPEG", {"dpi": (300, 150)}, (300, 150)),
            ("JPEG", {}, None),
            ("PNG", {"dpi": (300, 150)}, (299.9994, 150.0124)),  # whole dots per metre: 11811 and 5906
            ("BMP", {"dpi": (300, 150)}, (300, 150)),
            ("TIFF", {"dpi": (300, 150)}, (300, 150)),
            ("TIFF", {}, None),
            ("WEBP", {}, None),
        ],
    )
    def test_resolution_only_where_it_is_stated(self, kind, options, dpi):
        _, metadata = read(saved(gradient(), kind, **options))
        assert metadata.dpi == (None if dpi is None else pytest.approx(dpi, abs=0.02))

    def test_resolution_is_turned_with_the_image(self):
        _, metadata = read(saved(gradient(), "JPEG", dpi=(300, 150), exif=EXIF))
        assert metadata.dpi == (150, 300)

    @pytest.mark.parametrize("lossless", [True, False])
    @pytest.mark.parametrize("animated", [True, False])
    @pytest.mark.parametrize("exif", [b"", EXIF])
    def test_webp_without_loss(self, lossless, animated, exif):
        options = {"save_all": True, "append_images": [Pillow.fromarray(gradient()[::-1])]} if animated else {}
        _, metadata = read(saved(gradient(), "WEBP", lossless=lossless, exif=exif, **options))
        assert metadata.lossless == lossless
        assert metadata.notes == (("the first of 2 pictures",) if animated else ())


class TestNotes:
    @pytest.mark.parametrize(
        ("image", "kind", "notes"),
        [
            (Pillow.new("1", (3, 3)), "PNG", ("black and white -> RGB",)),
            (Pillow.new("P", (3, 3)), "PNG", ("palette -> RGB",)),
            (Pillow.new("LAB", (3, 3)), "TIFF", ("LAB -> RGB",)),
            (Pillow.fromarray(np.zeros((3, 3), np.uint16)), "PNG", ("grey -> RGB", "16-bit -> 8-bit")),
            (Pillow.fromarray(np.zeros((3, 3), np.uint16)), "TIFF", ("grey -> RGB", "16-bit -> 8-bit")),
            (Pillow.new("RGBA", (3, 3)), "PNG", ()),
            (Pillow.new("RGB", (3, 3)), "JPEG2000", ()),
        ],
    )
    def test_what_was_converted(self, image, kind, notes):
        assert read(saved(image, kind))[1].notes == notes

    def test_iptc(self):
        caption = b"8BIM\x04\x04\0\0\0\0\0\x0a" + b"\x1c\x02\x78\0\x05Hello"
        content = b"Photoshop 3.0\0" + caption
        jpeg = saved(gradient(), "JPEG")
        segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
        assert read(jpeg[:2] + segment + jpeg[2:])[1].notes == ("IPTC dropped",)


def test_a_file_whose_metadata_cannot_be_opened_keeps_its_pixels():
    encoded = saved(gradient(), "PNG")
    image, metadata = read_metadata(b"not an image", decode(encoded))
    np.testing.assert_array_equal(image, gradient())
    assert metadata.notes == ("damaged metadata dropped",)
