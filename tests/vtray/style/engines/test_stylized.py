import json

import pytest

from vtray.style.engines.stylized import Losses, Stylized, grouped, working_size


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (512, 512, (512, 512)),
        (333, 501, (333, 501)),  # small enough: as it is
        (1000, 500, (512, 256)),
        (500, 1000, (256, 512)),
        (768, 1024, (384, 512)),
        (3000, 4001, (384, 512)),  # 3000 * 512 / 4001 = 383.9, in steps of 8
        (1000, 700, (512, 360)),  # 358.4
        (600, 600, (512, 512)),
        (40, 4000, (8, 512)),  # 5.1, and no side below one step
        (4000, 40, (512, 8)),
    ],
)
def test_working_size_by_hand(height, width, expected):
    assert working_size(height, width, size_px=512) == expected


def test_the_longer_side_is_as_long_as_asked_for_in_any_steps():
    assert working_size(200, 300, size_px=130) == (88, 130)  # 86.7


def test_groups_hold_equal_sizes_in_order_of_first_appearance():
    one, other, third = (64, 64), (32, 64), (64, 32)
    sizes = [one, other, one, third, one, other, one, one]
    assert grouped(sizes, at_most=3) == [[0, 2, 4], [6, 7], [1, 5], [3]]
    assert grouped(sizes, at_most=1) == [[0], [2], [4], [6], [7], [1], [5], [3]]
    assert grouped([], at_most=3) == []


def test_a_record_is_flat_json():
    before, after = Losses(content=0, style=4, tv=0.5, total=9), Losses(content=1, style=2, tv=0.25, total=5)
    stylized = Stylized(
        image=None, steps=30, seconds=1.5, before=before, after=after, size=(48, 64), warnings=("small",)
    )
    record = stylized.record()
    assert json.loads(json.dumps(record)) == record
    assert record == {
        "working_height": 48,
        "working_width": 64,
        "steps": 30,
        "seconds": 1.5,
        "warnings": ["small"],
        "content_before": 0,
        "style_before": 4,
        "tv_before": 0.5,
        "total_before": 9,
        "content_after": 1,
        "style_after": 2,
        "tv_after": 0.25,
        "total_after": 5,
    }


def test_a_record_without_losses_leaves_them_out():
    assert set(Stylized(image=None).record()) == {
        "working_height",
        "working_width",
        "steps",
        "seconds",
        "warnings",
    }
