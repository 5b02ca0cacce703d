import threading

import numpy as np
import pytest
import torch

from vtray.classify.checkpoint import FOLDER, Checkpoints
from vtray.errors import StorageDenied, StorageError
from vtray.storage import LocalStorage, open_storage


def state_of(epoch, size=8):
    return {
        "network": {"head.weight": torch.full((size, 3), float(epoch)), "seen": torch.tensor(epoch)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(float(epoch))}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "global_step": epoch * 10,
    }


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def storage(request, tmp_path):
    uri = str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3_bucket')}/run"
    return open_storage(uri)


@pytest.fixture
def local(tmp_path):
    return open_storage(str(tmp_path))


def checkpoints(storage, fingerprint="f", **more):
    return Checkpoints(storage=storage, fingerprint=fingerprint, **more)


def save_all(saver, scores):
    """One stored checkpoint after the other, epoch 0 first."""
    for epoch, score in enumerate(scores):
        saver.save(epoch, state_of(epoch), metrics={"top1": score})
        saver.wait()


def keys(storage, ending=""):
    return [entry.key for entry in storage.list(FOLDER) if entry.key.endswith(ending)]


def epochs(storage):
    blobs, sidecars = ([int(key[len(FOLDER) + 1 :][:6]) for key in keys(storage, end)] for end in (".pt", ".json"))
    assert blobs == sidecars
    return blobs


def only(storage, epoch, ending):
    (key,) = [key for key in keys(storage, ending) if key.startswith(f"{FOLDER}/{epoch:06}")]
    return key


class GatedStorage(LocalStorage):
    """A slow disk: puts of blobs wait for `gate`; those of `denied` epochs fail."""

    def __init__(self, root, denied=()):
        super().__init__(root)
        self.gate, self.began, self.denied, self.order = threading.Event(), threading.Event(), denied, []

    def put(self, key, content):
        if key.endswith(".pt"):
            self.began.set()
            assert self.gate.wait(20)
        epoch = int(key[len(FOLDER) + 1 :][:6])
        if epoch in self.denied:
            raise StorageDenied(f"put {key}: no")
        self.order.append((epoch, key.rpartition(".")[2]))
        super().put(key, content)


# what is stored comes back


def test_the_newest_comes_back_bit_for_bit(storage):
    saver = checkpoints(storage)
    assert saver.newest() is None
    assert saver.best() is None
    save_all(saver, [0.5, 0.7, 0.6])
    found = checkpoints(storage).newest()
    assert (found.epoch, found.metrics) == (2, {"top1": 0.6})
    assert found.state["global_step"] == 20
    assert found.state["optimizer"]["param_groups"] == [{"lr": 0.1, "params": [0]}]
    assert torch.equal(found.state["network"]["head.weight"], torch.full((8, 3), 2.0))
    assert checkpoints(storage).best().epoch == 1


def test_the_state_is_taken_when_save_is_called(tmp_path):
    storage = GatedStorage(tmp_path)
    saver = checkpoints(storage)
    weights = torch.ones(3)
    saver.save(0, {"w": weights}, metrics={})
    assert storage.began.wait(20)
    weights.zero_()  # training goes on while the upload hangs
    storage.gate.set()
    saver.wait()
    assert torch.equal(saver.newest().state["w"], torch.ones(3))


@pytest.mark.parametrize("value", [np.float64(1.0), object(), torch.nn.Linear(1, 1)])
def test_what_cannot_be_loaded_safely_is_refused_when_it_is_saved(local, value):
    with pytest.raises(TypeError, match="tensors and plain values only"):
        checkpoints(local).save(0, {"x": value}, metrics={})
    assert keys(local) == []


# damage


def corrupted(content):
    return content[:-200] + bytes(byte ^ 1 for byte in content[-200:-199]) + content[-199:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [(corrupted, "another sha256"), (lambda blob: blob[:1000], "1000 of"), (lambda blob: b"", "0 of")],
)
def test_a_damaged_newest_blob_falls_back_to_the_one_before(local, damage, message, caplog):
    save_all(checkpoints(local), [0.1, 0.2, 0.3])
    key = only(local, 2, ".pt")
    local.put(key, damage(local.read(key)))
    found = checkpoints(local).newest()
    assert found.epoch == 1
    assert torch.equal(found.state["network"]["seen"], torch.tensor(1))
    assert checkpoints(local).best().epoch == 1
    assert f"{key}: is damaged ({message}" in caplog.text


def test_a_missing_newest_blob_falls_back_to_the_one_before(storage, caplog):
    save_all(checkpoints(storage), [0.1, 0.2])
    storage.delete(only(storage, 1, ".pt"))
    assert checkpoints(storage).newest().epoch == 0
    assert "is missing" in caplog.text


@pytest.mark.parametrize("content", [b"", b'{"epoch": 2, "sha', b"[]", b'{"epoch": 2}', b"\xff\xfe"])
def test_a_damaged_sidecar_is_passed_over(local, content, caplog):
    save_all(checkpoints(local), [0.1, 0.2, 0.3])
    local.put(only(local, 2, ".json"), content)
    assert checkpoints(local).newest().epoch == 1
    assert "damaged" in caplog.text


def test_a_blob_without_sidecar_does_not_exist_and_is_swept_up(local):
    """A process that is killed between the two puts leaves exactly this."""
    save_all(checkpoints(local), [0.1, 0.2])
    local.delete(only(local, 1, ".json"))
    saver = checkpoints(local)
    assert saver.newest().epoch == 0
    saver.save(2, state_of(2), metrics={"top1": 0.3})
    saver.wait()
    assert epochs(local) == [0, 2]


def test_nothing_is_found_where_all_are_damaged(local):
    save_all(checkpoints(local), [0.1, 0.2])
    for key in keys(local, ".pt"):
        local.put(key, b"")
    assert checkpoints(local).newest() is None


def test_an_epoch_done_again_replaces_its_damaged_checkpoint(local, caplog):
    save_all(checkpoints(local), [0.1, 0.2])
    local.put(only(local, 1, ".pt"), b"")
    saver = checkpoints(local)
    saver.save(1, state_of(1, size=9), metrics={"top1": 0.2})
    saver.wait()
    caplog.clear()
    assert epochs(local) == [0, 1]
    assert saver.newest().state["network"]["head.weight"].shape == (9, 3)
    assert caplog.text == ""


def test_what_is_saved_now_is_kept_beside_a_damaged_later_one(local):
    save_all(checkpoints(local), [0.1, 0.2, 0.3])
    local.put(only(local, 2, ".pt"), b"")
    saver = checkpoints(local, keep_last=1)
    saver.save(1, state_of(1, size=9), metrics={"top1": 0.1})
    saver.wait()
    assert saver.newest().state["network"]["head.weight"].shape == (9, 3)


def test_storage_that_does_not_answer_is_an_error_and_no_fresh_start(local, monkeypatch):
    save_all(checkpoints(local), [0.1])

    def fail(*args, **kwargs):
        raise StorageError("read: failed 8 times")

    monkeypatch.setattr(local, "read", fail)
    with pytest.raises(StorageError, match="8 times"):
        checkpoints(local).newest()


# other trainings


def test_checkpoints_of_another_training_are_neither_used_nor_removed(local):
    save_all(checkpoints(local, "other"), [0.9] * 4)
    saver = checkpoints(local)
    assert saver.newest() is None
    assert saver.best() is None
    save_all(saver, [0.1, 0.2, 0.3])
    assert saver.newest().epoch == 2
    assert saver.best().metrics == {"top1": 0.3}
    assert checkpoints(local, "other").newest().epoch == 3
    saver.clear()
    assert keys(local) == []


# what is kept


@pytest.mark.parametrize(
    ("scores", "more", "kept"),
    [
        ([0.1, 0.9, 0.2, 0.3, 0.4], {}, [1, 3, 4]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], {}, [3, 4]),
        ([0.9, 0.9, 0.9, 0.9], {"keep_last": 1}, [0, 3]),  # of equal ones the earliest
        ([0.1, 0.9, 0.8, 0.3, 0.4], {"keep_last": 1, "keep_best": 2}, [1, 2, 4]),
        ([0.1, 0.9, 0.2, 0.3], {"keep_best": 0}, [2, 3]),
        ([float("nan"), 0.1, float("nan"), float("nan")], {"keep_last": 1}, [1, 3]),
        ([0.5, 0.4, 0.3, 0.2], {"best_by": "top5", "keep_last": 1}, [0, 3]),  # a metric that is not there
    ],
)
def test_the_last_and_the_best_are_kept(local, scores, more, kept):
    saver = checkpoints(local, **more)
    save_all(saver, scores)
    assert epochs(local) == kept


def test_the_sidecar_goes_before_its_blob(local, monkeypatch):
    gone = []
    delete = local.delete
    monkeypatch.setattr(local, "delete", lambda key: (gone.append(key.rpartition(".")[2]), delete(key)))
    save_all(checkpoints(local, keep_last=1), [0.1, 0.2])
    assert gone == ["json", "pt"]


def test_checkpoints_that_cannot_be_removed_do_not_stop_the_training(local, monkeypatch, caplog):
    def deny(key):
        raise StorageDenied(f"delete {key}: no")

    monkeypatch.setattr(local, "delete", deny)
    save_all(checkpoints(local, keep_last=1), [0.1, 0.2, 0.3])
    assert epochs(local) == [0, 1, 2]
    assert "not removed" in caplog.text


# the upload


def test_a_newer_checkpoint_takes_the_place_of_one_that_waits(tmp_path):
    storage = GatedStorage(tmp_path)
    saver = checkpoints(storage)
    saver.save(0, state_of(0), metrics={"top1": 0.9})
    assert storage.began.wait(20)
    for epoch in (1, 2, 3):
        saver.save(epoch, state_of(epoch), metrics={"top1": 0.1})
    storage.gate.set()
    saver.wait()
    assert storage.order == [(0, "pt"), (0, "json"), (3, "pt"), (3, "json")]
    assert saver.newest().epoch == 3


def test_the_best_so_far_is_stored_even_if_newer_ones_wait_behind_it(tmp_path):
    storage = GatedStorage(tmp_path)
    saver = checkpoints(storage)
    saver.save(0, state_of(0), metrics={"top1": 0.1})
    assert storage.began.wait(20)
    for epoch, score in ((1, 0.8), (2, 0.9), (3, 0.9), (4, 0.2), (5, 0.3)):
        saver.save(epoch, state_of(epoch), metrics={"top1": score})
    storage.gate.set()
    saver.wait()
    assert [epoch for epoch, ending in storage.order if ending == "json"] == [0, 2, 5]
    assert (saver.best().epoch, saver.newest().epoch) == (2, 5)


def test_a_failed_upload_is_raised_by_wait_until_a_newer_one_succeeds(tmp_path, caplog):
    storage = GatedStorage(tmp_path, denied=(1,))
    storage.gate.set()
    saver = checkpoints(storage)
    save_all(saver, [0.5])
    saver.save(1, state_of(1), metrics={"top1": 0.4})
    with pytest.raises(StorageDenied, match=r"put .*000001"):
        saver.wait()
    assert "checkpoint of epoch 1 is not stored" in caplog.text
    assert saver.newest().epoch == 0
    saver.save(2, state_of(2), metrics={"top1": 0.3})
    saver.wait()
    assert saver.newest().epoch == 2


def test_a_best_checkpoint_that_is_not_stored_is_not_kept_quiet(tmp_path):
    storage = GatedStorage(tmp_path, denied=(0,))
    storage.gate.set()
    saver = checkpoints(storage)
    saver.save(0, state_of(0), metrics={"top1": 0.9})
    saver.save(1, state_of(1), metrics={"top1": 0.4})
    with pytest.raises(StorageDenied, match="000000"):
        saver.wait()
    assert saver.newest().epoch == 1


def test_wait_without_uploads_returns(local):
    checkpoints(local).wait()
