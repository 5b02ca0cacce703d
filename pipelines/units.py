"""One unit is one row of a Ray Data dataset: sent to a worker, done there, and back comes its receipt."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from pipelines.cluster import Workers
from vtray.attempts import Attempts
from vtray.errors import VtrayError
from vtray.manifest import Receipt
from vtray.sources import Unit
from vtray.storage import open_storage

log = logging.getLogger(__name__)

CPU_SHARE = 0.95  # workers for all CPUs, and never every CPU: what else Ray starts must not starve


class UnitStep(Protocol):
    """What is done with a unit, and the output that it goes to."""

    @property
    def output_uri(self) -> str: ...

    def __call__(self, unit: Unit, digest: str, /) -> Receipt: ...


@dataclass(frozen=True, kw_only=True)
class UnitFailure:
    """A unit that got no receipt, and why."""

    unit: str
    message: str


class DoUnits:
    """On a worker: one unit after the other, each to its receipt or to the reason why there is none."""

    def __init__(self, step: UnitStep, run: str) -> None:
        self._step = step
        self._attempts = Attempts(storage=open_storage(step.output_uri), run=run)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        unit = Unit.from_dict(row)
        try:
            with self._attempts.of(unit.unit_id):
                receipt = self._step(unit, row["digest"]).to_json().decode()
        except VtrayError as error:
            return {"unit": unit.unit_id, "receipt": "", "message": str(error)}
        except Exception as error:
            text = f"{type(error).__name__}: {error} (a bug; the traceback is in the worker's log)"
            log.exception("unit %s", unit.unit_id)
            return {"unit": unit.unit_id, "receipt": "", "message": text}
        return {"unit": unit.unit_id, "receipt": receipt, "message": ""}


def run_units(
    units: Sequence[Unit], step: UnitStep, digests: Mapping[str, str], *, workers: Workers
) -> Iterator[Receipt | UnitFailure]:
    """Do the units on the connected cluster; outcomes come back as they finish.

    A worker that dies is replaced and its unit done again, up to attempts.LIMIT times; the receipt of the first
    attempt wins. Workers are actors because the next unit waits inside them: a task would be sent only after the
    one before it came back.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [unit.to_dict() | {"digest": digests[unit.unit_id]} for unit in units]
    pool = ray.data.ActorPoolStrategy(
        min_size=min(workers.least, len(rows)), max_size=min(workers.most, len(rows))
    )
    outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        DoUnits,
        fn_constructor_kwargs={"step": step, "run": uuid4().hex},
        num_cpus=CPU_SHARE * workers.needs.cpus,
        num_gpus=workers.needs.gpus,
        memory=workers.needs.memory_bytes or None,
        compute=pool,
    )
    for row in outcomes.iter_rows():
        yield _outcome(row)


def _outcome(row: Mapping[str, Any]) -> Receipt | UnitFailure:
    if row["receipt"]:
        return Receipt.from_json(row["receipt"].encode())
    return UnitFailure(unit=row["unit"], message=row["message"])
