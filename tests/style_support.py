"""A tiny network and a small painting, and short ways to run the stylize job with them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipelines.stylize_config import StylizeConfig

SHAPES = {0: (3, 8), 2: (8, 8), 5: (8, 12), 7: (12, 12), 10: (12, 16)}  # VGG-19's convolutions to conv3_1, narrow


def write_weights(path: Path, *, scale: float = 1.0) -> Path:
    """Random weights with VGG-19's names, to conv3_1; the same every time."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for index, (before, after) in SHAPES.items():
        kernels = torch.randn(after, before, 3, 3, generator=random) * scale * (2 / (9 * before)) ** 0.5
        tensors |= {f"features.{index}.weight": kernels, f"features.{index}.bias": torch.zeros(after)}
    torch.save(tensors, path)
    return path


def write_painting(path: Path, *, height: int = 48, width: int = 64) -> Path:
    """Diagonal stripes in two colours."""
    rows, columns = np.mgrid[0:height, 0:width]
    stripes = ((rows + columns) // 5 % 2)[..., None]
    Image.fromarray(np.where(stripes, [240, 180, 40], [20, 40, 120]).astype(np.uint8)).save(path)
    return path


def stylize_config(source, output, /, *, weights, painting, **values) -> StylizeConfig:
    """A config of four steps on the tiny network; `values` on top, sections merged."""
    settings = {
        "input": {"uri": str(source)},
        "output": {"uri": str(output)},
        "style": {"uri": str(painting)},
        "features": {"weights": str(weights), "precision": "fp32", "layout": "nchw"},
        "engine": {"steps": 4, "levels": 1, "tolerance": 0},
        "units": {"max_images": 4},
        "tracking": {"uri": "none"},
        "use_gpu": False,
    }
    for name, value in values.items():
        both = isinstance(value, dict) and isinstance(settings.get(name), dict)
        settings[name] = settings[name] | value if both else value
    return StylizeConfig.model_validate(settings)
