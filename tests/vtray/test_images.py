import contextlib
import hashlib
import io
import os
import random
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from vtray.errors import ImageError
from vtray.images import MAX_PIXELS, decode, encode
from vtray.images.jpeg_exif import orientation_tag

FIXTURES = Path(os.environ.get("VTRAY_FIXTURES", Path(__file__).parents[3] / "shared" / "fixtures"))
needs_fixtures = [
    pytest.mark.fixtures,
    pytest.mark.skipif(not (FIXTURES / "messy").is_dir(), reason="no fixtures (set VTRAY_FIXTURES)"),
]

# name -> (width, height, format, mode, orientation) as decoded, or the reason of the refusal
MESSY: dict[str, tuple[int, int, str, str, int] | str] = {
    "16bit.cropped.jp2": (64, 64, "jpeg2000", "I;16", 1),
    "16bit.cropped.tif": (64, 64, "tiff", "I;16", 1),
    "apng_delay.png": (128, 64, "png", "RGBA", 1),
    "apng_mode_grayscale_alpha.png": (128, 64, "png", "LA", 1),
    "avif_hopper.avif": (128, 128, "avif", "RGB", 1),
    "broken.png": "broken",
    "broken_data_stream.png": "broken",
    "broken_exif_dpi.jpg": (100, 100, "jpeg", "RGB", 1),
    "chi.gif": (320, 240, "gif", "P", 1),
    "decompression_bomb.gif": "too_many_pixels",
    "decompression_bomb.ico": "too_many_pixels",
    "dispose_prev.gif": (100, 100, "gif", "P", 1),
    "exif_Landscape_6.jpg": (1800, 1200, "jpeg", "RGB", 6),
    "exif_Portrait_8.jpg": (1200, 1800, "jpeg", "RGB", 8),
    "hopper.bmp": (128, 128, "bmp", "RGB", 1),
    "hopper.iccprofile.tif": (128, 128, "tiff", "RGB", 1),
    "hopper.ico": (16, 16, "ico", "RGBA", 1),
    "hopper.webp": (128, 128, "webp", "RGB", 1),
    "hopper_16bit.pgm": (128, 128, "ppm", "I", 1),
    "hopper_bad_exif.jpg": (500, 500, "jpeg", "L", 1),
    "hopper_bw_500.png": (500, 500, "png", "1", 1),
    "hopper_gray.jpg": (128, 128, "jpeg", "L", 1),
    **{f"hopper_orientation_{n}.jpg": (128, 128, "jpeg", "RGB", n) for n in range(2, 9)},
    "i_trns.png": (64, 64, "png", "I;16", 1),
    "icc_profile.png": (57, 57, "png", "RGBA", 1),
    "icc_profile_big.jpg": (425, 250, "jpeg", "RGB", 1),
    "invalid-exif.jpg": (200, 200, "jpeg", "RGB", 1),
    "iss634.webp": (245, 245, "webp", "RGBA", 1),
    "junk_jpeg_header.jpg": (1024, 768, "jpeg", "RGB", 1),
    "l_trns.png": (64, 64, "png", "L", 1),
    "lab.tif": (10, 10, "tiff", "LAB", 1),
    "multipage.tiff": (10, 10, "tiff", "P", 1),
    "orientation_rectangle.jpg": (1, 2, "jpeg", "RGB", 8),
    "pil123p.png": (162, 150, "png", "P", 1),
    "pil123rgba.png": (162, 150, "png", "RGBA", 1),
    "pil_sample_cmyk.jpg": (100, 100, "jpeg", "CMYK", 1),
    "png_decompression_dos.png": "metadata_bomb",
    "rgb_trns.png": (64, 64, "png", "RGB", 1),
    "sugarshack.mpo": (640, 480, "jpeg", "RGB", 1),
    "sugarshack_bad_mpo_header.jpg": (640, 480, "jpeg", "RGB", 1),
    "tiff_16bit_RGB.tiff": (100, 40, "tiff", "RGB", 1),
    "tiff_strip_cmyk_jpeg.tif": (100, 100, "tiff", "CMYK", 1),
    "transparent.webp": (200, 150, "webp", "RGBA", 1),
    "truncated_end_chunk.png": "truncated",
    "truncated_image.png": "truncated",
    "truncated_jpeg.jpg": "truncated",
    "unknown_compression_method.png": "broken",
    "xmp_tags_orientation_exiftool.png": (10, 10, "png", "RGBA", 3),
    "zero_width.gif": "broken",
}


def reason_of(encoded: bytes, **options) -> str:
    with pytest.raises(ImageError) as refused:
        decode(encoded, **options)
    assert refused.value.stage == "decode"
    assert " at 0x" not in str(refused.value), "a message must be the same in every process"
    return refused.value.reason


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=2).astype(np.uint8)


def saved(image: Pillow.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_segment(jpeg: bytes, content: bytes) -> bytes:
    """The JPEG with one more APP1 segment at the front."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def pillow_orientation(encoded: bytes) -> int:
    with Pillow.open(io.BytesIO(encoded)) as opened:
        orientation = opened.getexif().get(0x0112, 1)
    return orientation if orientation in range(1, 9) else 1


def png(width: int, raw: bytes, *, depth: int, colour: int, chunks: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A one-line PNG by hand: `raw` is the packed line, colour 0 grey, 2 RGB, 3 palette."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


class TestMessyFiles:
    pytestmark = needs_fixtures

    def test_all_55_are_in_the_table(self):
        assert {path.name for path in (FIXTURES / "messy").iterdir()} == set(MESSY)
        assert len(MESSY) == 55

    @pytest.mark.parametrize(("name", "expected"), MESSY.items())
    def test_ends_as_pixels_or_with_the_right_reason(self, name, expected):
        encoded = (FIXTURES / "messy" / name).read_bytes()
        if isinstance(expected, str):
            assert reason_of(encoded) == expected
            return
        decoded = decode(encoded)
        height, width, channels = decoded.image.shape
        assert (width, height, decoded.format, decoded.mode, decoded.orientation) == expected
        assert channels == 3
        assert decoded.image.dtype == np.uint8
        assert decoded.image.flags.c_contiguous
        assert decoded.image.flags.writeable, "torch.from_numpy warns about read-only arrays"
        assert decoded.alpha is None

    @pytest.mark.parametrize("name", [name for name, expected in MESSY.items() if isinstance(expected, tuple)])
    def test_agrees_with_pillow_alone(self, name):
        """Modes that Pillow converts as we state it; 16-bit grey is where it does not (it clips)."""
        path = FIXTURES / "messy" / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(path) as opened:
                mode = opened.mode
                reference = ImageOps.exif_transpose(opened)
        if mode.startswith("I"):
            pytest.skip("16-bit grey has its own tests")
        reference = np.asarray(reference.convert("RGB" if mode == "LAB" else "RGBA"))
        decoded = decode(path.read_bytes(), keep_alpha=True)
        np.testing.assert_array_equal(decoded.image, reference[..., :3])
        if decoded.alpha is not None:
            np.testing.assert_array_equal(decoded.alpha, reference[..., 3])

    @pytest.mark.parametrize("orientation", range(2, 9))
    def test_orientation_equals_pillow_transpose_and_is_upright(self, orientation):
        path = FIXTURES / "messy" / f"hopper_orientation_{orientation}.jpg"
        decoded = decode(path.read_bytes())
        with Pillow.open(path) as opened:
            np.testing.assert_array_equal(decoded.image, np.asarray(ImageOps.exif_transpose(opened)))
        upright = decode((FIXTURES / "messy" / "hopper.bmp").read_bytes()).image
        # The same portrait, compressed lossily each time: close when upright, far when turned.
        assert np.abs(decoded.image.astype(int) - upright).mean() < 8
        assert np.abs(np.rot90(decoded.image).astype(int) - upright).mean() > 30

    def test_fast_path_is_pillow_bit_for_bit(self):
        paths = sorted((FIXTURES / "datasets" / "grocery10" / "train").rglob("*.jpg"))[::10]
        assert len(paths) >= 28
        for path in paths:
            with Pillow.open(path) as opened:
                reference = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
            np.testing.assert_array_equal(decode(path.read_bytes()).image, reference, err_msg=path.name)

    def test_jpeg_encoder_is_pillow_bit_for_bit_after_decoding(self):
        paths = sorted((FIXTURES / "datasets" / "grocery10" / "train").rglob("*.jpg"))[::60]
        assert len(paths) >= 4
        for path in paths:
            image = decode(path.read_bytes()).image
            for quality in (50, 75, 90, 96, 100):
                theirs = saved(Pillow.fromarray(image), "JPEG", quality=quality, subsampling="4:2:0")
                np.testing.assert_array_equal(decode(encode(image, quality=quality)).image, decode(theirs).image)

    def test_damaged_bytes_raise_nothing_but_image_errors(self):
        draw = random.Random(7)
        files = [
            path.read_bytes() for path in sorted((FIXTURES / "messy").iterdir()) if path.stat().st_size < 20_000
        ]
        assert len(files) > 30
        for _ in range(600):
            damaged = bytearray(draw.choice(files))
            if draw.random() < 0.5:
                del damaged[draw.randrange(len(damaged)) :]
            else:
                for _ in range(draw.randint(1, 10)):
                    damaged[draw.randrange(min(len(damaged), 600))] = draw.randrange(256)
            with contextlib.suppress(ImageError):
                assert decode(bytes(damaged)).image.dtype == np.uint8


class TestRefusals:
    def test_empty(self):
        assert reason_of(b"") == "empty"

    def test_lfs_pointer(self):
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
        assert reason_of(pointer) == "lfs_pointer"

    def test_text_and_noise_are_unidentified(self):
        assert reason_of(b"<html>404 not found</html>") == "unidentified"
        assert {reason_of(random.Random(seed).randbytes(300)) for seed in range(200)} == {"unidentified"}

    def test_formats_that_start_other_programs_are_not_known(self):
        assert reason_of(saved(Pillow.fromarray(gradient()), "EPS")) == "unidentified"

    @pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
    def test_jpeg_cut_anywhere_is_truncated(self, options):
        encoded = saved(Pillow.fromarray(gradient()), "JPEG", **options)
        cuts = range(3, len(encoded), 7)
        assert len(cuts) > 50
        assert {reason_of(encoded[:cut]) for cut in (*cuts, len(encoded) - 1)} == {"truncated"}

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("PNG", {}),
            ("WEBP", {}),
            ("JPEG2000", {}),
            ("AVIF", {}),
            ("TIFF", {}),
            ("BMP", {}),
        ],
    )
    def test_other_formats_cut_are_truncated(self, kind, options):
        encoded = saved(Pillow.fromarray(gradient()), kind, **options)
        cuts = [*range(200, len(encoded), 61), len(encoded) - 1]
        assert {reason_of(encoded[:cut]) for cut in cuts} == {"truncated"}

    def test_truncated_even_where_the_user_tolerates_it(self, monkeypatch):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        encoded = saved(Pillow.fromarray(gradient()), "JPEG")
        assert reason_of(encoded[:-200]) == "truncated"
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "the user's setting is given back"

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
    @pytest.mark.parametrize("users_limit", [None, 10, 10**9])
    def test_pixel_limit_is_ours(self, kind, users_limit, monkeypatch):
        monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", users_limit)
        encoded = saved(Pillow.fromarray(gradient(40, 60)), kind)
        assert decode(encoded, max_pixels=2400).image.shape == (40, 60, 3)
        assert reason_of(encoded, max_pixels=2399) == "too_many_pixels"
        assert users_limit == Pillow.MAX_IMAGE_PIXELS

    def test_bomb_is_refused_from_the_header(self):
        bomb = bytearray(saved(Pillow.fromarray(gradient()), "JPEG"))
        start = bomb.index(b"\xff\xc0")
        bomb[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
        assert reason_of(bytes(bomb)) == "too_many_pixels"
        assert MAX_PIXELS < 60_000 * 60_000

    def test_float_and_32_bit_samples_are_unsupported(self):
        assert reason_of(saved(Pillow.new("F", (4, 4), 0.5), "TIFF")) == "unsupported"
        assert reason_of(saved(Pillow.new("I", (4, 4), 70_000), "TIFF")) == "unsupported"


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_is_applied_once_in_every_format(self, kind, orientation):
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        encoded = saved(Pillow.fromarray(gradient()), kind, exif=exif)
        with Pillow.open(io.BytesIO(encoded)) as opened:
            reference = np.asarray(ImageOps.exif_transpose(opened))
        decoded = decode(encoded)
        assert decoded.orientation == orientation
        np.testing.assert_array_equal(decoded.image, reference)

    def test_alpha_is_turned_with_the_image(self):
        rgba = np.dstack([gradient(), np.arange(2400, dtype=np.uint8).reshape(40, 60)])
        exif = Pillow.Exif()
        exif[0x0112] = 6  # stored 90 degrees counter-clockwise: turn it clockwise
        decoded = decode(saved(Pillow.fromarray(rgba), "PNG", exif=exif), keep_alpha=True)
        np.testing.assert_array_equal(decoded.alpha, np.rot90(rgba[..., 3], -1))
        np.testing.assert_array_equal(decoded.image, np.rot90(rgba[..., :3], -1))

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("orientation", [*range(10), 274])
    def test_fast_reader_agrees_with_pillow(self, order, orientation):
        entries = [(0x010F, 2, 4, 0), (0x0112, 3, 1, orientation), (0x0128, 3, 1, 2)]
        directory = b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)
        tiff = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries)) + directory
        encoded = with_segment(encode(gradient()), b"Exif\0\0" + tiff + b"\0" * 4)
        assert orientation_tag(encoded) == decode(encoded).orientation == pillow_orientation(encoded)

    def test_xmp_and_odd_exif_are_left_to_pillow(self):
        xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='1' tiff:Orientation=\"6\"/>"
        long_tag = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x0112, 4, 1, 3) + b"\0" * 4
        for segment, expected in ((xmp, 6), (long_tag, 3)):
            encoded = with_segment(encode(gradient()), segment)
            assert orientation_tag(encoded) is None
            assert decode(encoded).orientation == expected == pillow_orientation(encoded)

    @pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM"])
    def test_damaged_exif_keeps_the_image(self, exif):
        plain = encode(gradient())
        decoded = decode(with_segment(plain, exif))
        assert decoded.orientation == 1
        np.testing.assert_array_equal(decoded.image, decode(plain).image)


class TestModes:
    def test_16_bit_grey_keeps_the_high_byte(self):
        samples = np.array([[0, 255, 256, 257, 0x7FFF, 0x8000, 65_534, 65_535]], np.uint16)
        high = [[0, 0, 1, 1, 127, 128, 255, 255]]
        for encoded in (saved(Pillow.fromarray(samples), "PNG"), saved(Pillow.fromarray(samples), "TIFF")):
            decoded = decode(encoded)
            assert decoded.mode == "I;16"
            np.testing.assert_array_equal(decoded.image, np.dstack([high] * 3))
        pgm = b"P5 8 1 65535\n" + samples.astype(">u2").tobytes()
        np.testing.assert_array_equal(decode(pgm).image, np.dstack([high] * 3))

    def test_8_bit_data_stored_as_16_bit_comes_back_exactly(self):
        grey = np.arange(256, dtype=np.uint16)[None]
        np.testing.assert_array_equal(decode(saved(Pillow.fromarray(grey * 257), "PNG")).image[..., 0], grey)

    def test_12_bit_grey_tiff_uses_its_own_white(self):
        pixels = b"\xff\xf0\x00\x80\x01\x00"  # 4095, 0, 2048, 256 in 12 bits each
        entries = [
            (256, 3, 4),
            (257, 3, 1),
            (258, 3, 12),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, 8),
            (278, 3, 1),
            (279, 4, 6),
        ]
        directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        tiff = b"II*\0" + struct.pack("<I", 14) + pixels + struct.pack("<H", len(entries)) + directory + b"\0" * 4
        assert decode(tiff).image[0, :, 0].tolist() == [255, 0, 128, 16]

    def test_alpha_is_composited_on_the_background(self):
        rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], np.uint8)
        encoded = saved(Pillow.fromarray(rgba), "PNG")
        # half: (200 * 128 + 255 * 127) / 255 = 227.4, (100 * 128 + 255 * 127) / 255 = 177.2, 127
        assert decode(encoded).image.tolist() == [[[200, 100, 0], [255, 255, 255], [227, 177, 127]]]
        # half: (200 * 128 + 10 * 127) / 255 = 105.4, (100 * 128 + 20 * 127) / 255 = 60.2, 30 * 127 / 255 = 14.9
        on_grey = decode(encoded, background=(10, 20, 30)).image
        assert on_grey.tolist() == [[[200, 100, 0], [10, 20, 30], [105, 60, 15]]]
        apart = decode(encoded, keep_alpha=True)
        assert apart.image.tolist() == rgba[..., :3].tolist()
        assert apart.alpha.tolist() == [[255, 0, 128]]

    def test_opaque_files_have_no_alpha(self):
        assert decode(saved(Pillow.fromarray(gradient()), "PNG"), keep_alpha=True).alpha is None

    def test_palette_with_transparency(self):
        palette = (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
        one = png(3, b"\x00\x01\x02", depth=8, colour=3, chunks=(palette, (b"tRNS", b"\xff\x00\xff")))
        assert decode(one).image.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
        several = png(3, b"\x00\x01\x02", depth=8, colour=3, chunks=(palette, (b"tRNS", b"\x00\x80")))
        apart = decode(several, keep_alpha=True)
        assert apart.image.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
        assert apart.alpha.tolist() == [[0, 128, 255]]

    @pytest.mark.parametrize(
        ("depth", "raw", "key", "grey"),
        [
            (1, b"\x40", 1, [0, 255]),
            (2, b"\x30", 3, [0, 255]),
            (4, b"\x0f", 15, [0, 255]),
            (8, b"\x07\x08", 8, [7, 8]),
        ],
    )
    def test_transparent_grey_at_every_depth(self, depth, raw, key, grey):
        decoded = decode(
            png(2, raw, depth=depth, colour=0, chunks=((b"tRNS", struct.pack(">H", key)),)), keep_alpha=True
        )
        assert decoded.image[0, :, 0].tolist() == grey
        assert decoded.alpha.tolist() == [[255, 0]]

    def test_transparent_16_bit_grey_is_compared_before_scaling(self):
        encoded = png(2, b"\x12\x34\x12\x35", depth=16, colour=0, chunks=((b"tRNS", b"\x12\x34"),))
        decoded = decode(encoded, keep_alpha=True)
        assert decoded.image[..., 0].tolist() == [[0x12, 0x12]]
        assert decoded.alpha.tolist() == [[0, 255]]

    def test_transparent_colour_in_8_and_16_bits(self):
        narrow = png(2, b"\x01\x02\x03\x01\x02\x04", depth=8, colour=2, chunks=((b"tRNS", b"\0\1\0\2\0\3"),))
        assert decode(narrow, keep_alpha=True).alpha.tolist() == [[0, 255]]
        key = b"\x10\x01\x20\x02\x30\x03"
        wide = png(2, key + b"\x11\x01\x20\x02\x30\x03", depth=16, colour=2, chunks=((b"tRNS", key),))
        decoded = decode(wide, keep_alpha=True)
        assert decoded.image.tolist() == [[[0x10, 0x20, 0x30], [0x11, 0x20, 0x30]]]
        assert decoded.alpha.tolist() == [[0, 255]]

    def test_cmyk_white_and_ink(self):
        cmyk = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
        tiff = saved(Pillow.frombytes("CMYK", (3, 1), cmyk.tobytes()), "TIFF")
        assert decode(tiff).image.tolist() == [[[255, 255, 255], [0, 0, 0], [0, 255, 255]]]

    def test_animated_files_give_the_first_frame(self):
        frames = [Pillow.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#00ff00")]
        for kind in ("GIF", "PNG", "WEBP", "TIFF"):
            options = {"lossless": True} if kind == "WEBP" else {}
            encoded = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
            assert (decode(encoded).image == [255, 0, 0]).all(), kind


class TestEncode:
    def test_same_pixels_same_bytes(self):
        image = gradient()
        for kind in ("jpeg", "png", "webp"):
            first = encode(image, format=kind)
            assert first == encode(image.copy(), format=kind)
            assert decode(first).format == kind

    def test_png_is_exact_and_accepts_views(self):
        mirrored = gradient()[:, ::-1]
        assert not mirrored.flags.c_contiguous
        np.testing.assert_array_equal(decode(encode(mirrored, format="png")).image, mirrored)
        assert encode(mirrored) == encode(np.ascontiguousarray(mirrored))

    def test_jpeg_is_420_and_quality_counts(self):
        image = gradient()
        assert simplejpeg.decode_jpeg_header(encode(image))[3] == "420"
        assert len(encode(image, quality=30)) < len(encode(image, quality=95))

    @pytest.mark.parametrize(("kind", "side"), [("jpeg", 65_501), ("webp", 16_384)])
    def test_sides_over_the_limit(self, kind, side):
        with pytest.raises(ImageError, match=rf"{side} x 1.*resize") as refused:
            encode(np.zeros((1, side, 3), np.uint8), format=kind)
        assert (refused.value.stage, refused.value.reason) == ("encode", "too_large")
        assert encode(np.zeros((1, side - 1, 3), np.uint8), format=kind)
        assert encode(np.zeros((1, side, 3), np.uint8), format="png")

    def test_no_pixels(self):
        with pytest.raises(ImageError) as refused:
            encode(np.zeros((0, 4, 3), np.uint8))
        assert (refused.value.stage, refused.value.reason) == ("encode", "empty")

    @pytest.mark.parametrize(
        "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)]
    )
    def test_other_arrays_are_the_callers_mistake(self, image):
        with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
            encode(image)


def test_threads_get_the_same_pixels_and_leave_no_trace():
    """Fast and slow path, files with warnings and refusals, at once in eight threads."""
    files = [saved(Pillow.fromarray(gradient()), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF")]
    files.append(files[0][:-100])
    settings = Pillow.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

    def digest(encoded: bytes) -> str:
        try:
            return hashlib.sha256(decode(encoded).image).hexdigest()
        except ImageError as refused:
            return refused.reason

    expected = [digest(encoded) for encoded in files]
    found: list[list[str]] = []

    def work() -> None:
        found.extend([digest(encoded) for encoded in files] for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160
    assert all(digests == expected for digests in found)
    assert expected[-1] == "truncated"
    assert (Pillow.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == settings
