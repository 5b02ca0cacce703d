"""Fast networks from a model directory that `train-style` wrote, or from a published file of the same networks.

A model directory holds model.safetensors, config.json, preview.png, thumbnails/NAME.png for each style and, for
`msgnet`, grams.safetensors with what stands for each style.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from torch import Tensor

from vtray.errors import ConfigError, StorageMissing, WeightsError
from vtray.manifest import Json
from vtray.storage import Storage, absolute_uri, is_local, join_uri, local_path, open_storage
from vtray.style.fast.keys import FastEngine, engine_of, in_rgb, network_of, renamed
from vtray.style.fast.msgnet import EXPANSION, MsgNet
from vtray.style.fast.transformer import TransformerNet
from vtray.weights import load_weights

MODEL, CONFIG, GRAMS = "model.safetensors", "config.json", "grams.safetensors"
PREVIEW, THUMBNAILS = "preview.png", "thumbnails"
FOLDER = "model"  # where `train-style` keeps it in its output
ENGINES: tuple[FastEngine, ...] = ("feedforward", "msgnet")
SUFFIXES = (".safetensors", ".pth", ".pt", ".model", ".tar", ".bin")


@dataclass(frozen=True, kw_only=True, eq=False)
class FastModel:
    """A trained network in fp32 and eval mode, on the CPU, with the styles that it knows.

    styles: names; a published MSG-Net has none, and takes the Gram matrix of any image. grams: what stands for
    each style, name -> (1, C, C), and NAME@PX for other brush sizes; empty for `feedforward`. sha256 of the
    weights file; uri: the folder or file. config: what config.json holds.
    """

    engine: FastEngine
    network: TransformerNet | MsgNet
    styles: tuple[str, ...]
    grams: Mapping[str, Tensor] = field(default_factory=dict)
    sha256: str = ""
    uri: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def load_fast(uri: str, sha256: str | None = None) -> FastModel:
    """The model in a folder, local or s3://, in the output of a `train-style` run, or in one published file.

    sha256: of the weights file, compared if it is given.
    Raises: WeightsError if it is missing, incomplete, damaged or no such network; ConfigError; StorageError.
    """
    address = absolute_uri(uri)
    return _load_file(address, sha256) if _is_file(address) else _load_folder(_find(address), sha256)


def _is_file(address: str) -> bool:
    if is_local(address):
        path = local_path(address)
        return path.is_file() or (path.suffix in SUFFIXES and not path.is_dir())
    return PurePosixPath(address).suffix in SUFFIXES


def _load_file(address: str, sha256: str | None) -> FastModel:
    weights = load_weights(address, sha256=sha256)
    tensors = renamed(weights.tensors, uri=address)
    engine = engine_of(tensors, uri=address)
    network = network_of(tensors, engine, uri=address)
    return FastModel(
        engine=engine,
        network=in_rgb(network) if isinstance(network, MsgNet) else network,
        styles=(PurePosixPath(address).stem,) if engine == "feedforward" else (),
        sha256=weights.sha256,
        uri=address,
    )


def _find(address: str) -> Storage:
    """The folder with the model. Raises: WeightsError if there is none."""
    for place in (address, join_uri(address, FOLDER)):
        storage = open_storage(place)
        if storage.exists(CONFIG):
            return storage
    raise WeightsError(
        f"{address}: no fast style model there; name a folder with {MODEL} and {CONFIG}, the output of a finished "
        "train-style, or a weights file"
    )


def _load_folder(storage: Storage, sha256: str | None) -> FastModel:
    config = _read_config(storage)
    engine, styles = _engine(config, storage), _styles(config, storage)
    address = join_uri(storage.uri, MODEL)
    weights = load_weights(address, sha256=sha256)
    _require_own(config, "model_sha256", weights.sha256, address)
    network = network_of(renamed(weights.tensors, uri=address), engine, uri=address)
    return FastModel(
        engine=engine,
        network=network,
        styles=styles,
        grams=_grams(config, storage, styles, network) if isinstance(network, MsgNet) else {},
        sha256=weights.sha256,
        uri=storage.uri,
        config=config,
    )


def _read_config(storage: Storage) -> Json:
    address = join_uri(storage.uri, CONFIG)
    try:
        config = json.loads(storage.read(CONFIG))
    except StorageMissing as error:
        raise WeightsError(f"{address}: no such file; copy the whole folder again") from error
    except ValueError as error:
        raise WeightsError(f"{address}: not valid JSON; copy the folder again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{address}: holds no JSON object; copy the folder again")
    return config


def _engine(config: Json, storage: Storage) -> FastEngine:
    named = config.get("engine")
    for engine in ENGINES:
        if engine == named:
            return engine
    raise ConfigError(
        f"{join_uri(storage.uri, CONFIG)}: engine {named!r} is no fast network of vtray; "
        f"allowed: {', '.join(ENGINES)}"
    )


def _styles(config: Json, storage: Storage) -> tuple[str, ...]:
    names = config.get("styles")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise WeightsError(f'{join_uri(storage.uri, CONFIG)}: "styles" is no list of names; copy the folder again')
    return tuple(names)


def _require_own(config: Json, key: str, sha256: str, address: str) -> None:
    """Raises: WeightsError for a file that belongs to another config.json."""
    if config.get(key, sha256) != sha256:
        raise WeightsError(
            f"{address}: belongs to another model: its sha256 is {sha256[:12]}, {CONFIG} beside it says "
            f"{str(config[key])[:12]}; copy the whole folder again"
        )


def _grams(config: Json, storage: Storage, styles: tuple[str, ...], network: MsgNet) -> dict[str, Tensor]:
    address = join_uri(storage.uri, GRAMS)
    weights = load_weights(address)
    _require_own(config, "grams_sha256", weights.sha256, address)
    channels = network.filters * EXPANSION
    for name in dict.fromkeys((*styles, *weights.tensors)):
        shape = tuple(weights.tensors[name].shape) if name in weights.tensors else None
        if shape != (1, channels, channels):
            found = "is missing" if shape is None else f"has shape {shape}, expected (1, {channels}, {channels})"
            raise WeightsError(f"{address}: the Gram matrix of style {name!r} {found}; copy the folder again")
    return {name: gram.float() for name, gram in sorted(weights.tensors.items())}
