"""Where in an image a classifier sees a class: Grad-CAM, and the picture of it.

B images, C channels, H rows, W columns; h, w rows and columns of the network's last map.
"""

import math
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtray.classify.backbone import Classifier
from vtray.errors import ConfigError

OPACITY = 0.7

Image = NDArray[np.uint8]


def grad_cam(classifier: Classifier, pixels: Tensor, classes: Tensor) -> Tensor:
    """What speaks for a class, by place: float32 (B, h, w), 0 to 1, on the device of the pixels.

    pixels: normalised, (B, 3, H, W); classes: int64 (B,). The largest value of an image is 1, or 0 if no place
    speaks for the class. The map is the last one before the pooling; of a network of tokens it is the patches that
    enter the last block, since of those that leave it only the class token is read. The classifier stays as it is.
    Raises: ConfigError if no stage of the network keeps places apart.
    Source: Selvaraju et al. 2017, "Grad-CAM"; for tokens the layer is that of jacobgil/pytorch-grad-cam.
    """
    training = classifier.training
    classifier.eval()
    try:
        with torch.inference_mode(False):
            boundary = map_boundary(classifier, pixels[:1])
            return _heat(*_map_and_slope(classifier, pixels, classes, boundary))
    finally:
        classifier.train(training)


def map_boundary(classifier: Classifier, pixels: Tensor) -> int:
    """How many stages lie before the map that is looked at; `pixels` (1, 3, H, W) tell its size.

    Raises: ConfigError if there is no such map.
    """
    for stop in range(len(classifier.stage_names), 0, -1):
        with torch.no_grad():
            activations = classifier.prefix(pixels, stop)
        if activations.ndim == 4 and activations.shape[2:].numel() > 1:
            return stop
        if activations.ndim == 3 and stop > 1:
            return stop - 1
    raise ConfigError(
        f"{classifier.backbone}: no stage keeps more than one place of {tuple(pixels.shape[2:])} pixels apart, so "
        "there is no Grad-CAM; use larger images or another backbone"
    )


def overlay(image: Image, heat: Tensor | NDArray[np.floating[Any]], *, opacity: float = OPACITY) -> Image:
    """The image, uint8 (H, W, 3) RGB, with (h, w) heat in 0 to 1 drawn over the whole of it, in a new array.

    Heat goes from violet through red to light yellow (inferno: brightness grows evenly) and hides what is below by
    up to `opacity`; places without heat stay as they are. The image is the crop that the network saw.
    """
    values = heat.detach().float().cpu().numpy() if isinstance(heat, Tensor) else np.asarray(heat, np.float32)
    height, width = image.shape[:2]
    smooth = np.clip(cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    levels = np.rint(255 * smooth).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = opacity * smooth[:, :, None]
    drawn: Image = np.rint(image + share * (colours.astype(np.float32) - image)).astype(np.uint8)
    return drawn


def _map_and_slope(
    classifier: Classifier, pixels: Tensor, classes: Tensor, boundary: int
) -> tuple[Tensor, Tensor]:
    """The activations at the boundary and the slope of each image's class logit by them, (B, C, h, w) both."""
    with torch.no_grad():
        activations = classifier.prefix(pixels, boundary)
    with torch.enable_grad():
        leaf = activations.detach().requires_grad_()
        logits = classifier(leaf, start=boundary)
        score = logits.gather(1, classes.to(logits.device)[:, None]).sum()  # images do not mix
        (slope,) = torch.autograd.grad(score, leaf)
    return _as_map(activations), _as_map(slope)


def _as_map(activations: Tensor) -> Tensor:
    """(B, C, h, w) as it is; (B, 1 + h * w, C) tokens without the class token, in rows of a square."""
    if activations.ndim == 4:
        return activations
    side = math.isqrt(activations.shape[1] - 1)
    return activations[:, 1:].transpose(1, 2).reshape(len(activations), -1, side, side)


def _heat(activations: Tensor, slope: Tensor) -> Tensor:
    """Channels weighed by their mean slope, what speaks against the class cut off, the largest made 1."""
    weights = slope.float().mean((2, 3), keepdim=True)
    heat = (weights * activations.float()).sum(1).relu()
    peak = heat.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, heat / peak, 0)
