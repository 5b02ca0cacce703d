import errno
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from vtray.errors import ConfigError, StorageDenied, StorageError, StorageMissing
from vtray.storage import (
    SCRATCH,
    absolute_uri,
    is_local,
    join_uri,
    local_path,
    open_storage,
    read_uri,
    with_retries,
)

NOBODY = 65534


def keys(storage, prefix=""):
    return [entry.key for entry in storage.list(prefix)]


@pytest.fixture
def as_nobody(tmp_path):
    """Run what follows without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_uid == 0 and "pytest" in str(folder):
            folder.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# addresses


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_local("a/b")
    assert is_local("file:///a")
    assert not is_local("s3://b/k")
    assert local_path("file:///a%20b/c") == local_path("/a b/c")
    assert absolute_uri("x/../y") == f"{tmp_path}/y"
    assert absolute_uri("s3://b/k/") == "s3://b/k"
    assert join_uri("s3://b/k/", "x") == "s3://b/k/x"
    assert join_uri("s3://b/k", "s3://c/x") == "s3://c/x"


def test_an_unknown_scheme_is_refused_with_what_is_allowed():
    with pytest.raises(ConfigError, match=r"gs://.*allowed: a local path, file://, s3://"):
        open_storage("gs://bucket/x")


# local


def test_local_put_read_range_list_exists_delete(tmp_path):
    storage = open_storage(str(tmp_path / "out"))
    storage.put("b/x.bin", b"0123456789")
    storage.put("a.bin", b"a")
    storage.put("b/x.bin", b"9876543210")
    assert storage.read("b/x.bin") == b"9876543210"
    assert storage.read("b/x.bin", start=2, end=5) == b"765"
    assert storage.read("b/x.bin", start=8) == b"10"
    assert keys(storage) == ["a.bin", "b/x.bin"]
    assert keys(storage, "b") == ["b/x.bin"]
    assert storage.list("b")[0].size == 10
    with storage.open("b/x.bin") as file:
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"10"
    assert storage.exists("a.bin")
    assert not storage.exists("b")
    storage.delete("a.bin")
    storage.delete("a.bin")
    assert not storage.exists("a.bin")


def test_local_listing_is_sorted_by_key_across_folders(tmp_path):
    storage = open_storage(str(tmp_path))
    for key in ("b/1", "a-b/1", "a/2", "a/1", "a.x", "c"):
        storage.put(key, b"")
    assert keys(storage) == sorted(["b/1", "a-b/1", "a/2", "a/1", "a.x", "c"])


def test_local_version_changes_with_the_content(tmp_path):
    storage = open_storage(str(tmp_path))
    storage.put("x", b"1")
    before = storage.list()[0].version
    storage.put("x", b"2")
    assert storage.list()[0].version != before


def test_local_listing_of_what_is_not_there_is_empty(tmp_path):
    storage = open_storage(str(tmp_path / "nothing"))
    assert storage.list() == []
    assert storage.list("x") == []


def test_local_scratch_is_not_listed_and_can_be_cleared(tmp_path):
    storage = open_storage(str(tmp_path))
    storage.put("x", b"1")
    left = tmp_path / SCRATCH / "left-by-a-killed-process"
    left.write_bytes(b"half")
    assert keys(storage) == ["x"]
    storage.clear_scratch()
    assert not left.exists()
    storage.put("y", b"1")
    assert keys(storage) == ["x", "y"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_local_put_that_raises_leaves_no_file_and_keeps_the_old_one(tmp_path, monkeypatch, step):
    storage = open_storage(str(tmp_path))
    storage.put("data/old", b"old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync" if step == "fsync" else "pathlib.Path.replace", fail)
    for key in ("data/old", "data/new"):
        with pytest.raises(StorageError, match="No space left"):
            storage.put(key, b"new")
    monkeypatch.undo()
    assert keys(storage) == ["data/old"]
    assert storage.read("data/old") == b"old"


def _die_in_put(root):
    os.fsync = lambda descriptor: os._exit(9)
    open_storage(root).put("data/x", b"x" * 100)


def test_local_put_of_a_killed_process_leaves_no_file_among_the_data(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_die_in_put, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == 9
    storage = open_storage(str(tmp_path))
    assert keys(storage) == []
    assert list((tmp_path / "data").iterdir()) == []
    assert len(list((tmp_path / SCRATCH).iterdir())) == 1


def test_local_readers_never_see_half_of_a_put(tmp_path):
    storage = open_storage(str(tmp_path))
    contents = [bytes([i]) * 300_000 for i in range(2)]
    storage.put("x", contents[0])
    seen, stop = set(), threading.Event()

    def look():
        while not stop.is_set():
            seen.add(storage.read("x"))

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(40):
        storage.put("x", contents[i % 2])
    stop.set()
    reader.join()
    assert seen <= set(contents)


def _create(root, content, barrier):
    barrier.wait()
    return open_storage(root).create("receipts/0.json", content)


def test_local_create_is_won_by_one_of_eight_threads(tmp_path):
    for attempt in range(20):
        root, barrier = str(tmp_path / str(attempt)), threading.Barrier(8)
        contents = [bytes([i]) * 1000 for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda content, root=root, b=barrier: _create(root, content, b), contents))
        assert sum(won) == 1
        assert open_storage(root).read("receipts/0.json") == contents[won.index(True)]
        assert keys(open_storage(root)) == ["receipts/0.json"]


def test_local_create_is_won_by_one_of_eight_processes(tmp_path):
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    barrier = context.Barrier(8)

    def race(number):
        content = bytes([number]) * 1000
        writer.send((number, _create(str(tmp_path), content, barrier)))

    processes = [context.Process(target=race, args=(number,)) for number in range(8)]
    for process in processes:
        process.start()
    results = dict(reader.recv() for _ in processes)
    for process in processes:
        process.join()
    winners = [number for number, won in results.items() if won]
    assert len(winners) == 1
    assert open_storage(str(tmp_path)).read("receipts/0.json") == bytes(winners) * 1000


def test_local_create_leaves_an_existing_object_as_it_is(tmp_path):
    storage = open_storage(str(tmp_path))
    assert storage.create("x", b"first")
    assert not storage.create("x", b"second")
    assert storage.read("x") == b"first"
    assert list((tmp_path / SCRATCH).iterdir()) == []


def test_local_missing_is_named(tmp_path):
    storage = open_storage(str(tmp_path))
    (tmp_path / "folder").mkdir()
    for key in ("nothing", "folder", "no/folder/x"):
        with pytest.raises(StorageMissing, match=key):
            storage.read(key)
        with pytest.raises(StorageMissing, match=key):
            storage.open(key)
    with pytest.raises(StorageMissing):
        read_uri(f"{tmp_path}/nothing")


def test_local_path_through_a_file_is_missing(tmp_path):
    storage = open_storage(str(tmp_path))
    storage.put("x", b"")
    with pytest.raises(StorageMissing, match="x/y"):
        storage.read("x/y")


def test_local_unreadable_file_is_denied(tmp_path, as_nobody):
    uid = os.geteuid()
    if uid == NOBODY:
        os.seteuid(0)
    (tmp_path / "x").write_bytes(b"")
    (tmp_path / "x").chmod(0)
    os.seteuid(uid)
    storage = open_storage(str(tmp_path))
    with pytest.raises(StorageDenied, match="no permission"):
        storage.read("x")
    with pytest.raises(StorageDenied):
        storage.open("x")
    assert keys(storage) == ["x"]


def test_local_folder_without_permission_is_denied(tmp_path, as_nobody):
    uid = os.geteuid()
    if uid == NOBODY:
        os.seteuid(0)
    (tmp_path / "closed").mkdir(mode=0o000)
    tmp_path.chmod(0o555)
    os.seteuid(uid)
    storage = open_storage(str(tmp_path))
    for attempt in (storage.list, lambda: storage.put("x", b""), lambda: storage.create("y", b"")):
        with pytest.raises(StorageDenied, match="no permission"):
            attempt()


def test_local_symlinks_are_followed_and_loops_end(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"1")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "y").write_bytes(b"2")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "sub" / "up").symlink_to(root)
    (root / "broken").symlink_to(root / "nothing")
    assert keys(open_storage(str(root))) == ["linked/x", "sub/y"]


def test_local_link_to_itself_does_not_end_a_listing(tmp_path):
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert keys(open_storage(str(tmp_path))) == ["x"]


def test_local_folder_reached_twice_is_listed_by_both_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"1")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    assert keys(open_storage(str(tmp_path))) == ["a/x", "b/x", "c/x"]


def test_local_arrow_filesystem_reads_what_was_put(tmp_path):
    storage = open_storage(str(tmp_path))
    storage.put("a/x", b"123")
    filesystem, root = storage.arrow_filesystem()
    with filesystem.open_input_file(f"{root}/a/x") as file:
        assert file.read() == b"123"


@pytest.mark.parametrize("name", ["x.jpg", "a b.jpg"])
def test_read_uri_takes_any_form_of_a_local_address(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    assert read_uri(str(tmp_path / name)) == b"1"
    assert read_uri((tmp_path / name).as_uri()) == b"1"
    assert read_uri(name) == b"1"


# retries


class Flaky:
    """Fails with the given errors one after another, then returns 7."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


def slow_down():
    return ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")


def test_retries_pass_over_passing_faults():
    call = Flaky(
        slow_down(), ConnectionResetError(), TimeoutError(), OSError(16, "Please reduce your request rate")
    )
    assert with_retries(call, what="read x", base_s=0) == 7
    assert call.calls == 5


def test_retries_end_and_name_the_last_fault():
    call = Flaky(*[slow_down() for _ in range(3)])
    with pytest.raises(StorageError, match=r"read x: failed 3 times.*SlowDown") as caught:
        with_retries(call, what="read x", attempts=3, base_s=0)
    assert call.calls == 3
    assert not isinstance(caught.value, (StorageMissing, StorageDenied))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError("x"), StorageMissing),
        (PermissionError("x"), StorageDenied),
        (FileExistsError(), OSError),
    ],
)
def test_lasting_faults_are_not_tried_again(error, expected):
    call = Flaky(error)
    with pytest.raises(expected):
        with_retries(call, what="read x", base_s=0)
    assert call.calls == 1


# s3


@pytest.mark.s3
def test_s3_put_read_range_list_exists_delete(s3_bucket):
    storage = open_storage(f"{s3_bucket}/some/prefix")
    assert storage.list() == []
    storage.put("b/x.bin", b"0123456789")
    storage.put("a.bin", b"a")
    open_storage(s3_bucket).put("some/prefix-of-others/y", b"")
    assert storage.read("b/x.bin") == b"0123456789"
    assert storage.read("b/x.bin", start=2, end=5) == b"234"
    assert storage.read("b/x.bin", start=8) == b"89"
    assert [(entry.key, entry.size) for entry in storage.list()] == [("a.bin", 1), ("b/x.bin", 10)]
    assert keys(storage, "b") == ["b/x.bin"]
    with storage.open("b/x.bin") as file:
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"89"
    assert read_uri(f"{s3_bucket}/some/prefix/b/x.bin") == b"0123456789"
    assert storage.exists("a.bin")
    assert not storage.exists("nothing")
    storage.delete("a.bin")
    storage.delete("a.bin")
    assert not storage.exists("a.bin")


@pytest.mark.s3
def test_s3_listing_is_never_stale(s3_bucket):
    storage, other = open_storage(f"{s3_bucket}/p"), open_storage(f"{s3_bucket}/p")
    other.put("one", b"1")
    assert keys(storage) == ["one"]
    assert not storage.exists("two")
    version = storage.list()[0].version
    other.put("two", b"2")
    other.put("one", b"new")
    assert keys(storage) == ["one", "two"]
    assert storage.exists("two")
    assert storage.list()[0].version != version
    other.delete("two")
    assert keys(storage) == ["one"]
    assert not storage.exists("two")


@pytest.mark.s3
def test_s3_create_is_won_by_one_of_eight_threads(s3_bucket):
    storage, barrier = open_storage(f"{s3_bucket}/p"), threading.Barrier(8)

    def race(number):
        barrier.wait()
        return storage.create("receipt", bytes([number]))

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert storage.exists("receipt")
    assert not storage.create("receipt", b"late")
    assert storage.read("receipt") != b"late"
    # moto looks and then writes without a lock, so threads that race inside it may both win; AWS lets one win.
    assert sum(won) >= 1


@pytest.mark.s3
def test_s3_missing_object_and_bucket_are_named_at_once(s3_bucket, s3_app):
    storage = open_storage(f"{s3_bucket}/p")
    storage.put("x", b"")
    before = next(s3_app.numbers)
    for attempt in (storage.read, storage.open):
        with pytest.raises(StorageMissing, match="p/nothing"):
            attempt("nothing")
    assert next(s3_app.numbers) - before < 8
    with pytest.raises(StorageMissing):
        open_storage("s3://no-such-bucket-here/p").read("x")
    assert open_storage("s3://no-such-bucket-here/p").list() == []


@pytest.mark.s3
def test_s3_requests_answered_503_are_tried_again(s3_bucket, s3_app):
    storage = open_storage(f"{s3_bucket}/p")
    s3_app.throttle = lambda n: n % 6 == 0
    turned_away = s3_app.num_throttled
    contents = {f"{i:02d}": bytes([i]) * 10 for i in range(6)}
    for key, content in contents.items():
        storage.put(key, content)
    assert {key: storage.read(key) for key in keys(storage)} == contents
    assert s3_app.num_throttled > turned_away


@pytest.mark.s3
def test_s3_without_a_bucket_is_refused():
    with pytest.raises(ConfigError, match="s3://bucket/prefix"):
        open_storage("s3://")


@pytest.mark.s3
def test_s3_arrow_filesystem_reads_what_was_put(s3_bucket):
    storage = open_storage(f"{s3_bucket}/p")
    storage.put("a/x", b"123")
    filesystem, root = storage.arrow_filesystem()
    with filesystem.open_input_file(f"{root}/a/x") as file:
        assert file.read() == b"123"


def test_create_without_hard_links_is_still_exclusive(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    storage = open_storage(str(tmp_path))
    assert storage.create("a", b"first")
    assert not storage.create("a", b"second")
    assert storage.read("a") == b"first"
    assert list((tmp_path / SCRATCH).iterdir()) == []
