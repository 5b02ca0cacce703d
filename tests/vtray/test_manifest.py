import json
import threading
from dataclasses import replace

import pytest

from vtray.errors import InputError, PlanMismatch, StorageError
from vtray.manifest import (
    MANIFEST,
    PLAN,
    RECEIPTS,
    SUCCESS,
    UNITS,
    FileRecord,
    Ledger,
    Plan,
    Receipt,
    sha256,
    summarize,
)
from vtray.storage import open_storage
from vtray.verification import verify


@pytest.fixture
def ledger(tmp_path):
    return Ledger(open_storage(str(tmp_path / "out")))


def plan(seed=0, units=("00000", "00001"), versions=None):
    return Plan(
        job="augment",
        work={"seed": seed, "input": {"version": "v1"}},
        config={"seed": seed},
        versions=versions or {"pillow": "13"},
        units={unit: f"objects of {unit}" for unit in units},
    )


def do(ledger, of, unit, content=b"pixels", failed=0):
    """Write one unit's file and book its receipt."""
    digest = of.unit_digest(unit)
    key = f"data/{unit}-{digest[:12]}.parquet"
    ledger.storage.put(key, content)
    record = FileRecord(key=key, sha256=sha256(content), bytes=len(content), rows=3)
    receipt = Receipt(
        unit=unit,
        digest=digest,
        files=(record,),
        quarantine=None,
        num_images=3,
        num_failed=failed,
        rows_by_class={"can": 3},
        failures={"decode: truncated": failed} if failed else {},
        seconds={"read": 0.1},
    )
    return ledger.book(receipt)


def finished(ledger, of=None):
    of = of or plan()
    ledger.begin(of, lambda: b"units")
    for unit in of.units:
        do(ledger, of, unit)
    ledger.finish(of, {}, complete=True)
    ledger.mark_complete()
    return of


def test_a_receipt_survives_its_json():
    receipt = Receipt(
        unit="00000",
        digest="d",
        files=(FileRecord(key="data/a", sha256="0", bytes=1, rows=1),),
        quarantine=FileRecord(key="quarantine/00000.parquet", sha256="1", bytes=2, rows=2),
        num_images=3,
        num_failed=2,
        failures={"decode: empty": 2},
        examples=("a.jpg (empty)",),
        records=({"image_id": "b.jpg", "seconds": 1.5, "warnings": ["grey"]},),
        seconds={"read": 0.25},
    )
    assert Receipt.from_json(receipt.to_json()) == receipt


def test_a_receipt_without_records_is_one_of_a_job_that_keeps_none(ledger):
    receipt = do(ledger, plan(), "00000")
    values = json.loads(receipt.to_json())
    del values["records"]
    assert Receipt.from_json(json.dumps(values).encode()) == receipt


def test_records_and_seconds_stay_out_of_the_manifest(ledger):
    receipt = do(ledger, plan(), "00000")
    kept = replace(receipt, records=({"image_id": "b.jpg", "seconds": 1.5},), seconds={"read": 9.0})
    assert summarize([kept]) == summarize([receipt])


def test_begin_writes_plan_and_units(ledger):
    for _ in range(2):
        ledger.begin(plan(), lambda: b"units")
    assert json.loads(ledger.storage.read(PLAN))["fingerprint"] == plan().fingerprint
    assert ledger.storage.read(UNITS) == b"units"


def test_begin_writes_nothing_to_a_finished_output(ledger):
    of = finished(ledger)
    ledger.begin(of, lambda: pytest.fail("written again"))


def test_units_are_written_again_if_a_kill_left_only_the_plan(ledger):
    ledger.storage.put(PLAN, plan().to_json())
    ledger.begin(plan(), lambda: b"units")
    assert ledger.storage.read(UNITS) == b"units"


def test_another_plan_is_refused_with_the_difference(ledger):
    ledger.begin(plan(seed=0), lambda: b"")
    with pytest.raises(PlanMismatch, match=r"(?s)seed: 0 -> 1.*replan=true"):
        ledger.begin(plan(seed=1), lambda: b"")
    assert json.loads(ledger.storage.read(PLAN))["fingerprint"] == plan(seed=0).fingerprint


def test_replan_keeps_units_whose_work_is_unchanged(ledger):
    first = finished(ledger)
    grown = replace(first, units={**first.units, "00002": "new"}, work={**first.work, "input": {"version": "v2"}})
    ledger.begin(grown, lambda: b"units 2", replan=True)
    assert ledger.done() == {"00000", "00001"}
    assert not ledger.is_complete()
    assert ledger.storage.read(UNITS) == b"units 2"
    changed = replace(grown, work={**grown.work, "seed": 9})
    ledger.begin(changed, lambda: b"", replan=True)
    assert ledger.done() == set()
    assert ledger.storage.list("data") == []


def test_a_foreign_folder_is_refused_and_left_alone(ledger):
    ledger.storage.put("holiday.jpg", b"mine")
    with pytest.raises(InputError, match=r"holiday\.jpg"):
        ledger.begin(plan(), lambda: b"")
    assert [entry.key for entry in ledger.storage.list()] == ["holiday.jpg"]


def test_the_first_receipt_wins(ledger):
    of = plan()
    ledger.begin(of, lambda: b"")
    first = do(ledger, of, "00000")
    late = replace(first, seconds={"read": 99.0})
    assert ledger.book(late) == first
    assert ledger.receipts(["00000"]) == [first]


def test_racing_receipts_agree(ledger):
    of = plan()
    ledger.begin(of, lambda: b"")
    receipt = do(ledger, of, "00001")
    winners = []
    racers = [
        threading.Thread(
            target=lambda n=n: winners.append(ledger.book(replace(receipt, unit="00000", seconds={"n": float(n)})))
        )
        for n in range(8)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(winners) == 8
    assert len({winner.seconds["n"] for winner in winners}) == 1


def test_finish_needs_every_receipt(ledger):
    of = plan()
    ledger.begin(of, lambda: b"")
    do(ledger, of, "00000")
    with pytest.raises(StorageError, match="00001"):
        ledger.finish(of, {}, complete=True)
    assert not ledger.is_complete()


def test_a_receipt_of_other_work_is_refused(ledger):
    of = plan()
    ledger.begin(of, lambda: b"")
    do(ledger, of, "00000")
    do(ledger, plan(seed=5), "00001")
    with pytest.raises(StorageError, match="other work"):
        ledger.finish(of, {}, complete=True)


def test_the_manifest_has_the_same_bytes_in_any_order(tmp_path):
    contents = []
    for name, order in (("a", (0, 1)), ("b", (1, 0))):
        ledger, of = Ledger(open_storage(str(tmp_path / name))), plan()
        ledger.begin(of, lambda: b"")
        for index in order:
            do(ledger, of, sorted(of.units)[index])
        ledger.finish(of, {"classes": ["can"]}, complete=True)
        assert not ledger.is_complete()
        contents.append(ledger.storage.read(MANIFEST))
    assert contents[0] == contents[1]


def test_partial_output_gets_no_mark(ledger):
    of = plan()
    ledger.begin(of, lambda: b"")
    for unit in of.units:
        do(ledger, of, unit, failed=1)
    assert ledger.finish(of, {}, complete=False)["status"] == "partial"
    assert not ledger.is_complete()
    assert verify(ledger.storage).faults == ("_vtray/manifest.json: status is partial",)


def test_summary_adds_up():
    receipts = [
        Receipt(
            unit=f"{n:05}",
            digest="",
            files=(FileRecord(key=f"data/{9 - n}", sha256="", bytes=10, rows=2),),
            quarantine=None,
            num_images=5,
            num_failed=n,
            rows_by_class={"can": 1, "box": n},
            failures={"decode: empty": n},
        )
        for n in range(3)
    ]
    summary = summarize(receipts)
    assert summary["totals"] == {"units": 3, "images": 15, "failed": 3, "rows": 6, "bytes": 30}
    assert summary["rows_by_class"] == {"box": 3, "can": 3}
    assert [record["key"] for record in summary["files"]] == ["data/7", "data/8", "data/9"]


def test_library_versions_must_not_change_half_way(ledger):
    of = plan()
    ledger.begin(of, lambda: b"")
    do(ledger, of, "00000")
    ledger.require_versions(of)
    with pytest.raises(PlanMismatch, match="pillow: 13 -> 14"):
        ledger.require_versions(plan(versions={"pillow": "14"}))


def test_events_are_appended(ledger):
    ledger.log({"event": "start"})
    ledger.log({"event": "end"})
    lines = ledger.storage.read("_vtray/events.jsonl").decode().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["start", "end"]


def test_broken_json_is_told(ledger):
    ledger.storage.put(PLAN, b"{")
    with pytest.raises(StorageError, match="not valid JSON"):
        ledger.begin(plan(), lambda: b"")


class TestVerify:
    def test_a_sound_output(self, ledger):
        finished(ledger)
        for deep in (False, True):
            verdict = verify(ledger.storage, deep=deep)
            assert (verdict.num_files, verdict.num_bytes, verdict.faults) == (2, 12, ())

    def test_no_output(self, ledger):
        with pytest.raises(InputError, match="no finished vtray output"):
            verify(ledger.storage)

    def test_a_missing_an_extra_and_a_cut_file(self, ledger):
        finished(ledger)
        first, second = (entry.key for entry in ledger.storage.list("data"))
        ledger.storage.delete(first)
        ledger.storage.put(second, b"pix")
        ledger.storage.put("data/extra.parquet", b"")
        assert verify(ledger.storage).faults == (
            f"{first}: missing",
            f"{second}: 3 bytes, the manifest says 6",
            "data/extra.parquet: not in the manifest",
        )

    def test_a_changed_byte_is_found_only_by_rehashing(self, ledger):
        finished(ledger)
        key = ledger.storage.list("data")[0].key
        ledger.storage.put(key, b"pixelz")
        assert verify(ledger.storage).faults == ()
        (fault,) = verify(ledger.storage, deep=True).faults
        assert fault.startswith(f"{key}: sha256 ")

    def test_a_changed_manifest_and_a_missing_mark(self, ledger):
        finished(ledger)
        ledger.storage.put(MANIFEST, ledger.storage.read(MANIFEST) + b" ")
        assert "_SUCCESS says" in verify(ledger.storage).faults[0]
        ledger.storage.delete(SUCCESS)
        assert verify(ledger.storage).faults == ("_SUCCESS: missing",)


def test_receipts_live_where_readers_of_data_do_not_look(ledger):
    finished(ledger)
    assert all(entry.key.startswith(f"{RECEIPTS}/") for entry in ledger.storage.list(RECEIPTS))
    assert all(entry.key.startswith("data/") for entry in ledger.storage.list("data"))


class TestReplan:
    def test_what_could_not_be_read_is_tried_again(self, ledger):
        of = plan()
        ledger.begin(of, lambda: b"")
        do(ledger, of, "00000")
        receipt = replace(do(ledger, of, "00001"), failures={"read: denied": 1})
        ledger.storage.put("_vtray/receipts/00001.json", receipt.to_json())
        ledger.finish(of, {}, complete=True)
        ledger.mark_complete()
        ledger.begin(of, lambda: b"", replan=True)
        assert ledger.done() == {"00000"}
        assert not ledger.is_complete()

    def test_a_settled_output_is_left_alone(self, ledger):
        of = finished(ledger)
        ledger.begin(of, lambda: b"", replan=True)
        assert ledger.is_complete()

    def test_other_library_versions_keep_nothing(self, ledger):
        of = plan()
        ledger.begin(of, lambda: b"")
        do(ledger, of, "00000")
        newer = plan(versions={"pillow": "14"})
        ledger.begin(newer, lambda: b"", replan=True)
        assert ledger.done() == set()
        assert json.loads(ledger.storage.read(PLAN))["versions"] == {"pillow": "14"}

    def test_files_of_killed_attempts_go(self, ledger):
        of = plan()
        ledger.begin(of, lambda: b"")
        ledger.storage.put("data/00001-orphan.parquet", b"x")
        for unit in of.units:
            do(ledger, of, unit)
        ledger.finish(of, {}, complete=True)
        assert len(ledger.storage.list("data")) == 2


def test_the_plan_says_which_versions_made_the_first_unit(ledger):
    ledger.begin(plan(), lambda: b"")
    newer = plan(versions={"pillow": "14"})
    ledger.require_versions(newer)  # nothing is made yet: the plan takes the new ones
    do(ledger, newer, "00000")
    ledger.require_versions(newer)
