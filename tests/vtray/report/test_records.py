import io
import math

import pyarrow.parquet as pq
import pytest

from vtray.report.records import (
    FIELDS,
    LOSSES,
    encode_records,
    kinds_of_warnings,
    read_records,
    relative_loss,
)


def record(image_id="a.jpg", **changes):
    plain = dict.fromkeys(LOSSES, 1.0) | {
        "image_id": image_id,
        "file": f"data/{image_id}",
        "engine": "optimize",
        "width": 640,
        "height": 480,
        "working_width": 512,
        "working_height": 384,
        "steps": 40,
        "seconds": 1.5,
        "warnings": [],
    }
    return plain | changes


def test_what_is_written_is_read_again_sorted_by_id():
    written = [record("b/1.jpg", warnings=["small: 40 px"]), record("a/牛.png", total_after=0.25)]
    assert read_records(encode_records(written)) == [written[1], written[0]]


def test_equal_bytes_in_any_order():
    records = [record(f"{number}.jpg", steps=number) for number in range(9)]
    assert encode_records(records) == encode_records(records[::-1])


def test_no_records_are_a_table_without_rows():
    assert read_records(encode_records([])) == []


def test_columns_are_the_fields_in_their_order():
    schema = pq.read_schema(io.BytesIO(encode_records([record()])))
    assert tuple(schema.names) == FIELDS
    assert len(FIELDS) == 18
    assert str(schema.field("warnings").type) == "list<element: string>"
    assert str(schema.field("total_after").type) == "double"


def test_a_missing_field_is_named():
    short = record()
    del short["steps"]
    with pytest.raises(ValueError, match=r"record of a\.jpg: missing steps; fields are image_id"):
        encode_records([short])


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"record of a\.jpg: unknown colour"):
        encode_records([record(colour="luma")])


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(4.0, 1.0, 0.25), (2.0, 3.0, 1.5), (0.0, 0.0, 1.0), (0.0, 0.5, math.inf)]
)
def test_what_is_left_of_a_loss(before, after, expected):
    assert relative_loss(record(style_before=before, style_after=after), "style") == expected
    assert relative_loss(record(total_before=before, total_after=after)) == expected


def test_kinds_of_warnings_leave_out_what_is_the_image_s_own():
    warnings = ["worked on at 512 x 344", "worked on at 8 x 8", "EXIF dropped: 70000 bytes, jpeg holds 65533"]
    assert kinds_of_warnings(record(warnings=warnings)) == ["EXIF dropped", "worked on at N x N"]
    assert kinds_of_warnings(record()) == []
