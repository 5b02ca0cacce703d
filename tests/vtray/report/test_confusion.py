import numpy as np
import pytest
from html_reader import Page

from vtray.report.confusion import confusion_map, confusion_parts, most_confused, shortened

SMALL = np.array([[8, 2, 0], [1, 5, 4], [0, 0, 3]], np.int64)
NAMES = ("can", "bottle", "carton")


def read(confusion, classes):
    return Page("".join(confusion_parts(confusion, classes)))


def drawn(num_classes, seed=0):
    rng = np.random.default_rng(seed)
    return np.diag(rng.integers(5, 20, num_classes)) + rng.integers(0, 2, (num_classes, num_classes))


def names(num_classes):
    return tuple(f"class {number:03}" for number in range(num_classes))


def rects(page, kind):
    return [
        {name: float(attrs[name]) for name in ("x", "y", "fill-opacity")} for attrs in page.named("rect", kind)
    ]


def test_right_answers_lie_on_the_diagonal():
    page = Page(confusion_map(SMALL, NAMES))
    right, wrong = rects(page, "right"), rects(page, "wrong")
    step = right[1]["x"] - right[0]["x"]
    assert [right[n + 1]["y"] - right[n]["y"] for n in range(2)] == [step, step]
    origin = right[0]
    places = {((cell["y"] - origin["y"]) / step, (cell["x"] - origin["x"]) / step) for cell in wrong}
    assert places == {(0, 1), (1, 0), (1, 2)}
    assert [word for word in page.words if word.strip().isdigit()] == ["8", "2", "1", "5", "4", "3"]


def test_strong_colours_are_large_shares_of_the_row():
    page = Page(confusion_map(SMALL, NAMES))
    # shares of the diagonal: 0.8, 0.5, 1; of the others, as roots: 0.2, 0.1, 0.4
    right = [cell["fill-opacity"] for cell in rects(page, "right")]
    assert right == [pytest.approx(0.08 + 0.47 * share, abs=0.006) for share in (0.8, 0.5, 1.0)]
    wrong = [cell["fill-opacity"] for cell in rects(page, "wrong")]
    assert wrong == [pytest.approx(0.08 + 0.47 * share**0.5, abs=0.006) for share in (0.2, 0.1, 0.4)]


def test_the_most_confused_come_first():
    assert most_confused(SMALL, most=10) == [(1, 2), (0, 1), (1, 0)]
    assert most_confused(SMALL, most=1) == [(1, 2)]
    assert most_confused(np.eye(4, dtype=np.int64), most=5) == []
    page = read(SMALL, NAMES)
    cells = [word for word in page.words if word.strip()]
    assert cells[-12:-8] == ["bottle", "carton", "4", "40.0 %"]


@pytest.mark.parametrize("num_classes", [2, 10, 40])
def test_the_map_lies_within_its_picture(num_classes):
    page = read(drawn(num_classes), names(num_classes))
    width, height = (float(side) for side in page.named("svg", "chart")[0]["viewbox"].split()[2:])
    cells = rects(page, "right") + rects(page, "wrong")
    assert len(rects(page, "right")) == num_classes
    assert max(cell["x"] for cell in cells) < width - 20
    assert max(cell["y"] for cell in cells) < height - 20
    assert min(cell["x"] for cell in cells) > 80


@pytest.mark.parametrize("num_classes", [41, 200, 1000])
def test_many_classes_are_a_list_of_pairs(num_classes):
    confusion = np.diag(np.full(num_classes, 9))
    confusion[7, 3], confusion[5, 40] = 4, 6
    page = read(confusion, names(num_classes))
    assert page.named("svg", "chart") == []
    rows = [word for word in page.words if word.startswith("class ")]
    assert rows == ["class 005", "class 040", "class 007", "class 003"]
    assert any(f"{num_classes:,} classes" in word for word in page.words)


def test_at_most_forty_pairs():
    page = read(drawn(60), names(60))
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == 41


def test_nothing_and_nothing_wrong():
    assert "No image was evaluated." in read(np.zeros((3, 3), np.int64), NAMES).words
    assert "No image was taken wrongly." in read(np.eye(3, dtype=np.int64), NAMES).words


def test_a_class_without_images_is_an_empty_row():
    page = read(np.array([[0, 0], [1, 3]]), ("a", "b"))
    assert len(rects(page, "right")) == 1
    assert "nan" not in " ".join(page.words)


def test_counts_that_do_not_fit_are_in_the_tooltip_only():
    confusion = np.diag(np.full(40, 123_456))
    words = Page(confusion_map(confusion, names(40))).words
    assert "123,456" not in words
    assert "class 003 taken for class 003: 123,456, 100.0 %" in words


def test_long_names_keep_their_ends():
    assert shortened("can") == "can"
    short = shortened("a name that is too long for any axis")
    assert short == "a name that … any axis" or (short.startswith("a name") and short.endswith("any axis"))
    assert len(short) <= 24
    wide = shortened("牛乳" * 12)
    assert len(wide) <= 13
    assert (wide[:2], wide[-1]) == ("牛乳", "乳")


def test_names_are_escaped():
    page = read(SMALL, ("<b>", "a & b", '"'))
    assert {"<b>", "a & b", '"'} <= set(page.words)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2), np.int64), np.zeros((3, 3)), np.zeros(9, np.int64)])
def test_a_matrix_of_other_classes_is_refused(wrong):
    with pytest.raises(ValueError, match=r"of 3 classes is integer \(3, 3\)"):
        confusion_parts(wrong, NAMES)
