"""A model in MLflow: one logged model per run and content, one version of it in the registry, also after a crash.

Nothing goes through MLflow's global state, no code of the model runs here, and no requirement is inferred.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vtray.manifest import canonical, sha256

CONTENT_TAG, MODEL_TAG = "vtray.sha256", "vtray.model_id"


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """A model as MLflow keeps it: files, and one module that runs them without vtray.

    code: source of a module with `_load_pyfunc(folder)`, whose result has `predict(table)`; both need nothing but
    `requirements`, names of distributions. files: name in that folder -> bytes. inputs, outputs: column -> its
    type in MLflow's words, or "[double]" for a list. example: input column -> a few values.
    """

    name: str
    code: bytes = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    example: Mapping[str, Sequence[Any]] = field(repr=False)
    requirements: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of the code and the files."""
        contents = {**self.files, "": self.code}
        return sha256(canonical({name: sha256(content) for name, content in contents.items()}))


def logged_model(client: Any, run_id: str, package: ModelPackage) -> Any:
    """The run's model with this content: one that is there, one half uploaded, or a new one."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    own = f"source_run_id = '{run_id}' AND tags.`{CONTENT_TAG}` = '{package.sha256}'"
    there = client.search_logged_models([experiment], filter_string=own)
    tags = {CONTENT_TAG: package.sha256}
    model = there[0] if there else client.create_logged_model(experiment, package.name, run_id, tags)
    if model.status == LoggedModelStatus.READY:
        return model
    with TemporaryDirectory() as folder:
        _write_model(Path(folder), package, model)
        client.log_model_artifacts(model.model_id, str(Path(folder, "model")))
    if not _has_output(client.get_run(run_id), model.model_id):
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _has_output(run: Any, model_id: str) -> bool:
    outputs = run.outputs.model_outputs if run.outputs else ()
    return any(output.model_id == model_id for output in outputs)


def _write_model(folder: Path, package: ModelPackage, model: Any) -> None:
    """The model as a folder `model`, as MLflow lays it out. Nothing is run or inferred: all is named.

    The module's name holds its hash, so that two models of different versions load in one process.
    """
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature

    module = f"{package.name}_{sha256(package.code)[:12]}"
    files = {f"files/{name}": content for name, content in package.files.items()}
    write_files(folder, files | {f"{module}.py": package.code})
    pyfunc.save_model(
        folder / "model",
        mlflow_model=Model(run_id=model.source_run_id, model_id=model.model_id, model_uuid=model.model_id),
        loader_module=module,
        data_path=str(folder / "files"),
        code_paths=[str(folder / f"{module}.py")],
        signature=ModelSignature(inputs=_schema(package.inputs), outputs=_schema(package.outputs)),
        input_example=pd.DataFrame(package.example),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in package.requirements],
    )


def _schema(columns: Mapping[str, str]) -> Any:
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    def kind(name: str) -> Any:
        return Array(DataType[name.strip("[]")]) if name.startswith("[") else DataType[name]

    return Schema([ColSpec(kind(of), name) for name, of in columns.items()])


def registered(client: Any, model: Any, name: str, alias: str) -> str:
    """`name/version` of the model in the registry, made if there is none; the alias then names it."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}' AND run_id = '{model.source_run_id}'")
    own = next((known for known in versions if known.tags.get(MODEL_TAG) == model.model_id), None)
    version = (own or _new_version(client, model, name)).version
    holder = client.get_registered_model(name).aliases.get(alias)
    if holder is None or int(holder) < int(version):  # a later run may have taken it
        client.set_registered_model_alias(name, alias, version)
    return f"{name}/{version}"


def _new_version(client: Any, model: Any, name: str) -> Any:
    """A version whose source is the place itself: models:/ID would be looked up at MLflow's default address."""
    created = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=model.source_run_id,
        model_id=model.model_id,
        tags={MODEL_TAG: model.model_id},
    )
    link = json.dumps([{"name": name, "version": created.version}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})  # shown on the model's page
    return created


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files by name below a folder, which is made."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
