import contextlib
import io
import random
import warnings

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import ExifTags, PngImagePlugin
from PIL import Image as Pillow

from vtray.errors import ImageError
from vtray.images import decode
from vtray.images.picture import extension_for, read_picture, write_picture, writing_notes, written_format

IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop)
POINTERS = {int(ifd) for ifd in IFDS}  # where a directory lies is not what it says
# sizes, compression, strips, tiles, samples; XMP, Photoshop and profile are compared apart or noted
STORAGE = {*range(254, 270), 273, 274, *range(277, 282), 284, 297, *range(317, 348), 700, 34377, 34675}


def gradient(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=2).astype(np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def described(encoded):
    """What Pillow reads: directory -> tag -> value of the EXIF, apart from orientation and storage; profile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Pillow.open(io.BytesIO(encoded)) as opened:
            tags = opened.getexif()
            found = {ifd: {tag: str(value) for tag, value in tags.get_ifd(ifd).items()} for ifd in IFDS}
            found["main"] = {tag: str(value) for tag, value in tags.items() if tag not in STORAGE}
            profile = opened.info.get("icc_profile")
    exif = {name: {t: v for t, v in tags.items() if t not in POINTERS} for name, tags in found.items()}
    return exif, profile


def loadable(fixtures):
    for path in sorted((fixtures / "messy").iterdir()):
        with contextlib.suppress(ImageError):
            yield path.name, path.read_bytes(), read_picture(path.read_bytes())


class TestRealFiles:
    pytestmark = pytest.mark.fixtures

    def test_each_that_decode_takes_survives_with_what_it_carries(self, fixtures):
        files = list(loadable(fixtures))
        assert len(files) == 45
        for name, encoded, picture in files:
            written = write_picture(picture, picture.image)
            again = read_picture(written)
            assert again.format == written_format(picture.format, "same"), name
            assert again.image.shape == decode(encoded).image.shape == picture.image.shape, name
            assert decode(written).orientation == 1, name
            assert described(written) == described(encoded), name
            assert (again.metadata.exif, again.metadata.xmp) == (picture.metadata.exif, picture.metadata.xmp), name
            opaque = np.full(picture.image.shape[:2], 255, np.uint8)
            alphas = [opaque if one.alpha is None else one.alpha for one in (picture, again)]
            np.testing.assert_array_equal(*alphas, err_msg=name)  # WebP drops an alpha that is white
            assert written == write_picture(read_picture(encoded), picture.image), name

    def test_the_others_are_refused_as_decode_refuses_them(self, fixtures):
        names = {name for name, *_ in loadable(fixtures)}
        refused = [path for path in (fixtures / "messy").iterdir() if path.name not in names]
        assert len(refused) == 10
        for path in refused:
            with pytest.raises(ImageError) as ours:
                read_picture(path.read_bytes())
            with pytest.raises(ImageError) as judge:
                decode(path.read_bytes())
            assert (ours.value.reason, str(ours.value)) == (judge.value.reason, str(judge.value))

    def test_pixels_without_loss_where_the_format_has_none(self, fixtures):
        exact = [picture for _, _, picture in loadable(fixtures) if picture.format not in ("jpeg", "webp")]
        assert len(exact) >= 20
        for picture in exact:
            np.testing.assert_array_equal(read_picture(write_picture(picture, picture.image)).image, picture.image)

    @pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
    def test_each_can_become_another_format(self, fixtures, format):
        small = [one for one in loadable(fixtures) if one[2].image.size < 1_000_000]
        assert len(small) >= 40
        for name, _, picture in small:
            again = read_picture(write_picture(picture, picture.image, format=format))
            assert again.format == format
            assert again.image.shape == picture.image.shape, name
            assert again.metadata.icc == picture.metadata.icc, name

    def test_photographs_keep_camera_position_and_profile(self, fixtures):
        for name, num_tags in (("parrot.jpg", 30), ("owl.jpg", 36), ("hot_dog.jpg", 29)):
            encoded = (fixtures / "content" / name).read_bytes()
            picture = read_picture(encoded)
            exif, profile = described(write_picture(picture, picture.image[::-1]))
            assert (exif, profile) == described(encoded)
            assert len(exif[ExifTags.IFD.Exif]) >= num_tags - 1
            assert len(profile) == 3144
        assert len(described((fixtures / "content" / "parrot.jpg").read_bytes())[0][ExifTags.IFD.GPSInfo]) == 1

    def test_damaged_bytes_raise_nothing_but_image_errors(self, fixtures):
        draw = random.Random(11)
        files = [path.read_bytes() for path in sorted((fixtures / "messy").iterdir())]
        files = [encoded for encoded in files if len(encoded) < 15_000]
        read = 0
        for _ in range(300):
            damaged = bytearray(draw.choice(files))
            for _ in range(draw.randint(1, 6)):
                damaged[draw.randrange(min(len(damaged), 900))] = draw.randrange(256)
            with contextlib.suppress(ImageError):
                picture = read_picture(bytes(damaged))
                assert read_picture(write_picture(picture, picture.image)).image.shape == picture.image.shape
                read += 1
        assert read > 50


class TestFormats:
    @pytest.mark.parametrize(
        ("kind", "written"),
        [
            ("JPEG", "jpeg"),
            ("PNG", "png"),
            ("WEBP", "webp"),
            ("TIFF", "tiff"),
            ("BMP", "bmp"),
            ("GIF", "png"),
            ("AVIF", "png"),
            ("JPEG2000", "png"),
            ("PPM", "png"),
            ("ICO", "png"),
        ],
    )
    def test_same_format_where_it_can_be_written(self, kind, written):
        picture = read_picture(saved(gradient(), kind))
        assert decode(write_picture(picture, picture.image)).format == written

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
    def test_new_colours_under_the_old_alpha(self, kind):
        alpha = np.arange(2400, dtype=np.uint8).reshape(40, 60)
        rgba = np.dstack([gradient(), alpha])
        # Pillow writes no BMP with an alpha that it reads
        bmp = cv2.imencode(".bmp", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))[1].tobytes()
        picture = read_picture(bmp if kind == "BMP" else saved(rgba, kind))
        again = read_picture(write_picture(picture, picture.image[::-1]))
        np.testing.assert_array_equal(again.alpha, alpha)
        if kind != "WEBP":
            np.testing.assert_array_equal(again.image, picture.image[::-1])

    def test_lossless_webp_stays_so_under_transparency_too(self):
        rgba = np.dstack([gradient(), np.zeros((40, 60), np.uint8)])
        rgba[:20, :, 3] = 255
        picture = read_picture(saved(rgba, "WEBP", lossless=True, exact=True))
        np.testing.assert_array_equal(read_picture(write_picture(picture, rgba[..., :3])).image, rgba[..., :3])
        lossy = read_picture(saved(rgba, "WEBP", quality=90))
        assert len(write_picture(lossy, lossy.image, quality=20)) < len(write_picture(lossy, lossy.image))

    def test_jpeg_has_full_colour_and_the_wanted_quality(self):
        picture = read_picture(saved(gradient(), "JPEG", subsampling="4:2:0"))
        encoded = write_picture(picture, picture.image)
        assert simplejpeg.decode_jpeg_header(encoded)[3] == "444"
        assert encoded == saved(picture.image, "JPEG", quality=95, subsampling="4:4:4")
        assert len(write_picture(picture, picture.image, quality=40)) < len(encoded)

    def test_jpeg_shows_transparency_as_white(self):
        picture = read_picture(saved(np.zeros((16, 16, 4), np.uint8), "PNG"))
        assert decode(write_picture(picture, picture.image, format="jpeg")).image.min() > 250
        assert writing_notes(picture, format="jpeg") == ("alpha composited on white: jpeg has none",)
        assert writing_notes(picture) == writing_notes(picture, format="webp") == ()

    def test_an_opaque_alpha_is_no_loss(self):
        picture = read_picture(saved(Pillow.new("RGBA", (4, 4)), "PNG"))
        assert writing_notes(picture, format="jpeg")
        white = read_picture(saved(Pillow.new("RGBA", (4, 4), "white"), "PNG"))
        assert writing_notes(white, format="jpeg") == ()

    def test_what_is_too_long_for_jpeg_is_dropped_and_named(self):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", "x" * 65_505)
        exif = Pillow.Exif()
        exif[270] = "y" * 66_000
        png = saved(gradient(), "PNG", pnginfo=chunks, exif=exif)
        picture = read_picture(png)
        assert writing_notes(picture, format="jpeg") == (
            f"exif dropped: {len(picture.metadata.exif)} bytes, jpeg holds 65533",
            "xmp dropped: 65505 bytes, jpeg holds 65504",
        )
        assert read_picture(write_picture(picture, picture.image, format="jpeg")).metadata.exif is None
        again = read_picture(write_picture(picture, picture.image))
        assert (again.metadata.exif, again.metadata.xmp) == (picture.metadata.exif, picture.metadata.xmp)

    def test_a_profile_that_pillow_would_not_read_from_png_again(self):
        profile = bytearray(2**20 + 1)
        profile[16:20], profile[36:40] = b"RGB ", b"acsp"
        picture = read_picture(saved(gradient(), "TIFF", icc_profile=bytes(profile)))
        assert picture.metadata.icc == profile
        assert writing_notes(picture, format="png") == ("icc_profile dropped: 1048577 bytes, png holds 1048576",)
        assert read_picture(write_picture(picture, picture.image, format="png")).metadata.icc is None
        for format in ("same", "jpeg", "webp"):
            assert read_picture(write_picture(picture, picture.image, format=format)).metadata.icc == profile

    def test_xmp_of_the_greatest_length_that_jpeg_holds(self):
        packet = b"x" * 65_504
        picture = read_picture(saved(gradient(), "WEBP", xmp=packet))
        assert read_picture(write_picture(picture, picture.image, format="jpeg")).metadata.xmp == packet

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
    def test_resolution(self, kind):
        picture = read_picture(saved(gradient(), kind, dpi=(300, 300)))
        assert read_picture(write_picture(picture, picture.image)).metadata.dpi == picture.metadata.dpi
        unknown = read_picture(saved(gradient(), "PNG"))
        assert read_picture(write_picture(unknown, unknown.image, format="jpeg")).metadata.dpi is None

    def test_a_turned_tiff_is_written_upright_with_its_tags(self):
        exif = Pillow.Exif()
        exif[0x0112], exif[271], exif[0x8298] = 6, "Maker", "© Ürsula".encode()
        exif.get_ifd(ExifTags.IFD.Exif).update({0xA002: 60, 0xA003: 40})
        exif[ExifTags.IFD.Exif] = 0  # Pillow's TIFF writer takes the directory above
        picture = read_picture(saved(gradient(40, 60), "TIFF", exif=exif))
        assert picture.image.shape == (60, 40, 3)
        written = write_picture(picture, picture.image)
        with Pillow.open(io.BytesIO(written)) as opened:
            tags = opened.getexif()
            assert (opened.size, tags[271], tags.get(0x0112, 1)) == ((40, 60), "Maker", 1)
            assert tags[0x8298].encode("latin-1").decode() == "© Ürsula"
            assert tags.get_ifd(ExifTags.IFD.Exif) == {0xA002: 40, 0xA003: 60}


class TestRefusals:
    @pytest.mark.parametrize("image", [gradient(60, 40), gradient()[..., 0], gradient().astype(np.float32)])
    def test_other_sizes_and_types(self, image):
        picture = read_picture(saved(gradient(), "PNG"))
        with pytest.raises(ValueError, match=r"the new pixels are .*, the picture's uint8 \(40, 60, 3\)"):
            write_picture(picture, image)

    @pytest.mark.parametrize(("format", "side"), [("jpeg", 65_501), ("webp", 16_384)])
    def test_sides_over_the_limit(self, format, side):
        picture = read_picture(saved(np.zeros((1, side, 3), np.uint8), "PNG"))
        with pytest.raises(
            ImageError, match=rf"{side} x 1: {format} allows {side - 1} per side; write it as png"
        ) as no:
            write_picture(picture, picture.image, format=format)
        assert (no.value.stage, no.value.reason) == ("encode", "too_large")
        assert write_picture(picture, picture.image)

    def test_the_pixel_limit(self):
        encoded = saved(gradient(), "PNG")
        assert read_picture(encoded, max_pixels=2400).image.shape == (40, 60, 3)
        with pytest.raises(ImageError, match="2400 pixels, the limit is 2399"):
            read_picture(encoded, max_pixels=2399)


@pytest.mark.parametrize(
    ("name", "source", "format", "output"),
    [
        ("a/b.JPG", "jpeg", "same", "a/b.JPG"),
        ("a/b.mpo", "jpeg", "same", "a/b.mpo"),
        ("wrong.png", "jpeg", "same", "wrong.png"),
        ("a.gif", "gif", "same", "a.gif.png"),
        ("a.tif", "tiff", "same", "a.tif"),
        ("key", "avif", "same", "key.png"),
        ("a.jpeg", "jpeg", "jpeg", "a.jpeg"),
        ("a.jpeg", "jpeg", "png", "a.png"),
        ("a.tar/0001.PNG", "png", "webp", "a.tar/0001.webp"),
        ("scan.001", "png", "jpeg", "scan.001.jpg"),
        ("v1.2/key", "png", "jpeg", "v1.2/key.jpg"),
        ("key", "png", "jpeg", "key.jpg"),
        (".gif", "gif", "png", ".gif.png"),
    ],
)
def test_names(name, source, format, output):
    assert extension_for(name, source, format) == output


def test_names_in_a_wanted_format_do_not_depend_on_the_file():
    sources = ("jpeg", "png", "gif", "tiff")
    assert {extension_for("x.tif", source, "png") for source in sources} == {"x.png"}
    assert {written_format(source, "png") for source in sources} == {"png"}
