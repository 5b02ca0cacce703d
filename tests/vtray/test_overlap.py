"""Ahead and behind: the order, the limits, and where exceptions come out."""

import threading

import pytest

from vtray.steps.overlap import ahead, at_once, behind


def test_items_come_in_their_order():
    assert list(ahead(range(50), depth=3)) == list(range(50))
    assert list(ahead([], depth=3)) == []


def test_the_next_items_are_made_while_one_is_in_use():
    made, two = [], threading.Event()

    def source():
        for number in range(9):
            made.append(number)
            if number == 3:
                two.set()
            yield number

    items = ahead(source(), depth=3)
    assert next(items) == 0
    assert two.wait(10)
    items.close()
    assert len(made) <= 5


def test_an_exception_of_the_source_comes_at_its_place():
    def source():
        yield 1
        raise ValueError("second")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="second"):
        next(items)


def test_nobody_asks_any_more():
    made = []
    for number in ahead((made.append(each) or each for each in range(1000)), depth=2):
        if number == 3:
            break
    assert len(made) < 10


@pytest.mark.parametrize("way", [behind, at_once])
def test_tasks_are_done_in_order_by_the_end(way):
    done = []
    with way() as later:
        for number in range(30):
            later(lambda number=number: done.append(number))
    assert done == list(range(30))


def test_tasks_are_done_by_another_thread():
    names = set()
    with behind(depth=1) as later:
        for _ in range(3):
            later(lambda: names.add(threading.current_thread().name))
    assert threading.current_thread().name not in names
    assert len(names) == 1


def test_an_exception_of_a_task_ends_the_work():
    done = []

    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), behind(depth=2) as later:
        later(fail)
        for number in range(100):
            later(lambda number=number: done.append(number))
    assert len(done) < 10


def test_an_exception_beside_the_tasks_leaves_them_undone():
    gate, done = threading.Event(), []
    with pytest.raises(KeyError), behind(depth=9) as later:
        later(lambda: gate.wait(10) and None)
        later(lambda: done.append(1))
        gate.set()
        raise KeyError
    assert len(done) <= 1
