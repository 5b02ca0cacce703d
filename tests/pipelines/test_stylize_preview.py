"""The sheets and the page of a stylize output, made from files that stand in for results."""

import io

import numpy as np
import pytest
from drawn import draw_image
from PIL import Image

from pipelines.stylize_preview import Shown, preview, preview_sheets, settings_of, words_for, worst_records
from pipelines.stylize_report import StylizeReport
from vtray.images import decode, encode
from vtray.manifest import Plan, Receipt
from vtray.report.records import LOSSES
from vtray.sources import open_source
from vtray.style.work import FeatureSpec, LossSpec, StyleImage, StyleWork

CONTENT, RESULT, STYLE = (200, 30, 30), (30, 170, 30), (30, 30, 200)
FEATURES = FeatureSpec(
    network="vgg19",
    weights_uri="/models/vgg.safetensors",
    weights_sha256="ab12" * 16,
    content_layers=("relu3_1",),
    style_layers=("relu1_1", "relu2_1"),
)


def flat(colour, *, height=60, width=80):
    return np.full((height, width, 3), colour, np.uint8)


def style_image(name="starry_night.jpg", **values):
    return StyleImage(name=name, image=flat(STYLE), sha256="c" * 64, **values)


def record(image_id, *, total=0.5, style=0.5, warnings=()):
    return dict.fromkeys(LOSSES, 1.0) | {
        "image_id": image_id,
        "file": f"data/{image_id}",
        "steps": 40,
        "seconds": 1.0,
        "total_after": total,
        "style_after": style,
        "warnings": list(warnings),
    }


def shown_in(root, records, **work):
    """An output whose inputs are red, whose results are green and whose style is blue."""
    for name in (str(record["image_id"]) for record in records):
        for folder, colour in (("catalog", CONTENT), ("painted/data", RESULT)):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(flat(colour), format="png"))
    units = open_source(str(root / "catalog")).units(max_bytes=10**9, max_images=4)
    return Shown(
        units=units,
        records=records,
        work=StyleWork(**({"styles": (style_image(),), "features": FEATURES} | work)),
        plan=Plan(job="stylize", work={}, config={}, versions={"vtray": "0.1.0"}, units={}),
        output_uri=str(root / "painted"),
        max_pixels=10**6,
        command="vtray stylize --config painted/_vtray/config.yaml",
    )


def report_of(shown):
    unit = Receipt(
        unit="00000",
        digest="d",
        files=(),
        quarantine=None,
        num_images=len(shown.records),
        num_failed=0,
        seconds={"stylize": 8.0},
        records=tuple(shown.records),
    )
    manifest = {"status": "complete", "totals": {"images": 8, "failed": 0, "bytes": 1}, "failures": {}}
    return StylizeReport.of(manifest, [unit], output=shown.output_uri, seconds=1.0)


def columns_of(sheet):
    """The colours of the pictures of each row of a sheet, from left to right."""
    pixels = decode(sheet).image.astype(int)
    rows = []
    for line in range(len(pixels)):
        found = []
        for colour in (CONTENT, RESULT, STYLE):
            hits = np.nonzero((np.abs(pixels[line] - colour) < 12).all(axis=1))[0]
            found += [(hits.min(), colour)] if len(hits) > 60 else []
        names = [colour for _, colour in sorted(found)]
        if names and (not rows or rows[-1][1] < line - 1 or rows[-1][0] != names):
            rows.append([names, line])
        elif names:
            rows[-1][1] = line
    return [names for names, _ in rows]


def test_rows_are_content_result_and_style(tmp_path):
    sheets = preview_sheets(shown_in(tmp_path, [record("a.png"), record("b/c.png")]))
    assert list(sheets) == ["results.png", "worst.png"]
    assert columns_of(sheets["results.png"]) == [[CONTENT, RESULT, STYLE]] * 2


def test_the_same_output_gives_the_same_bytes(tmp_path):
    shown = shown_in(tmp_path, [record(f"{number}.png") for number in range(9)])
    again = shown_in(tmp_path, [record(f"{number}.png") | {"seconds": 9.0} for number in reversed(range(9))])
    assert preview_sheets(shown) == preview_sheets(again)


def test_the_worst_are_those_with_the_most_left():
    records = [record(f"{number:02}.png", total=number / 100, style=1 - number / 100) for number in range(20)]
    records[7]["warnings"] = ["small: 9 px"]
    records[19]["warnings"] = ["small: 9 px"]
    names = [record["image_id"] for record in worst_records(records)]
    # three by total loss, two by style loss, and the one with a warning that is not among them
    assert names == ["19.png", "18.png", "17.png", "00.png", "01.png", "07.png"]


def test_rare_warnings_come_before_those_of_every_image():
    records = [record(f"{number}.png", warnings=[f"worked on at {number} x 8"]) for number in range(9)]
    records[7]["warnings"].append("damaged EXIF dropped")
    assert [record["image_id"] for record in worst_records(records)][-2:] == ["7.png", "5.png"]


def test_few_records_are_all_shown_once():
    assert len(worst_records([record("a.png"), record("b.png")])) == 2
    assert worst_records([]) == []


def test_what_is_gone_is_said_in_its_place(tmp_path):
    shown = shown_in(tmp_path, [record("a.png"), record("b.png")])
    (tmp_path / "painted/data/a.png").unlink()
    (tmp_path / "catalog/b.png").write_bytes(b"no image")
    assert columns_of(preview_sheets(shown)["results.png"]) == [[CONTENT, STYLE], [RESULT, STYLE]]


def test_large_images_and_rotation(tmp_path):
    shown = shown_in(tmp_path, [record("a.jpg")])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown standing
    content = io.BytesIO()
    Image.fromarray(draw_image(1, height=900, width=1200)).save(content, "JPEG", exif=exif)
    (tmp_path / "catalog/a.jpg").write_bytes(content.getvalue())
    assert decode(preview_sheets(shown)["results.png"]).image.shape[1] < 1100


def test_several_styles_have_a_column_each(tmp_path):
    styles = (style_image(), style_image("wave.png", weight=0.5))
    wide = preview_sheets(shown_in(tmp_path, [record("a.png")], styles=styles))["results.png"]
    slim = preview_sheets(shown_in(tmp_path, [record("a.png")]))["results.png"]
    assert decode(wide).image.shape[1] == decode(slim).image.shape[1] + 256 + 16


def test_the_page_and_its_sheets(tmp_path):
    records = [record(f"{number}.png", total=number / 10) for number in range(1, 9)]
    shown = shown_in(tmp_path, records)
    files = preview(shown, report_of(shown))
    page = files["index.html"].decode()
    assert sorted(files) == ["index.html", "results.png", "worst.png"]
    for expected in ("Total loss, after / before, 8 images", "p50 0.45", "relu1_1, relu2_1", shown.command):
        assert expected in page


def test_an_output_without_images_has_a_page(tmp_path):
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "a.png").write_bytes(encode(flat(CONTENT), format="png"))
    shown = shown_in(tmp_path, [])
    page = preview(shown, report_of(shown))["index.html"].decode()
    assert "Losses" not in page


def test_captions_name_losses_and_warnings_that_are_not_common():
    one = record("a.png", total=0.31234, style=0.12, warnings=["small: 9 px", "worked on at 8 x 8"])
    assert words_for(one, {"worked on at N x N"}) == "loss x0.31 (style x0.12), 40 steps, small: 9 px"
    assert words_for(record("b.png")) == "loss x0.5 (style x0.5), 40 steps"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (LossSpec(strength=0.7), "strength 0.7"),
        (
            LossSpec(content_weight=1, style_weight=1000, tv_weight=0, tv_reduction="sum"),
            "content, style, tv: 1, 1000, 0 (tv sum)",
        ),
    ],
)
def test_settings_say_how_losses_are_weighed(loss, expected):
    settings = settings_of(StyleWork(styles=(style_image(weight=2.0),), features=FEATURES, loss=loss))
    assert settings["weighing"] == expected
    assert settings["styles"] == "starry_night.jpg x2"
    assert settings["weights"] == "/models/vgg.safetensors (sha256 ab12ab12ab12)"
