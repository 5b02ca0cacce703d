import pytest

from vtray.attempts import LIMIT, Attempts, clear_attempts
from vtray.errors import UnfinishedUnits
from vtray.storage import open_storage


@pytest.fixture
def storage(tmp_path):
    return open_storage(str(tmp_path / "out"))


def die_at(storage, unit, *, run="one"):
    """A process that ends while it works on the unit: what was begun is never ended."""
    work = Attempts(storage=storage, run=run).of(unit)
    work.__enter__()
    return work  # as long as it lives, nothing is cleaned up


def test_a_unit_that_is_done_leaves_nothing(storage):
    for _ in range(LIMIT + 1):
        with Attempts(storage=storage, run="one").of("00001"):
            assert len(storage.list("_vtray/attempts")) == 1
    assert storage.list("_vtray/attempts") == []


def test_a_fault_is_no_death(storage):
    for _ in range(LIMIT + 1):
        with pytest.raises(KeyError), Attempts(storage=storage, run="one").of("00001"):
            raise KeyError
    assert storage.list("_vtray/attempts") == []


def test_after_some_deaths_the_unit_is_given_up_and_no_other(storage):
    dead = [die_at(storage, "00001") for _ in range(LIMIT)]
    with pytest.raises(UnfinishedUnits, match=f"^{LIMIT} workers in a row died while they worked on it"):
        die_at(storage, "00001")
    for unit, run in (("00002", "one"), ("00001", "another")):
        with Attempts(storage=storage, run=run).of(unit):
            pass
    assert len(storage.list("_vtray/attempts")) == len(dead)
    clear_attempts(storage)
    assert storage.list("_vtray/attempts") == []


def test_one_that_succeeds_after_deaths_clears_their_marks(storage):
    dead = [die_at(storage, "00001") for _ in range(LIMIT - 1)]
    with Attempts(storage=storage, run="one").of("00001"):
        assert len(storage.list("_vtray/attempts")) == len(dead) + 1
    assert storage.list("_vtray/attempts") == []
