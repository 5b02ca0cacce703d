import cv2
import numpy as np
import pytest
import torch
from drawn import draw_image
from torch import nn
from torchvision import models

from vtray.classify.backbone import Classifier, build_classifier
from vtray.classify.gradcam import grad_cam, map_boundary, overlay
from vtray.errors import ConfigError
from vtray.images import decode

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
HOT_DOG = 934


@pytest.fixture(autouse=True)
def seeded():
    """Random weights that are the same each time; on one thread, as small networks wait longer than they count."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pixels_of(image):
    return ((torch.from_numpy(image) / 255 - MEAN) / STD).permute(2, 0, 1)[None]


def tiny_vit():
    network = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    )
    nn.init.normal_(network.heads.head.weight)  # torchvision's is zero
    return Classifier(network, backbone="vit_tiny").eval()


def tiny_swin():
    network = models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=5
    )
    return Classifier(network, backbone="swin_tiny").eval()


def scaled(heat):
    heat = heat.relu()
    return heat / heat.amax((1, 2), keepdim=True)


def occluded_drop(classifier, pixels, number, *, cells):
    """By how much the class score falls when a cell of the image is wiped out, (cells, cells)."""
    size = pixels.shape[2] // cells
    drop = torch.zeros(cells, cells)
    with torch.no_grad():
        whole = classifier(pixels)[0, number]
        for row, column in np.ndindex(cells, cells):
            wiped = pixels.clone()
            wiped[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size] = 0
            drop[row, column] = whole - classifier(wiped)[0, number]
    return drop


class RedOrGreen(nn.Module):
    """Stage 1 is the mean of 8 x 8 pixels; class 0 is how red an image is, class 1 how green."""

    backbone, stage_names = "red_or_green", ("means",)

    def prefix(self, pixels, stop):
        return nn.functional.avg_pool2d(pixels, 8)

    def forward(self, inputs, *, start=0):
        means = inputs if start else self.prefix(inputs, 1)
        return means.mean((2, 3))[:, :2]


# known answers


def test_heat_lies_where_an_occlusion_costs_the_class_score():
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(1, 3, 32, 32, generator=generator)
    pixels[0, 0, 8:16, 24:32] += 3
    pixels[0, 1, 24:32, 0:8] += 3
    network = RedOrGreen()
    for number, place in ((0, (1, 3)), (1, (3, 0))):
        heat = grad_cam(network, pixels, torch.tensor([number]))[0]
        drop = occluded_drop(network, pixels, number, cells=4)
        assert np.unravel_index(int(heat.argmax()), (4, 4)) == place
        torch.testing.assert_close(heat, drop / drop.max())


@pytest.mark.parametrize("backbone", ["resnet18", "squeezenet1_1"])
def test_behind_a_mean_the_heat_is_the_class_activation_map(backbone):
    """Linear and convolutional heads alike: Zhou et al. 2016, the head's row times the map, without the bias."""
    classifier = build_classifier(backbone, num_classes=5).eval()
    pixels = torch.randn(3, 3, 96, 96)
    classes = torch.tensor([4, 0, 4])
    with torch.no_grad():
        last = classifier.prefix(pixels, len(classifier.stage_names))
        rows = classifier.head.weight.flatten(1)[classes]
        expected = torch.einsum("bc,bchw->bhw", rows, last)
        logits = classifier(pixels).gather(1, classes[:, None])
    heat = grad_cam(classifier, pixels, classes)
    speaks = logits[:, 0] > 0 if backbone == "squeezenet1_1" else torch.ones(3, dtype=torch.bool)
    assert speaks.any()
    torch.testing.assert_close(heat[speaks], scaled(expected)[speaks], rtol=1e-4, atol=1e-5)
    assert heat.shape == (3, *last.shape[2:])
    assert not heat[~speaks].any()  # a ReLU behind SqueezeNet's head lets nothing through


def test_tokens_that_enter_the_last_block_become_the_grid_of_patches():
    classifier = tiny_vit()
    pixels, classes, seen = torch.randn(2, 3, 32, 32), torch.tensor([1, 3]), []
    heat = grad_cam(classifier, pixels, classes)

    def remember(block, inputs):
        inputs[0].retain_grad()
        seen.append(inputs[0])

    classifier.network.encoder.layers.encoder_layer_2.register_forward_pre_hook(remember)
    classifier.network(pixels).gather(1, classes[:, None]).sum().backward()
    tokens, slope = seen[0].detach()[:, 1:], seen[0].grad[:, 1:]
    by_patch = torch.stack([patch @ weights for patch, weights in zip(tokens, slope.mean(1), strict=True)])
    torch.testing.assert_close(heat, scaled(by_patch.reshape(2, 4, 4)))
    assert heat.amax((1, 2)).tolist() == [1, 1]


def test_a_swin_is_looked_at_with_its_channels_first():
    classifier = tiny_swin()
    pixels, classes, seen = torch.randn(2, 3, 64, 64), torch.tensor([1, 3]), []
    heat = grad_cam(classifier, pixels, classes)
    classifier.network.permute.register_forward_hook(lambda module, inputs, output: seen.append(output))
    classifier.network(pixels)
    rows = classifier.head.weight[classes]
    torch.testing.assert_close(heat, scaled(torch.einsum("bc,bchw->bhw", rows, seen[0]).detach()))
    assert heat.shape == (2, 8, 8)


def test_a_real_network_looks_at_the_hot_dog(fixtures):
    classifier = build_classifier("mobilenet_v2", num_classes=1000).eval()
    path = fixtures / "weights/mobilenet_v2_imagenet.pth"
    classifier.network.load_state_dict(torch.load(path, weights_only=True))
    photograph = decode((fixtures / "content/hot_dog.jpg").read_bytes()).image
    canvas = np.full((256, 256, 3), 124, np.uint8)
    canvas[128:, :128] = cv2.resize(photograph, (128, 128), interpolation=cv2.INTER_AREA)
    pixels = pixels_of(canvas)
    heat = grad_cam(classifier, pixels, torch.tensor([HOT_DOG]))[0]
    drop = occluded_drop(classifier, pixels, HOT_DOG, cells=2)
    assert int(drop.argmax()) == 2  # lower left
    assert heat.shape == (8, 8)
    assert heat[4:, :4].mean() > 3 * (heat.sum() - heat[4:, :4].sum()) / 48


# every family, every mode


@pytest.mark.parametrize(
    ("backbone", "size_px", "shape", "boundary"),
    [
        ("mobilenet_v3_small", 64, (2, 2), -1),  # a hidden layer lies behind the map
        ("shufflenet_v2_x0_5", 64, (2, 2), 0),
        ("mnasnet0_5", 32, (2, 2), None),  # 1 x 1 behind the last stages: an earlier one is taken
    ],
)
def test_the_last_map_with_more_than_one_place_is_taken(backbone, size_px, shape, boundary):
    classifier = build_classifier(backbone, num_classes=3).eval()
    pixels = torch.randn(1, 3, size_px, size_px)
    found = map_boundary(classifier, pixels)
    assert classifier.prefix(pixels, found).shape[2:] == shape
    if boundary is not None:
        assert found == len(classifier.stage_names) + boundary
    assert grad_cam(classifier, pixels, torch.tensor([2])).shape == (1, *shape)


def test_a_network_without_places_is_refused():
    classifier = build_classifier("squeezenet1_1", num_classes=3)
    classifier.prefix = lambda pixels, stop: pixels.mean((2, 3))
    with pytest.raises(ConfigError, match=r"squeezenet1_1: no stage keeps .* \(64, 64\) pixels"):
        grad_cam(classifier, torch.randn(1, 3, 64, 64), torch.tensor([0]))


def test_the_classifier_is_left_as_it_was():
    classifier = build_classifier("resnet18", num_classes=3)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    pixels, classes = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    with torch.inference_mode():
        heat = grad_cam(classifier, pixels, classes)
    assert torch.equal(heat, grad_cam(classifier, pixels, classes))
    assert classifier.training
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    assert not heat.requires_grad


def test_images_do_not_mix():
    classifier = build_classifier("resnet18", num_classes=3).eval()
    pixels, classes = torch.randn(3, 3, 64, 64), torch.tensor([0, 1, 2])
    together = grad_cam(classifier, pixels, classes)
    alone = torch.cat([grad_cam(classifier, pixels[[n]], classes[[n]]) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_a_class_that_nothing_speaks_for_has_no_heat():
    classifier = build_classifier("resnet18", num_classes=2).eval()
    with torch.no_grad():
        classifier.head.weight[1] = -classifier.head.weight[0].abs()  # the map is not negative
    heat = grad_cam(classifier, torch.randn(1, 3, 64, 64), torch.tensor([1]))
    assert not heat.any()


# the picture


def test_no_heat_leaves_the_image_as_it_is():
    image = draw_image(1)
    assert np.array_equal(overlay(image, torch.zeros(4, 4)), image)


def test_heat_hides_the_image_up_to_the_opacity():
    image = draw_image(2)
    drawn = overlay(image, np.ones((3, 3), np.float32), opacity=1)
    assert drawn.dtype == np.uint8
    assert np.ptp(drawn.reshape(-1, 3), axis=0).tolist() == [0, 0, 0]
    assert drawn[0, 0].min() > 150  # inferno ends in a light yellow
    half = overlay(image, torch.ones(3, 3), opacity=0.5)
    assert np.abs(half - (image.astype(float) + drawn) / 2).max() <= 0.5


def test_heat_is_drawn_where_it_lies():
    image = np.full((60, 80, 3), 20, np.uint8)
    heat = torch.zeros(4, 4)
    heat[0, 3] = 1
    changed = (overlay(image, heat) != image).any(axis=2)
    assert changed[:10, 70:].all()
    assert not changed[30:].any()
    assert not changed[:, :40].any()


def test_the_colours_grow_brighter_evenly():
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (4, 1))
    drawn = overlay(np.zeros((4, 256, 3), np.uint8), ramp, opacity=1)[0].astype(float)
    brightness = (drawn @ [0.2126, 0.7152, 0.0722])[::16]
    assert (np.diff(brightness) > 0).all()
