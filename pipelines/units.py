"""One unit is one row of a Ray Data dataset: sent to a worker, done there, and back comes its receipt."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtray.errors import StorageError
from vtray.manifest import Receipt
from vtray.sources import Unit

UnitStep = Callable[[Unit, str], Receipt]


@dataclass(frozen=True, kw_only=True)
class UnitFailure:
    """A unit that got no receipt, and why."""

    unit: str
    message: str


def run_units(
    units: Sequence[Unit], step: UnitStep, digests: Mapping[str, str], *, num_workers: int
) -> Iterator[Receipt | UnitFailure]:
    """Do the units on the connected cluster, `num_workers` at a time; outcomes come back as they finish.

    A worker that dies is replaced and its unit done again; the receipt of the first attempt wins.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [unit.to_dict() | {"digest": digests[unit.unit_id]} for unit in units]
    outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        do_unit,
        fn_kwargs={"step": step},
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(size=min(num_workers, len(rows))),
    )
    for row in outcomes.iter_rows():
        yield _outcome(row)


def do_unit(row: dict[str, Any], *, step: UnitStep) -> dict[str, Any]:
    """On a worker: one unit, to its receipt or to the reason why there is none."""
    unit = Unit.from_dict(row)
    try:
        receipt = step(unit, row["digest"]).to_json().decode()
    except StorageError as error:
        return {"unit": unit.unit_id, "receipt": "", "message": str(error)}
    return {"unit": unit.unit_id, "receipt": receipt, "message": ""}


def _outcome(row: Mapping[str, Any]) -> Receipt | UnitFailure:
    if row["receipt"]:
        return Receipt.from_json(row["receipt"].encode())
    return UnitFailure(unit=row["unit"], message=row["message"])
