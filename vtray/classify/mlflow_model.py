"""A vtray model as MLflow keeps it: its own files, and a module that runs them where vtray is not installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtray.images import encode
from vtray.tracking_model import ModelPackage

CODE = Path(__file__).with_name("mlflow_code.py")
OUTPUTS = {"class_name": "string", "probability": "double", "probabilities": "[double]"}
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "safetensors", "torch", "torchvision")


def mlflow_model(files: Mapping[str, bytes], examples: Sequence[NDArray[np.uint8]]) -> ModelPackage:
    """The package of a model for `Tracker.log_model`.

    files: name -> bytes of the model's folder, as `model_dir.encode_model` gives them. examples: uint8 (H, W, 3)
    images of any size, one or more; they are stored with the model, so give small ones.
    """
    return ModelPackage(
        name="classifier",
        code=CODE.read_bytes(),
        files=files,
        inputs={"image": "binary"},
        outputs=OUTPUTS,
        example={"image": [encode(image, format="jpeg") for image in examples]},
        requirements=REQUIREMENTS,
    )
