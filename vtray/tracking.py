"""MLflow, in one place: the driver owns one run per job, and the same run goes on after a crash.

Tracking never ends a job: if the server is away the run goes on, and what would have been logged is in the output.
MLflow takes seconds to import, so it is opened in the background, and not before the workers are busy.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vtray.errors import StorageError
from vtray.manifest import Json, Ledger, canonical
from vtray.tracking_model import ModelPackage, logged_model, registered, write_files

log = logging.getLogger(__name__)

RUN_KEY = "_vtray/tracking.json"
MAX_PARAM_CHARACTERS = 500
MAX_METRICS = 1000  # of one request
CANDIDATE = "candidate"
NONE = "none"
SQLITE = "sqlite:///"
PARENT, CHILD = "mlflow.parentRunId", "vtray.child"  # tags
SECRET_WORDS = ("secret", "token", "password", "credential", "access_key")

Run = tuple[Any, str]  # MLflow's client and the run's id


@dataclass(frozen=True, kw_only=True)
class TrackingTarget:
    """Where a run is logged. `uri`: an MLflow address, "none", or None for MLflow's own choice, which is
    MLFLOW_TRACKING_URI, else the SQLite file mlflow.db in the current folder."""

    uri: str | None
    experiment: str
    run_name: str


class Tracker:
    """One MLflow run, opened in the background when something is first logged.

    Every method is safe to call when tracking is off or fails.
    """

    def __init__(
        self,
        target: TrackingTarget,
        ledger: Ledger,
        params: Mapping[str, Any],
        *,
        under: "Tracker | None" = None,
    ) -> None:
        self.target = target
        self._opening = (ledger, params)
        self._under = under
        self._steps: dict[str, set[int]] = {}  # of each metric, what the run is known to hold
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")

    @cached_property
    def _run(self) -> Run | None:
        """The client and the run's id, or None without tracking; asked for only in the background thread."""
        opened: Run | None = self._guard(_open, self.target, *self._opening)
        if opened and self._under and (above := self._under.run_id()):
            opened[0].set_tag(opened[1], PARENT, above)
        return opened

    def run_id(self) -> str | None:
        """The id of the run, which is opened if it is not; None without tracking. Waits for the background."""
        opened = self._pool.submit(lambda: self._run).result()
        return opened[1] if opened else None

    def child(self, name: str, params: Mapping[str, Any]) -> "ChildTracker":
        """A run below this one, the same under the same name after a crash; it shares this one's background."""
        return ChildTracker(self, name, params)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Metrics by global step, sent in one batch in the background."""
        self._pool.submit(self._guard, self._send_metrics, dict(metrics), step)

    def log_history(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Metrics of many steps, each sent once: what the run holds, also from before a crash, is passed over.

        records: each has the global `step`, may have `time` in Unix seconds, and holds numbers by name; nested
        mappings become dotted names, and what is no number is passed over. Give all records or the new ones.
        """
        self._pool.submit(self._guard, self._send_history, [dict(record) for record in records])

    def log_model(
        self, package: ModelPackage, *, registered_name: str | None = None, alias: str = CANDIDATE
    ) -> "Future[str | None]":
        """The model with signature and example, and with a name also a version under `alias` in the registry.

        Done once for each run and content: after a crash the same model and version go on. The future holds the
        model's address for `mlflow.pyfunc.load_model`, or None if it could not be logged.
        """
        return self._pool.submit(self._guard, self._send_model, package, registered_name, alias)

    def log_artifacts(self, files: Mapping[str, bytes]) -> None:
        """Files by artifact path, sent in the background."""
        self._pool.submit(self._guard, self._send_artifacts, dict(files))

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED after everything before it was sent."""
        self._pool.submit(self._guard, self._end, status).result()
        self._pool.shutdown()

    def _send_metrics(self, metrics: dict[str, float], step: int) -> None:
        if run := self._run:
            from mlflow.entities import Metric
            from mlflow.utils.time import get_current_time_millis

            now = get_current_time_millis()
            run[0].log_batch(run[1], metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def _send_history(self, records: list[Json]) -> None:
        if run := self._run:
            try:
                fresh = [metric for metric in _metrics(records) if metric.step not in self._known(run, metric.key)]
                for start in range(0, len(fresh), MAX_METRICS):
                    run[0].log_batch(run[1], metrics=fresh[start : start + MAX_METRICS])
                for metric in fresh:
                    self._steps[metric.key].add(metric.step)
            except Exception:
                self._steps.clear()  # who knows what arrived: the store is asked again next time
                raise

    def _known(self, run: Run, name: str) -> set[int]:
        """The steps that the run holds of one metric; the store is asked once."""
        if name not in self._steps:
            client, run_id = run
            self._steps[name] = {metric.step for metric in client.get_metric_history(run_id, name)}
        return self._steps[name]

    def _send_model(self, package: ModelPackage, registered_name: str | None, alias: str) -> str | None:
        if run := self._run:
            model = logged_model(*run, package)
            version = self._guard(registered, run[0], model, registered_name, alias) if registered_name else None
            return f"models:/{version or model.model_id}"
        return None

    def _send_artifacts(self, files: dict[str, bytes]) -> None:
        if run := self._run:
            with TemporaryDirectory() as folder:
                write_files(Path(folder), files)
                run[0].log_artifacts(run[1], folder)

    def _end(self, status: str) -> None:
        if run := self._run:
            run[0].set_terminated(run[1], status)

    def _guard(self, call: Any, *args: Any) -> Any:
        """MLflow raises whatever its back end raises; a job must survive all of it."""
        try:
            return call(*args)
        except Exception as error:  # noqa: BLE001
            log.warning(
                "MLflow at %s: %s: %s; the run goes on without it",
                without_password(self.target.uri or "its default address"),
                type(error).__name__,
                error,
            )
            return None


class ChildTracker(Tracker):
    """A run below another one, such as a trial of a search."""

    def __init__(self, above: Tracker, name: str, params: Mapping[str, Any]) -> None:
        self.target = above.target
        self._above, self._named = above, (name, dict(params))
        self._steps = {}
        self._pool = above._pool

    @cached_property
    def _run(self) -> Run | None:
        opened: Run | None = self._guard(_open_child, self._above._run, *self._named)
        return opened

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED after everything before it was sent; does not wait."""
        self._pool.submit(self._guard, self._end, status)


def _open_child(above: Run | None, name: str, params: Mapping[str, Any]) -> Run | None:
    """The client and the run id of the run with this name below another: the one that is there, else a new one."""
    if above is None:
        return None
    client, parent = above
    experiment = client.get_run(parent).info.experiment_id
    wanted = f"tags.`{PARENT}` = '{parent}' and tags.`{CHILD}` = '{name}'"
    found = client.search_runs([experiment], filter_string=wanted, max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        run_id = str(client.create_run(experiment, run_name=name, tags={PARENT: parent, CHILD: name}).info.run_id)
    _log_params(client, run_id, params)
    return client, run_id


def _open(target: TrackingTarget, ledger: Ledger, params: Mapping[str, Any]) -> Run | None:
    """The client and the run id: the output's own run if it has one in this store, else a new one."""
    if target.uri == NONE:
        return None
    import mlflow
    from mlflow.tracking import MlflowClient

    uri = _absolute(target.uri or mlflow.get_tracking_uri())
    client = MlflowClient(tracking_uri=uri)
    run_id = _known_run(client, uri, ledger, plan=params.get("fingerprint"))
    if run_id is None:
        tags = {"vtray.output": ledger.storage.uri}
        experiment_id = _experiment(client, uri, target.experiment)
        run_id = client.create_run(experiment_id, run_name=target.run_name, tags=tags).info.run_id
        book = {"tracking_uri": without_password(uri), "run_id": run_id, "plan": params.get("fingerprint")}
        ledger.storage.put(RUN_KEY, canonical(book))
    else:
        client.update_run(run_id, status="RUNNING")
    _log_params(client, run_id, params)
    return client, run_id


def _absolute(uri: str) -> str:
    """A SQLite address that names the same file from any folder."""
    path = uri.removeprefix(SQLITE)
    return uri if path == uri else f"{SQLITE}{Path(path).absolute()}"


def without_password(uri: str) -> str:
    """An address without the user and password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _known_run(client: Any, uri: str, ledger: Ledger, *, plan: str | None) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        known = ledger.read_json(RUN_KEY)
    except StorageError:
        return None
    if known is None or (known.get("tracking_uri"), known.get("plan")) != (without_password(uri), plan):
        return None
    try:
        run = client.get_run(known["run_id"]).info
    except MlflowException:
        return None
    return str(run.run_id) if run.lifecycle_stage == "active" else None


def _experiment(client: Any, uri: str, name: str) -> str:
    """The experiment's id; a new one in the embedded store keeps its artifacts beside the database."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    artifacts = None
    if uri.startswith(SQLITE):
        artifacts = (Path(uri.removeprefix(SQLITE)).parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=artifacts))


def _metrics(records: Iterable[Json]) -> Iterator[Any]:
    """MLflow's metrics of some records, the later of two with the same name and step."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    found: dict[tuple[str, int], Any] = {}
    for record in records:
        values = dict(record)
        step, when = int(values.pop("step")), values.pop("time", None)
        millis = now if when is None else round(1000 * when)
        numbers = {name: value for name, value in flatten(values).items() if _is_number(value)}
        found |= {(name, step): Metric(name, float(value), millis, step) for name, value in numbers.items()}
    yield from found.values()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _log_params(client: Any, run_id: str, params: Mapping[str, Any]) -> None:
    """Parameters are immutable in MLflow, so after a crash only new ones are sent."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    flat = {key: _short(value) for key, value in flatten(params).items() if not _is_secret(key)}
    fresh = [Param(key, value) for key, value in flat.items() if key not in known]
    for start in range(0, len(fresh), 100):
        client.log_batch(run_id, params=fresh[start : start + 100])


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_PARAM_CHARACTERS else f"{text[: MAX_PARAM_CHARACTERS - 3]}..."


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in SECRET_WORDS)
