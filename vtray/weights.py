"""Weights of a network from a URI: found, hashed, opened without running any code in them, and looked over.

A URI is a local path, s3://bucket/key or torchvision:NAME; a file is .safetensors or what torch.save wrote, now or
before torch 1.6. torch is imported where tensors are made, so that the hash of a file costs no start-up.
"""

import difflib
import hashlib
import io
import logging
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vtray.errors import ConfigError, StorageMissing, WeightsError
from vtray.images.faults import has_signature, is_lfs_pointer
from vtray.storage import absolute_uri, is_local, local_path, open_storage, read_uri

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

TORCHVISION = "torchvision:"
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training programs keep the tensors
PARALLEL = "module."  # what DataParallel puts before every name
REPLACE = "copy or download it again"
SAVE_AGAIN = "save only the tensors, with torch.save(network.state_dict(), path) or as .safetensors"
HEAD_BYTES = 512

_OTHER_KINDS = (  # offset, first bytes, what a file that is no weights file is called
    (0, b"<", "a web page"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
)


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of one network by name, on the CPU; `uri` is what was asked for, `sha256` the file's hash."""

    tensors: dict[str, "Tensor"] = field(repr=False, compare=False)
    sha256: str
    uri: str


def load_weights(uri: str, *, model: str | None = None, sha256: str | None = None) -> Weights:
    """The weights at `uri`: tensors only, without wrapping keys and `module.` prefix, all finite, not all zero.

    `model` is torchvision's name of the network, for URIs such as torchvision:DEFAULT; elsewhere it is not used.
    `sha256` (64 hex digits) is compared before the file is opened.
    Raises: WeightsError (nothing there, or no usable weights); ConfigError (unknown name or scheme); StorageError.
    """
    expected = _checked_sha256(sha256)
    address, promised = _find(uri, model)
    with _opened(address) as file:
        digest = _digest(file, address, (promised, expected))
        content = _read(file, address)
    tensors = _named_tensors(content, address)
    _check_values(tensors, address)
    return Weights(tensors, digest, uri)


def weights_sha256(uri: str, *, model: str | None = None) -> str:
    """The SHA-256 of the file that `uri` names, 64 hex digits; no torch is imported for a local path or s3://.

    Raises: as load_weights, but only for what shows without opening the file.
    """
    address, promised = _find(uri, model)
    with _opened(address) as file:
        return _digest(file, address, (promised,))


# finding the file ------------------------------------------------------------------------------------------------


def _checked_sha256(sha256: str | None) -> str:
    if sha256 is None:
        return ""
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"sha256 {sha256!r} is not allowed; give the 64 hex digits that sha256sum prints")
    return sha256.lower()


def _find(uri: str, model: str | None) -> tuple[str, str]:
    """The absolute address of the file, and the start of its SHA-256 if its name promises one ("" if not)."""
    if uri.startswith(TORCHVISION):
        return _cached_file(uri, _torchvision_url(uri, model))
    if not is_local(uri) and not uri.startswith("s3://"):
        raise ConfigError(f"{uri}: no weights from there; allowed: a local path, s3://, {TORCHVISION}DEFAULT")
    return absolute_uri(uri), ""


def _torchvision_url(uri: str, model: str | None) -> str:
    """Where torchvision's published weights of that name are."""
    name = uri.removeprefix(TORCHVISION)
    if model is None and "." not in name:
        full = f"{TORCHVISION}ResNet50_Weights.DEFAULT"
        raise ConfigError(f"{uri}: weights of which model? Name the model too, or the weights in full: {full}")
    known = _torchvision_names(model)
    if name not in known:
        of_model, allowed = (f" of {model}", f"; allowed: {', '.join(known)}") if model else ("", "")
        raise ConfigError(f"{uri}: torchvision has no such weights{of_model}{_similar(name, known) or allowed}")
    url: str = known[name].url
    return url


def _torchvision_names(model: str | None) -> dict[str, Any]:
    """torchvision's weights entries by short and full name for one model, by full name for all."""
    from torchvision import models

    known = models.list_models()
    if model is not None and model not in known:
        raise ConfigError(f"{model}: not a model of torchvision{_similar(model, known)}")
    names: dict[str, Any] = {}
    for each in known if model is None else [model]:
        enum = models.get_model_weights(each)
        names |= {f"{enum.__name__}.{name}": entry for name, entry in enum.__members__.items()}
        if model is not None:
            names |= enum.__members__
    return names


def _cached_file(uri: str, url: str) -> tuple[str, str]:
    """As _find: the file in torch hub's folder, downloaded if it is not there; never a part of it."""
    import torch.hub

    name = PurePosixPath(urlsplit(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    match = re.search(r"-([0-9a-f]{8,64})\.", name)
    promised = match[1] if match else ""
    if path.is_file():
        return str(path), promised
    log.info("downloading %s to %s", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), promised or None, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:
        raise WeightsError(
            f"{uri}: {name} is not in {path.parent} and cannot be downloaded ({error}); "
            f"get {url} elsewhere and put it there as {name}, or give the path of a local file"
        ) from error
    return str(path), promised


def _similar(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


@contextmanager
def _opened(address: str) -> Iterator[IO[bytes]]:
    """The file, open for reading; an object of S3 is fetched whole."""
    if not is_local(address):
        try:
            content = read_uri(address)
        except StorageMissing as error:
            raise WeightsError(f"{address}: no such weights object; check bucket and key") from error
        yield io.BytesIO(content)
        return
    path = local_path(address)
    try:
        file = open_storage(str(path.parent)).open(path.name)
    except StorageMissing as error:
        raise WeightsError(_not_a_file(path)) from error
    with file:
        yield file


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        inside = sorted(item.name for item in path.iterdir() if item.is_file())
        return f"{path}: is a folder; name the weights file in it{_listed(inside)}"
    siblings: list[str] = []
    with suppress(OSError):  # no such folder, or one that may not be listed
        siblings = [item.name for item in path.parent.iterdir()]
    return f"{path}: no such weights file{_similar(path.name, siblings)}"


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""


# what the bytes say ----------------------------------------------------------------------------------------------


def _digest(file: IO[bytes], address: str, expected: Iterable[str]) -> str:
    """The file's SHA-256. Raises: WeightsError if it begins otherwise than `expected`, or the file is none."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise WeightsError(f"{address}: is empty (0 bytes); {REPLACE}")
    if is_lfs_pointer(head):
        raise WeightsError(f"{address}: is a git-lfs pointer, not the weights; run git lfs pull at its source")
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    for start in expected:
        if not digest.startswith(start):
            raise WeightsError(
                f"{address}: its sha256 is {digest}, expected {start}; it is another file or damaged: "
                "delete it and fetch it again, or correct the sha256"
            )
    return digest


def _read(file: IO[bytes], address: str) -> object:
    """What the file holds, by the format that its first bytes name. Raises: WeightsError."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    try:
        if head[4:9] == b"\0\0\0\0{":  # length of the JSON header, under 4 GiB, and its first letter
            return _read_safetensors(file, address)
        if head.startswith((b"PK\3\4", b"\x80")):  # a zip archive; a pickle
            return _read_torch(file, address)
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything: KeyError, AssertionError, ...
        raise WeightsError(f"{address}: {_fault(error)}") from error
    raise WeightsError(f"{address}: is not a weights file but {_kind(head)}; allowed: .safetensors, torch's .pth")


def _read_safetensors(file: IO[bytes], address: str) -> object:
    from safetensors.torch import load, load_file

    if not is_local(address):
        return load(file.read())
    # load_file maps the file into memory; a copy stays right when somebody changes or cuts the file later
    return {name: tensor.clone() for name, tensor in load_file(local_path(address)).items()}


def _read_torch(file: IO[bytes], address: str) -> object:
    import torch

    if file.read(2) == b"PK":
        _check_archive(file, address)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns about it refuses next, or it concerns its own past
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_archive(file: IO[bytes], address: str) -> None:
    """Refuse archives that torch.save did not write. Raises: WeightsError; zipfile.BadZipFile if cut short."""
    with zipfile.ZipFile(file) as archive:
        names = {PurePosixPath(name).name for name in archive.namelist()}
    if "constants.pkl" in names:
        raise WeightsError(f"{address}: is a TorchScript program; {SAVE_AGAIN}")
    if "data.pkl" not in names:
        raise WeightsError(f"{address}: is a zip archive that torch.save did not write; unpack it")


def _fault(error: Exception) -> str:
    """Why a file of a known format cannot be opened, and what to do."""
    if isinstance(error, pickle.UnpicklingError):
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            return f"needs Python code to open ({code[1]}) and is refused, as code can do anything; {SAVE_AGAIN}"
        return f"is damaged, or pickled in another way than torch.save does; {REPLACE}, or {SAVE_AGAIN}"
    return f"is cut short or damaged ({type(error).__name__}); {REPLACE}"


def _kind(head: bytes) -> str:
    if has_signature(head):
        return "an image"
    start = head.lstrip()
    named = (kind for offset, begin, kind in _OTHER_KINDS if start[offset:].startswith(begin))
    return next(named, f"begins with {head[:16]!r}")


# what the tensors say --------------------------------------------------------------------------------------------


def _named_tensors(content: object, address: str) -> dict[str, "Tensor"]:
    """The tensors under their plain names; wrapping keys, other entries and the `module.` prefix are gone."""
    from torch import Tensor

    for _ in WRAPPERS:  # no file nests all of them; an entry that holds itself must not turn for ever
        inner = [content[key] for key in WRAPPERS if isinstance(content, Mapping) and key in content]
        content = next((each for each in inner if isinstance(each, Mapping)), content)
    entries = content if isinstance(content, Mapping) else {}
    tensors = {
        name: each.detach() for name, each in entries.items() if isinstance(each, Tensor) and isinstance(name, str)
    }
    if not tensors:
        held = _listed([str(name) for name in entries]) or f" (a {type(content).__name__})"
        raise WeightsError(f"{address}: holds no named tensors{held}; {SAVE_AGAIN}")
    if all(name.startswith(PARALLEL) for name in tensors):
        return {name.removeprefix(PARALLEL): tensor for name, tensor in tensors.items()}
    return tensors


def _check_values(tensors: Mapping[str, "Tensor"], address: str) -> None:
    """Refuse weights that no training left: NaN, infinity, or zero in every kernel (tensor of 2 or more axes)."""
    peaks = {
        name: _peak(tensor) for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()
    }
    broken = [name for name, peak in peaks.items() if not math.isfinite(peak)]
    if broken:
        raise WeightsError(
            f"{address}: NaN or infinity in {len(broken)} tensors{_listed(broken)}; use other weights"
        )
    kernels = [name for name in peaks if tensors[name].ndim >= 2] or list(peaks)
    if kernels and not any(peaks[name] for name in kernels):
        raise WeightsError(f"{address}: weights all zero{_listed(kernels)}; use other weights")


def _peak(tensor: "Tensor") -> float:
    """The largest absolute value; NaN if there is one."""
    low, high = tensor.aminmax()
    return max(-float(low), float(high))
