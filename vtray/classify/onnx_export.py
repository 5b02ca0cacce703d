"""A model as one ONNX file for other runtimes: pixels in, logits and probabilities out, any number of images.

The file says what it needs to be used: class names and preprocessing are in its metadata.
"""

import json
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from vtray.classify.model_dir import Model
from vtray.errors import ConfigError

NEEDED = ("onnx", "onnxscript")
LOGITS, PROBABILITIES = "logits", "probabilities"
OPSET = 18  # of 2022: known to every runtime of today


class _Exported(nn.Module):
    """What the file computes. Inputs: float (B, 3, H, W) normalised pixels, or uint8 ones that it normalises."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, *, normalise: bool) -> None:
        super().__init__()
        self.network = model.classifier.network  # traced by stages, a ViT gets a fixed number of images
        self.temperature = model.temperature
        preprocessing = model.preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.normalise = normalise

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (inputs.float() / 255 - self.mean) / self.std if self.normalise else inputs
        logits = self.network(pixels)
        return logits, (logits / self.temperature).softmax(dim=1)


def export_onnx(model: Model, *, with_preprocessing: bool = False) -> bytes:
    """The file. Its input is `pixels`, float32 (B, 3, crop_px, crop_px) scaled to 0..1 and normalised with the
    model's mean and std; with_preprocessing: `images`, uint8 RGB of the same shape, which it normalises itself.
    Resizing and cropping stay outside. Outputs: logits and probabilities, float32 (B, K).

    metadata_props: classes (JSON list), preprocessing (JSON, as preprocess.json), temperature, sha256.
    Raises: ConfigError if the packages of the extra are not installed.
    """
    require_onnx()
    name = "images" if with_preprocessing else "pixels"
    program = _program(
        _Exported(model, normalise=with_preprocessing).eval(), _example(model, with_preprocessing), name
    )
    program.model.metadata_props.update(_metadata(model))
    encoded: bytes = program.model_proto.SerializeToString()
    return encoded


def require_onnx() -> None:
    """Raises: ConfigError if a package is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"export needs {' and '.join(missing)}; install them: pip install 'vtray[onnx]'")


def _example(model: Model, with_preprocessing: bool) -> Tensor:
    shape = (
        2,
        3,
        model.preprocessing.crop_px,
        model.preprocessing.crop_px,
    )  # a batch of 1 would be taken for fixed
    return torch.zeros(shape, dtype=torch.uint8 if with_preprocessing else torch.float32)


def _program(module: nn.Module, example: Tensor, name: str) -> Any:
    """torch's exporter; its warnings are about its own insides."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            module,
            (example,),
            input_names=[name],
            output_names=[LOGITS, PROBABILITIES],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )


def _metadata(model: Model) -> dict[str, str]:
    preprocessing = {"backbone": model.classifier.backbone} | model.preprocessing.to_json()
    return {
        "classes": json.dumps(list(model.classes), ensure_ascii=False),
        "preprocessing": json.dumps(preprocessing),
        "temperature": json.dumps(model.temperature),
        "sha256": model.sha256,
    }
