"""The learned extractor: VGG-19's keys, uncorrelated filters of both signs, mean 1 of each, always the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from vtray.demo.extractor import NETWORK, WIDTHS, learn_extractor, learn_filters, write_extractor
from vtray.demo.painting import draw_painting
from vtray.seeding import rng_for
from vtray.style.features import FeatureExtractor
from vtray.style.losses import gram_matrix, style_loss
from vtray.style.pixels import to_pixels
from vtray.style.work import FeatureSpec

LAYERS = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1")
NUM_PATCHES = 4000


@pytest.fixture(scope="module")
def painting() -> np.ndarray:
    return draw_painting(height=128, width=128)


@pytest.fixture(scope="module")
def tensors(painting: np.ndarray) -> dict[str, torch.Tensor]:
    return learn_extractor([[painting]])


@pytest.fixture(scope="module")
def extractor(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    """The weights as the stylize job reads them, from the file."""
    path = tmp_path_factory.mktemp("weights") / "extractor.safetensors"
    write_extractor(path, tensors)
    spec = FeatureSpec(
        network=NETWORK, weights_uri=str(path), weights_sha256="", content_layers=(), style_layers=LAYERS
    )
    return FeatureExtractor.load(spec)


def correlated_patches() -> torch.Tensor:
    """Patches (N, 1, 3, 3) whose nine pixels are mixtures of nine sources of strengths 9, 8, ... 1."""
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    sources = rng.standard_normal((NUM_PATCHES, 9)) * np.arange(9, 0, -1)
    return torch.from_numpy(sources @ mixing.T + 5).float().view(-1, 1, 3, 3)


def responses(patches: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """What the filters give at each patch, before the ReLU: (N, width)."""
    return (patches.flatten(1) @ weight.flatten(1).T + bias).double().numpy()


def test_keys_shapes_and_numbers(tensors: dict[str, torch.Tensor]) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    channels = (3, *WIDTHS)
    expected = {}
    for index, before, after in zip((0, 2, 5, 7, 10), channels, WIDTHS, strict=False):
        expected |= {f"features.{index}.weight": (after, before, 3, 3), f"features.{index}.bias": (after,)}
    assert shapes == expected
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values())


def test_the_same_again_and_another_seed_another_network(
    painting: np.ndarray, tensors: dict[str, torch.Tensor]
) -> None:
    threads = torch.get_num_threads()
    again, other = learn_extractor([[painting]]), learn_extractor([[painting]], seed=1)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert not torch.equal(other["features.0.weight"], tensors["features.0.weight"])


def test_filters_are_uncorrelated_and_come_with_both_signs() -> None:
    patches = correlated_patches()
    weight, bias = learn_filters(patches, 8, rng_for(0))
    found = responses(patches, weight, bias)
    assert np.corrcoef(found[:, :4].T) == pytest.approx(np.eye(4), abs=1e-4)
    assert np.diag(np.corrcoef(found.T)[:4, 4:]) == pytest.approx(-np.ones(4), abs=1e-6)


def test_every_activation_has_mean_one() -> None:
    patches = correlated_patches()
    weight, bias = learn_filters(patches, 8, rng_for(0))
    assert np.maximum(responses(patches, weight, bias), 0).mean(axis=0) == pytest.approx(np.ones(8), abs=1e-4)


def test_filters_lie_in_the_space_of_the_strongest_components() -> None:
    patches = correlated_patches()
    weight, _ = learn_filters(patches, 8, rng_for(0))
    flat = patches.flatten(1).double().numpy()
    axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2]  # another road to the components
    outside = weight.flatten(1).double().numpy() @ axes[4:].T
    assert np.abs(outside).max() < 1e-5
    assert np.linalg.matrix_rank(weight[:4].flatten(1).numpy()) == 4


def test_the_stylize_job_reads_the_file_and_finds_balanced_layers(
    extractor: FeatureExtractor, painting: np.ndarray
) -> None:
    features = extractor(to_pixels([painting]))
    assert set(features) == set(LAYERS)
    for name, width in zip(LAYERS, WIDTHS, strict=True):
        assert features[name].shape[1] == width
        assert float(features[name].mean()) == pytest.approx(1, abs=0.4), name  # crops of it have exactly 1


def test_strokes_and_their_shuffled_pixels_are_told_apart(
    extractor: FeatureExtractor, painting: np.ndarray
) -> None:
    """The mirrored painting is nearer to the painting than an image with the same colours and no strokes."""
    shuffled = np.random.default_rng(0).permutation(painting.reshape(-1, 3)).reshape(painting.shape)
    mirrored, noise = (extractor(to_pixels([image])) for image in (painting[:, ::-1].copy(), shuffled))
    here = extractor(to_pixels([painting]))
    for name in LAYERS:
        target = gram_matrix(here[name])
        same, other = (float(style_loss(gram_matrix(found[name]), target)) for found in (mirrored, noise))
        assert other > 5 * same, name


def test_equal_tensors_give_equal_bytes_that_say_what_they_are(
    tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    first, second = tmp_path / "a" / "x.safetensors", tmp_path / "b" / "x.safetensors"
    write_extractor(first, tensors)
    write_extractor(second, dict(reversed(tensors.items())))
    assert first.read_bytes() == second.read_bytes()
    with safe_open(first, framework="pt") as file:
        assert file.metadata()["learned_from"] == "drawings of vtray's demo, without labels"
        assert torch.equal(file.get_tensor("features.0.bias"), tensors["features.0.bias"])
    assert [path.name for path in first.parent.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([], {}, "no images to learn from"),
        ([[]], {}, "at least one in each group"),
        ([["image"]], {"widths": (16, 16)}, "2 widths; the network has 5 convolutions as far as relu3_1"),
        ([["image"]], {"widths": (16, 15, 32, 32, 64)}, "a width is 15; even numbers from 2 to 288"),
        ([["image"]], {"widths": (56, 16, 32, 32, 64)}, "a width is 56; even numbers from 2 to 54"),
    ],
)
def test_wrong_arguments_are_refused_with_the_value(groups: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learn_extractor(groups, **options)


def test_images_without_texture_are_refused() -> None:
    with pytest.raises(ValueError, match="too flat"):
        learn_extractor([[np.full((96, 96, 3), 90, np.uint8)]])
