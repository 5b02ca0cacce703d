"""A fast network as a folder: the same bytes for the same network, and config.json last."""

from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

from vtray.manifest import Json, canonical, sha256
from vtray.storage import Storage
from vtray.style.fast.load import CONFIG, GRAMS, MODEL, PREVIEW, THUMBNAILS, FastModel


def encode_fast(model: FastModel, *, thumbnails: Mapping[str, bytes], preview: bytes = b"") -> dict[str, bytes]:
    """The files of a model's folder, name -> bytes; config.json names the hashes of the weights.

    thumbnails: a PNG for each style by its name; preview: a PNG, left out if it is empty.
    """
    files = {MODEL: save(_contiguous(model.network.state_dict()))}
    config: Json = {
        **model.config,
        "engine": model.engine,
        "styles": list(model.styles),
        "model_sha256": sha256(files[MODEL]),
    }
    if model.grams:
        files[GRAMS] = save(_contiguous(model.grams))
        config["grams_sha256"] = sha256(files[GRAMS])
    files |= {f"{THUMBNAILS}/{name}.png": image for name, image in thumbnails.items()}
    files |= {PREVIEW: preview} if preview else {}
    return files | {CONFIG: canonical(config)}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().float().clone().contiguous() for name, tensor in tensors.items()}


def save_fast(storage: Storage, files: Mapping[str, bytes]) -> None:
    """Put the files of `encode_fast` at the root; config.json, which says that there is a model, comes last."""
    for name in sorted(files, key=lambda name: name == CONFIG):
        storage.put(name, files[name])
