"""The report of a stylize run, from records with derived answers."""

import json

import pytest

from pipelines.stylize_report import StylizeReport, count_warnings, spread
from vtray.manifest import Receipt
from vtray.report.records import LOSSES

MANIFEST = {
    "status": "complete",
    "totals": {"units": 2, "images": 12, "failed": 1, "rows": 11, "bytes": 5_000_000},
    "failures": {"decode: truncated": 1},
}


def record(number, **changes):
    """An image that keeps (number + 1) / 20 of its total loss and half as much of its style loss."""
    kept = (number + 1) / 20
    losses = dict.fromkeys(LOSSES, 1.0) | {"total_before": 4.0, "total_after": 4 * kept}
    losses |= {"style_before": 2.0, "style_after": kept, "content_before": 0.0}
    plain = {"image_id": f"{number:02}.jpg", "steps": 30, "seconds": float(number + 1), "warnings": []}
    return losses | plain | changes


def receipt(records, *, unit="00000", **seconds):
    return Receipt(
        unit=unit,
        digest="d",
        files=(),
        quarantine=None,
        num_images=len(records) + 1,
        num_failed=1,
        examples=("broken.jpg (cut)",),
        seconds=seconds,
        records=tuple(records),
    )


def report_of(records, **seconds):
    half = len(records) // 2
    receipts = [receipt(records[:half], **seconds), receipt(records[half:], unit="00001", **seconds)]
    return StylizeReport.of(MANIFEST, receipts, output="out", seconds=75.0)


def test_losses_steps_and_cost_add_up():
    report = report_of([record(number) for number in range(11)], stylize=30.0, write=3.0)
    # relative losses 0.05, 0.1 ... 0.55: eleven values, so every tenth part is one of them
    assert report.loss == {"mean": 0.3, "p10": 0.1, "p50": 0.3, "p90": 0.5}
    assert report.style_loss == {"mean": 0.15, "p10": 0.05, "p50": 0.15, "p90": 0.25}
    assert report.losses["total"] == {"before": 4.0, "after": 1.2}
    assert report.losses["content"] == {"before": 0.0, "after": 1.0}
    assert report.steps == 330
    assert report.seconds_per_image == {"mean": 6.0, "p90": 10.0}
    # two workers of 33 s each for eleven images: 6 s an image, 6000 s for a thousand
    assert report.hours_per_1000 == pytest.approx(6000 / 3600, abs=1e-6)
    assert report.phase_seconds == {"stylize": 60.0, "write": 6.0}
    assert (report.images, report.failed, report.bytes) == (12, 1, 5_000_000)
    assert report.examples == ("broken.jpg (cut)",) * 2


def test_metrics_are_flat_numbers():
    metrics = report_of([record(number) for number in range(11)], stylize=33.0).metrics()
    assert all(isinstance(value, float) for value in metrics.values())
    expected = {
        "images": 12.0,
        "loss_p10": 0.1,
        "loss_p50": 0.3,
        "loss_p90": 0.5,
        "style_loss_p50": 0.15,
        "seconds_per_image_mean": 6.0,
        "seconds_stylize": 66.0,
        "warnings": 0.0,
    }
    assert expected.items() <= metrics.items()
    assert metrics["hours_per_1000_images"] == pytest.approx(6 / 3.6, abs=1e-6)


def test_the_report_is_json():
    report = report_of([record(number) for number in range(4)], stylize=1.0)
    again = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert again["loss"]["mean"] == 0.125
    assert again["status"] == "complete"


def test_the_table_says_where_to_look():
    text = report_of([record(number, warnings=["small: 40 px"]) for number in range(11)], stylize=33.0).table()
    assert "12 (1 failed)" in text
    assert "0.3 of what it was (8 of 10 images: 0.1 to 0.5)" in text
    assert "6 s an image (p90 10 s); 1.67 worker-hours for 1,000 images" in text
    assert "1 min 15 s" in text
    assert "warned                     11: small\n" in text
    assert "failed: decode: truncated" in text
    assert "out/preview/index.html" in text


def test_a_finished_output_has_totals_only():
    report = StylizeReport.of(MANIFEST, (), output="out", seconds=0.2)
    assert report.nothing_to_do
    assert (report.loss, report.hours_per_1000, report.steps) == ({}, None, 0)
    assert "complete, nothing to do" in report.table()
    assert "loss" not in report.table()
    assert report.metrics()["images"] == 12.0


def test_no_image_was_stylized():
    report = report_of([], decode=1.0)
    assert (report.loss, report.losses, report.hours_per_1000) == ({}, {}, None)
    assert "worker-hours" not in report.table()


def test_what_has_no_finite_ratio_is_left_out():
    assert report_of([record(0), record(1, total_before=0.0)], stylize=1.0).loss["mean"] == 0.05
    assert spread([float("inf")]) == {}


def test_warnings_are_counted_once_an_image():
    warnings = (["at 40 x 9", "at 41 x 8"], ["at 9 x 9", "alpha lost: jpeg has none"], [])
    records = [record(number, warnings=texts) for number, texts in enumerate(warnings)]
    assert count_warnings(records) == {"alpha lost": 1, "at N x N": 2}
