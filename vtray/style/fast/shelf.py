"""Model directories below a folder, read without torch: what each is called, its engine, styles and pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from vtray.errors import StorageError
from vtray.manifest import Json
from vtray.storage import Storage, join_uri

CONFIG, PREVIEW, THUMBNAILS = "config.json", "preview.png", "thumbnails"
TRAINED_FOLDER = "/model"  # where train-style keeps the model in its output


@dataclass(frozen=True, kw_only=True)
class ShelvedModel:
    """One model directory. name: its place below the folder; uri: for `engine.model`.

    thumbnails: style -> PNG, of those that have one. preview: PNG, empty if there is none. config: as it stands.
    """

    name: str
    uri: str
    engine: str
    styles: tuple[str, ...]
    config: Json
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    preview: bytes = b""


def find_models(storage: Storage) -> list[ShelvedModel]:
    """All models below the root, by name. Folders with another kind of config.json are left out."""
    keys = {entry.key for entry in storage.list()}
    places = sorted(key.removesuffix(CONFIG).rstrip("/") for key in keys if f"/{key}".endswith(f"/{CONFIG}"))
    models = (_model(storage, place, keys) for place in places)
    return [model for model in models if model is not None]


def _model(storage: Storage, place: str, keys: set[str]) -> ShelvedModel | None:
    start = f"{place}/" if place else ""
    try:
        config = json.loads(storage.read(f"{start}{CONFIG}"))
    except (StorageError, ValueError):  # gone meanwhile, or of another program
        return None
    if not isinstance(config, dict) or not isinstance(config.get("styles"), list) or "engine" not in config:
        return None
    styles = tuple(str(name) for name in config["styles"])
    pictures = {name: f"{start}{THUMBNAILS}/{name}.png" for name in styles}
    return ShelvedModel(
        name=f"/{place}".removesuffix(TRAINED_FOLDER).strip("/") or ".",
        uri=join_uri(storage.uri, place) if place else storage.uri,
        engine=str(config["engine"]),
        styles=styles,
        config=config,
        thumbnails={name: storage.read(key) for name, key in pictures.items() if key in keys},
        preview=storage.read(f"{start}{PREVIEW}") if f"{start}{PREVIEW}" in keys else b"",
    )
