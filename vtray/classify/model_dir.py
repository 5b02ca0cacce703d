"""A trained classifier as a folder: weights, the names of its classes, and how images are made ready for it.

model.safetensors has torchvision's parameter names; its header names the hash of the class list, so that labels of
another model are refused also where their number fits.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from vtray.classify.backbone import Classifier, build_classifier, load_weights_into, num_classes_in
from vtray.classify.preprocessing import Preprocessing
from vtray.errors import ConfigError, StorageMissing, WeightsError
from vtray.manifest import Json, canonical, sha256
from vtray.storage import Storage, absolute_uri, join_uri, open_storage
from vtray.weights import Weights, load_weights

WEIGHTS, LABELS, PREPROCESS, CONFIG = "model.safetensors", "labels.json", "preprocess.json", "config.yaml"
NEEDED = (WEIGHTS, LABELS, PREPROCESS)
FOLDER = "model"  # where a finetune run keeps it in its output
HEADER = "vtray"  # the only key of the header's metadata: safetensors writes several in any order


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A classifier with what belongs to it.

    classifier: fp32, in eval mode. classes: names in the order of its outputs. temperature: logits are divided by
    it before the softmax. sha256 of model.safetensors, and the folder it was read from: empty for a model that was
    not read.
    """

    classifier: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float = 1.0
    sha256: str = ""
    uri: str = ""
    device: str = "cpu"

    def to(self, device: str) -> "Model":
        """The same model on another device; its network moves."""
        return replace(self, classifier=self.classifier.to(device), device=device)

    @torch.inference_mode()
    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 (B, H, W, 3) crops of the preprocessing -> float32 (B, K) on the CPU, before the temperature."""
        planes = torch.tensor(images, device=self.device).permute(0, 3, 1, 2)
        logits: Tensor = self.classifier(self.preprocessing.pixels(planes))
        return logits.float().cpu()

    def describe(self) -> Json:
        """What decides its answers, as JSON values: equal for equal models, wherever they are."""
        return {
            "backbone": self.classifier.backbone,
            "weights_sha256": self.sha256,
            "classes_sha256": classes_sha256(self.classes),
            "preprocessing": self.preprocessing.digest(),
            "temperature": self.temperature,
        }

    @property
    def digest(self) -> str:
        """The hash of `describe`."""
        return sha256(canonical(self.describe()))


def classes_sha256(classes: tuple[str, ...]) -> str:
    """The hash of a class list: its names and their order."""
    return sha256(json.dumps(list(classes), ensure_ascii=False).encode())


def encode_model(model: Model, *, config_yaml: bytes = b"") -> dict[str, bytes]:
    """The files of a model's folder: name -> bytes, the same for the same model.

    labels.json holds classes, their hash and the temperature; preprocess.json the backbone and how to make images
    ready; config.yaml how the model was trained, if that is known.
    """
    listed = classes_sha256(model.classes)
    labels = {"classes": list(model.classes), "sha256": listed, "temperature": model.temperature}
    preprocess = {"backbone": model.classifier.backbone} | model.preprocessing.to_json()
    files = {
        WEIGHTS: save(_state(model), metadata={HEADER: json.dumps({"classes_sha256": listed})}),
        LABELS: canonical(labels),
        PREPROCESS: canonical(preprocess),
    }
    return files | ({CONFIG: config_yaml} if config_yaml else {})


def _state(model: Model) -> dict[str, Tensor]:
    """The network's tensors; each a copy, for safetensors refuses tensors that share their memory."""
    return {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in model.classifier.network.state_dict().items()
    }


def save_model(storage: Storage, model: Model, *, config_yaml: bytes = b"") -> dict[str, bytes]:
    """Put the files of `encode_model` at the storage's root and return them; labels.json, which says that there is
    a model, comes last."""
    files = encode_model(model, config_yaml=config_yaml)
    for name in sorted(files, key=lambda name: name == LABELS):
        storage.put(name, files[name])
    return files


def load_model(uri: str) -> Model:
    """The model in a folder, local or s3://, or in the output of a finetune run, whose `model/` is read.

    Raises: WeightsError if it is missing, incomplete or damaged, or its files belong to different models;
    ConfigError for a backbone or an address that is not known; StorageError.
    """
    storage = _find(absolute_uri(uri))
    labels, preprocess = _read_json(storage, LABELS), _read_json(storage, PREPROCESS)
    classes, temperature = _labels_of(labels, storage)
    backbone, preprocessing = _preprocessing_of(preprocess, storage)
    address = join_uri(storage.uri, WEIGHTS)
    weights = load_weights(address)
    _require_own_labels(storage, classes)
    classifier = _classifier(backbone, weights, num_classes=len(classes))
    return Model(
        classifier=classifier,
        classes=classes,
        preprocessing=preprocessing,
        temperature=temperature,
        sha256=weights.sha256,
        uri=storage.uri,
    )


def _find(uri: str) -> Storage:
    """The folder that holds the model's files. Raises: WeightsError if there is none, or one is missing."""
    for place in (uri, join_uri(uri, FOLDER)):
        storage = open_storage(place)
        there = [name for name in NEEDED if storage.exists(name)]
        if len(there) == len(NEEDED):
            return storage
        if there:
            missing = ", ".join(name for name in NEEDED if name not in there)
            raise WeightsError(f"{place}: a model without {missing}; copy the whole folder again")
    raise WeightsError(
        f"{uri}: no model there; name a folder with {', '.join(NEEDED)}, or the output of a finished finetune"
    )


def _read_json(storage: Storage, name: str) -> Json:
    try:
        values = json.loads(storage.read(name))
    except StorageMissing as error:
        raise WeightsError(f"{join_uri(storage.uri, name)}: no such file; copy the whole folder again") from error
    except ValueError as error:
        raise WeightsError(f"{join_uri(storage.uri, name)}: not valid JSON; copy the folder again") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{join_uri(storage.uri, name)}: holds no JSON object; copy the folder again")
    return values


def _labels_of(labels: Json, storage: Storage) -> tuple[tuple[str, ...], float]:
    """Class names and temperature. Raises: WeightsError if they are not what was written."""
    address = join_uri(storage.uri, LABELS)
    names = labels.get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise WeightsError(f'{address}: "classes" is no list of names; copy the folder again')
    classes = tuple(names)
    if labels.get("sha256") != classes_sha256(classes):
        raise WeightsError(
            f"{address}: the class list does not fit its sha256; it was changed by hand. The order of the names "
            "decides what each output of the network means: copy the file again"
        )
    temperature = labels.get("temperature", 1.0)
    if not isinstance(temperature, int | float) or not 0 < temperature < float("inf"):
        raise WeightsError(f"{address}: temperature {temperature!r} is not allowed; allowed: > 0")
    return classes, float(temperature)


def _preprocessing_of(values: Json, storage: Storage) -> tuple[str, Preprocessing]:
    """Backbone and preprocessing. Raises: WeightsError if something is missing."""
    rest = dict(values)
    try:
        backbone = rest.pop("backbone")
        return str(backbone), Preprocessing.from_json(rest)
    except (KeyError, TypeError, ConfigError) as error:
        address = join_uri(storage.uri, PREPROCESS)
        raise WeightsError(f"{address}: not what vtray writes ({error}); copy the folder again") from error


def _require_own_labels(storage: Storage, classes: tuple[str, ...]) -> None:
    """Raises: WeightsError if the weights were saved with another class list."""
    wanted = _header(storage).get("classes_sha256", classes_sha256(classes))
    if wanted != classes_sha256(classes):
        raise WeightsError(
            f"{join_uri(storage.uri, LABELS)}: labels of another model: {WEIGHTS} was saved with the class list "
            f"{wanted[:12]}, this one is {classes_sha256(classes)[:12]}; copy both files from the same folder"
        )


def _header(storage: Storage) -> dict[str, Any]:
    """What vtray wrote into the header of the weights; empty for weights that another program saved."""
    size = int.from_bytes(storage.read(WEIGHTS, start=0, end=8), "little")
    header = json.loads(storage.read(WEIGHTS, start=8, end=8 + size))
    written: dict[str, Any] = json.loads(header.get("__metadata__", {}).get(HEADER, "{}"))
    return written


def _classifier(backbone: str, weights: Weights, *, num_classes: int) -> Classifier:
    """The network with its weights, in eval mode. Raises: WeightsError, ConfigError for an unknown backbone."""
    with torch.random.fork_rng(devices=[]):  # the random weights that are replaced at once
        classifier = build_classifier(backbone, num_classes=num_classes)
    outputs = num_classes_in(weights.tensors, classifier)
    if outputs not in (None, num_classes):
        raise WeightsError(
            f"{weights.uri}: labels of another model: {LABELS} beside it names {num_classes} classes and the "
            f"network has {outputs} outputs; copy both files from the same folder"
        )
    load_weights_into(classifier, weights.tensors, uri=weights.uri, head=True)
    return classifier.eval().requires_grad_(requires_grad=False)
