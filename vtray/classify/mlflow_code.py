"""Runs a vtray model where vtray is not: this file travels inside the MLflow model and imports nothing of ours.

It needs torch, torchvision, safetensors, pandas and Pillow, reads the files that model_dir.py writes, and gives
the same probabilities. MLflow calls `_load_pyfunc`.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors.torch import load_file
from torchvision import models

BATCH_SIZE = 32
LONGEST_PX = 16384  # of a longer strip only the middle is resized
WHITE = (255, 255, 255)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> "ImageClassifier":
    """The model in that folder; `model_config` may name a `device` other than the CPU."""
    return ImageClassifier(Path(path), device=(model_config or {}).get("device", "cpu"))


class ImageClassifier:
    """Encoded images in, class names and probabilities out."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.classes, self.temperature = labels["classes"], labels["temperature"]
        self.preprocess = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
        self.device = device
        network = _build(self.preprocess["backbone"], num_classes=len(self.classes))
        network.load_state_dict(load_file(folder / "model.safetensors"))
        self.network = network.to(device).eval()

    def predict(self, table: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Column `image` (bytes of a JPEG, PNG, WebP ... file) -> one row for each image, in order.

        class_name; its probability; probabilities: list of K floats in the order of labels.json.
        Raises: ValueError naming the row of an image that cannot be read.
        """
        crops = [self._crop(encoded, row) for row, encoded in enumerate(table["image"])]
        starts = range(0, len(crops), BATCH_SIZE)
        shares = [self._probabilities(crops[start : start + BATCH_SIZE]) for start in starts]
        rows = np.concatenate(shares) if shares else np.empty((0, len(self.classes)))
        return pd.DataFrame(
            {
                "class_name": pd.Series([self.classes[best] for best in rows.argmax(axis=1)], dtype=object),
                "probability": rows.max(axis=1),
                "probabilities": pd.Series(rows.tolist(), dtype=object),
            }
        )

    @torch.inference_mode()
    def _probabilities(self, crops: list[np.ndarray]) -> np.ndarray:
        """uint8 (H, W, 3) each -> float64 (B, K)."""
        mean, std = (torch.tensor(self.preprocess[name]).view(3, 1, 1) for name in ("mean", "std"))
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        logits = self.network(((pixels - mean) / std).to(self.device)).double().cpu()
        return np.asarray((logits / self.temperature).softmax(dim=1))

    def _crop(self, encoded: bytes, row: int) -> np.ndarray:
        """The middle of the image at the network's size, uint8 (crop_px, crop_px, 3)."""
        try:
            image = _upright_rgb(encoded)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise ValueError(f"image in row {row}: {type(error).__name__}: {error}") from error
        return _middle(self._resized(image), self.preprocess["crop_px"])

    def _resized(self, image: Image.Image) -> Image.Image:
        """The shorter side becomes resize_px, by Pillow's resampling, which smooths before it shrinks."""
        kept = [_kept(side, min(image.size), self.preprocess["resize_px"]) for side in image.size]
        size, (left, top) = [pixels for _, pixels in kept], [cut for cut, _ in kept]
        box = (left, top, image.width - left, image.height - top)
        return image.resize(size, Image.Resampling[self.preprocess["interpolation"].upper()], box=box)


def _kept(side: int, shorter: int, resize_px: int) -> tuple[float, int]:
    """What is cut at both ends of a side, nothing but for long strips, and the pixels that the rest gets."""
    scaled = int(resize_px * side / shorter)
    kept = min(scaled, LONGEST_PX)
    return side * (1 - kept / scaled) / 2, kept


def _build(backbone: str, *, num_classes: int) -> torch.nn.Module:
    """torchvision's network as vtray builds it."""
    options: dict[str, Any] = {}
    if backbone in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False, "transform_input": True}
    network: torch.nn.Module = models.get_model(backbone, weights=None, num_classes=num_classes, **options)
    return network


def _upright_rgb(encoded: bytes) -> Image.Image:
    """The first picture of a file, turned as its EXIF says, on white where it is transparent."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*WHITE, 255)), rgba).convert("RGB")


def _middle(image: Image.Image, size_px: int) -> np.ndarray:
    """The middle size_px x size_px, black where the image is smaller; uint8 (H, W, 3)."""
    left, top = (_offset(side, size_px) for side in image.size)
    return np.asarray(image.crop((left, top, left + size_px, top + size_px)))


def _offset(side: int, size_px: int) -> int:
    """Where the middle begins, rounded as torchvision does it, for larger and for smaller images."""
    return round((side - size_px) / 2) if side >= size_px else -((size_px - side) // 2)
