"""`vtray status` and `vtray verify`: what storage says of an output; Ray is never started."""

import sys

from vtray.errors import InputError
from vtray.manifest import MANIFEST, PLAN, Ledger
from vtray.storage import absolute_uri, open_storage
from vtray.verification import verify as verify_output


def status(output: str) -> None:
    """Print job, state and counts. Raises: InputError if the place holds no vtray output."""
    ledger = Ledger(open_storage(absolute_uri(output)))
    plan = ledger.read_json(PLAN)
    if plan is None:
        raise InputError(f"{output}: holds no vtray output (no {PLAN})")
    done, total = len(ledger.done()), plan["num_units"]
    manifest = ledger.read_json(MANIFEST)
    state = manifest["status"] if manifest else ("unfinished" if done < total else "done, not yet finished")
    lines = {"job": plan["job"], "state": state, "units": f"{done} of {total}"}
    if manifest:
        lines |= {name: f"{value:,}" for name, value in manifest["totals"].items() if name != "units"}
    print("\n".join(f"  {name:<8}{value}" for name, value in lines.items()))


def verify(output: str, *, deep: bool) -> int:
    """Print what was checked and every fault; returns 0, or 3 if there are faults."""
    verdict = verify_output(open_storage(absolute_uri(output)), deep=deep)
    for fault in verdict.faults:
        print(f"error: {fault}", file=sys.stderr)
    how = "rehashed" if deep else "sizes compared"
    print(f"  {verdict.num_files} files, {verdict.num_bytes / 1e6:,.1f} MB, {how}: {len(verdict.faults)} faults")
    return 3 if verdict.faults else 0
