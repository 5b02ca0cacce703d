"""Training fast styles on Ray: one worker does what this process does, two share the crops of every batch."""

import pytest
from fast_training import config_of, model_bytes, write_place

from pipelines import train_style
from vtray.classify.training import read_epochs
from vtray.errors import ConfigError
from vtray.storage import open_storage
from vtray.verification import verify

pytestmark = pytest.mark.ray


def losses_of(output):
    (folder,) = (path.name for path in output.glob("_vtray/training-*"))
    return [record["loss"] for record in read_epochs(open_storage(str(output)), f"_vtray/{folder}")]


def test_one_worker_makes_the_model_that_this_process_makes(tmp_path, ray_cluster):
    place = write_place(tmp_path)
    for name, workers in (("here", 0), ("alone", 1)):
        train_style.run(config_of(place, tmp_path / name, num_workers=workers))
    assert model_bytes(tmp_path / "alone") == model_bytes(tmp_path / "here")
    assert verify(open_storage(str(tmp_path / "alone")), deep=True).faults == ()


def test_two_workers_learn_what_one_does(tmp_path, ray_cluster):
    place = write_place(tmp_path)
    for name, workers in (("one", 0), ("two", 2)):
        train_style.run(config_of(place, tmp_path / name, num_workers=workers))
    one, two = (losses_of(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-3)  # weights without a gradient follow rounding errors, results do not
    assert verify(open_storage(str(tmp_path / "two")), deep=True).faults == ()
    with pytest.raises(ConfigError, match="batch_size 3 cannot be shared by 2 workers"):
        train_style.run(config_of(place, tmp_path / "odd", num_workers=2, loop={"batch_size": 3}))
