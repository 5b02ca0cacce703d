"""The demo's feature extractor: the first five convolutions of VGG-19, slim, learned from drawings without labels.

Nothing is downloaded. Layer by layer, filters are turned and whitened principal components of 3x3 patches; seconds
are enough for oriented edges and colours, then their combinations. It is no substitute for trained weights.
Source: PCANet, Chan et al. 2015, arXiv 1404.3606. We turn the components by a random rotation, so that filters mix
orientation and colour, and use each filter with both signs (Shang et al. 2016, arXiv 1603.05201).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from vtray.seeding import rng_for
from vtray.style.networks import IMAGENET_MEAN, IMAGENET_STD, NETWORKS

NETWORK = "vgg19"
DEEPEST = "relu3_1"
WIDTHS = (16, 16, 32, 32, 64)  # filters of each convolution; VGG-19 has 64, 64, 128, 128, 256

Image = NDArray[np.uint8]

_SEED = 5  # of eight that were looked at, its rotations give the clearest strokes
_NUM_CROPS = 24  # of each group of images
_CROP_PX = 80
_NUM_PATCHES = 30_000
_FLAT = 1e-9  # variance of a component below which it holds nothing but rounding


def learn_extractor(
    groups: Sequence[Sequence[Image]], *, widths: Sequence[int] = WIDTHS, seed: int = _SEED
) -> dict[str, Tensor]:
    """Weights under VGG-19's keys (`features.0.weight` ...) as far as relu3_1; every activation has mean 1.

    groups: images, uint8 (H, W, 3) RGB; each group gives the same number of crops. widths: filters of each of the
    five convolutions, even numbers. The same arguments give the same tensors on one machine.

    Raises:
        ValueError: widths that cannot be learned, no images, or images without texture.
    """
    _check(groups, widths)
    rng = rng_for("extractor", seed)
    with _one_thread():
        return _learn_layers([crop for images in groups for crop in _crops(images, rng)], widths, rng)


def learn_filters(patches: Tensor, width: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Weight (width, C, 3, 3) and bias (width,) of a convolution, from patches (N, C, 3, 3).

    Before the ReLU, the first half of the filters is uncorrelated over the patches, the second half has the other
    sign; behind it, the mean of each is 1.

    Raises:
        ValueError: the patches have no more texture than fewer filters could tell.
    """
    flat = patches.flatten(1).double()
    middle = flat.mean(0)
    directions = _turn(width // 2, rng) @ _whitened_components(flat - middle, width // 2)
    weight = torch.cat([directions, -directions])
    bias = -weight @ middle
    strength = relu(flat @ weight.T + bias).mean(0)
    weight, bias = weight / strength[:, None], bias / strength
    return weight.float().view(width, *patches.shape[1:]), bias.float()


def write_extractor(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the weights as a .safetensors file, whole or not at all; equal tensors give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    note = {"learned_from": "drawings of vtray's demo, without labels"}  # of two entries the order would vary
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(save(dict(tensors), metadata=note))
    temporary.replace(path)


def _learn_layers(crops: Sequence[Image], widths: Sequence[int], rng: np.random.Generator) -> dict[str, Tensor]:
    features = _prepared(crops)
    wanted = iter(widths)
    tensors: dict[str, Tensor] = {}
    for layer in NETWORKS[NETWORK].up_to([DEEPEST]):
        if layer.kind == "pool":
            features = max_pool2d(features, layer.kernel, layer.stride)
        elif layer.kind == "conv":
            weight, bias = learn_filters(_patches(features, rng), next(wanted), rng)
            features = relu(conv2d(features, weight, bias, padding=1))
            tensors |= {f"features.{layer.index}.weight": weight, f"features.{layer.index}.bias": bias}
    return tensors


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order on any number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _whitened_components(centred: Tensor, number: int) -> Tensor:
    """The strongest principal components of (N, D), each scaled to give variance 1: (number, D)."""
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances, axes = variances.flip(0)[:number], axes.T.flip(0)[:number]
    if variances[-1] <= _FLAT:
        raise ValueError("the images are too flat: their patches have fewer directions than there are filters")
    largest = axes.abs().argmax(1, keepdim=True)  # an axis has no sign of its own, and libraries differ
    whitened: Tensor = axes * axes.gather(1, largest).sign() / variances.sqrt()[:, None]
    return whitened


def _turn(size: int, rng: np.random.Generator) -> Tensor:
    """A random rotation (or reflection) of that many dimensions, (size, size)."""
    turned, scale = np.linalg.qr(rng.standard_normal((size, size)))
    return torch.from_numpy(turned * np.sign(np.diag(scale)))


def _patches(features: Tensor, rng: np.random.Generator) -> Tensor:
    """Random 3x3 patches of features (B, C, H, W): (N, C, 3, 3)."""
    windows = features.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5)
    picks = [torch.from_numpy(rng.integers(0, size, _NUM_PATCHES)) for size in windows.shape[:3]]
    return windows[picks[0], picks[1], picks[2]]


def _crops(images: Sequence[Image], rng: np.random.Generator) -> Iterator[Image]:
    """Squares of any scale, turned and mirrored, half of them with exchanged colours."""
    for _ in range(_NUM_CROPS):
        image = images[int(rng.integers(len(images)))]
        rows, columns = image.shape[:2]
        side = int(min(rows, columns) * rng.uniform(0.25, 1))
        top, left = rng.integers(rows - side + 1), rng.integers(columns - side + 1)
        square = cv2.resize(
            image[top : top + side, left : left + side], (_CROP_PX, _CROP_PX), interpolation=cv2.INTER_AREA
        )
        square = np.rot90(square, int(rng.integers(4)))[:, :: rng.choice([-1, 1])]
        yield square[..., rng.permutation(3)] if rng.random() < 0.5 else square


def _prepared(images: Sequence[Image]) -> Tensor:
    """Images as the network takes them, (B, 3, H, W)."""
    pixels = np.stack(images).astype(np.float32) / 255
    pixels = (pixels - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _check(groups: Sequence[Sequence[Image]], widths: Sequence[int]) -> None:
    if not groups or not all(groups):
        raise ValueError("no images to learn from; give at least one in each group")
    if len(widths) != len(WIDTHS):
        raise ValueError(f"{len(widths)} widths; the network has {len(WIDTHS)} convolutions as far as {DEEPEST}")
    for width, channels in zip(widths, (3, *widths), strict=False):
        if width < 2 or width % 2 or width > 2 * 9 * channels:
            raise ValueError(f"a width is {width}; even numbers from 2 to {2 * 9 * channels} can be learned there")
