import json

import numpy as np
import pytest
import torch
from drawn import draw_image
from PIL import Image
from torchvision import models
from torchvision.transforms import functional

from vtray.classify.backbone import build_classifier, load_weights_into
from vtray.classify.networks import backbone_names
from vtray.classify.preprocessing import LONGEST_PX, Preprocessing, decode_for
from vtray.classify.published import class_names_of, preprocessing_of
from vtray.errors import ConfigError, ImageError
from vtray.images import decode, encode
from vtray.weights import load_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0", "efficientnet_b1", "swin_v2_b", "inception_v3")
SIZES = ((480, 640), (640, 480), (231, 232), (100, 37), (224, 224), (256, 256), (301, 999), (1, 7), (2, 1))


def torchvisions(image, preset):
    """What torchvision's preset does to a Pillow image before it makes a tensor of it."""
    options = {"interpolation": preset.interpolation, "antialias": preset.antialias}
    resized = functional.resize(Image.fromarray(image), preset.resize_size, **options)
    return np.asarray(functional.center_crop(resized, preset.crop_size))


def custom(**values):
    return Preprocessing(
        **{"resize_px": 40, "crop_px": 32, "mean": MEAN, "std": STD, "interpolation": "bilinear"} | values
    )


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Two threads wait for each other longer than such small images take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pixels_are_those_of_torchvisions_preset(backbone):
    preprocessing = preprocessing_of(backbone)
    preset = models.get_model_weights(backbone).DEFAULT.transforms()
    for seed, (height, width) in enumerate(SIZES):
        image = draw_image(seed, height, width)
        crop = preprocessing(image)
        assert crop.dtype == np.uint8
        assert crop.shape == (preprocessing.crop_px, preprocessing.crop_px, 3)
        assert np.array_equal(crop, torchvisions(image, preset)), (height, width)
        batch = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None]
        assert torch.equal(preprocessing.pixels(batch)[0], preset(Image.fromarray(image)))


@pytest.mark.fixtures
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "swin_t"])
def test_photographs_are_cropped_as_by_torchvision(fixtures, backbone):
    preprocessing = preprocessing_of(backbone)
    preset = models.get_model_weights(backbone).DEFAULT.transforms()
    paths = sorted((fixtures / "content").iterdir())
    assert len(paths) >= 8
    for path in paths:
        image = decode(path.read_bytes()).image
        assert np.array_equal(preprocessing(image), torchvisions(image, preset)), path.name


@pytest.mark.parametrize(("resize_px", "crop_px"), [(32, 45), (33, 46), (40, 40), (17, 90)])
def test_a_crop_larger_than_the_image_gets_torchvisions_black_border(resize_px, crop_px):
    preprocessing = custom(resize_px=resize_px, crop_px=crop_px)
    for seed, size in enumerate(((48, 64), (64, 48), (50, 50))):
        image = draw_image(seed, *size)
        resized = functional.resize(Image.fromarray(image), [resize_px])
        assert np.array_equal(preprocessing(image), np.asarray(functional.center_crop(resized, [crop_px])))


@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_of_a_long_strip(turned):
    """A strip of 2 x 20000 grows to 40 x 400000: only its middle is resized, at most one pixel beside."""
    strip = np.zeros((2, 20_000, 3), np.uint8)
    strip[:, :] = (np.arange(20_000) - 10_000 + 100).clip(0, 200).astype(np.uint8)[None, :, None]
    preprocessing = custom()
    assert LONGEST_PX < 40 / 2 * 20_000
    crop = preprocessing(strip.transpose(1, 0, 2) if turned else strip)
    crop = crop.transpose(1, 0, 2) if turned else crop
    resized = functional.resize(Image.fromarray(strip[:, 9_000:11_000]), [40])  # 40000 long, the same scale
    expected = np.asarray(functional.center_crop(resized, [32]))
    assert np.abs(crop.astype(int) - expected).max() <= 1  # one level is 20 pixels


def test_pixels_by_hand():
    preprocessing = custom(mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 2.0))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    pixels = preprocessing.pixels(images)
    assert pixels.dtype == torch.float32
    assert pixels[:, :, 0, 0].tolist() == [[-1.0, 0.0, -0.5], [1.0, 1.0, 0.0]]
    assert images[1].min() == 255  # not in place


def test_pixels_keep_the_layout():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert custom().pixels(images).is_contiguous(memory_format=torch.channels_last)


def test_every_backbone_has_a_preprocessing_and_names():
    found = {backbone: preprocessing_of(backbone) for backbone in backbone_names()}
    assert len(found) >= 80
    assert {each.interpolation for each in found.values()} == {"bilinear", "bicubic"}
    names = {class_names_of(backbone) for backbone in found}
    assert len(names) == 1  # all were trained on the same classes
    assert (len(names := names.pop()), names[0], names[934]) == (1000, "tench", "hotdog")


def test_the_preprocessing_of_named_weights():
    first = preprocessing_of("mobilenet_v2", "torchvision:IMAGENET1K_V1")
    second = preprocessing_of("mobilenet_v2", "torchvision:MobileNet_V2_Weights.IMAGENET1K_V2")
    assert (first.resize_px, first.crop_px) == (256, 224)
    assert (second.resize_px, second.crop_px) == (232, 224)
    assert preprocessing_of("mobilenet_v2", "s3://bucket/mine.pth") == preprocessing_of("mobilenet_v2") == second
    assert preprocessing_of("vit_b_16", "torchvision:IMAGENET1K_SWAG_E2E_V1").crop_px == 384


def test_unknown_weights_and_models_are_refused():
    with pytest.raises(
        ConfigError, match=r"no such weights of mobilenet_v2; allowed: torchvision:IMAGENET1K_V1, "
    ):
        preprocessing_of("mobilenet_v2", "torchvision:ResNet18_Weights.DEFAULT")
    with pytest.raises(ConfigError, match="did you mean mobilenet_v2"):
        preprocessing_of("mobilenetv2")


def test_round_trip_through_json():
    for backbone in BACKBONES:
        preprocessing = preprocessing_of(backbone)
        again = Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json())))
        assert again == preprocessing
        assert again.digest() == preprocessing.digest()


def test_the_digest_changes_with_every_value():
    changes = ({"resize_px": 41}, {"crop_px": 33}, {"mean": (0.485, 0.456, 0.4)}, {"std": (1, 1, 1)})
    digests = {custom(**each).digest() for each in ({}, *changes, {"interpolation": "bicubic"})}
    assert len(digests) == 6
    assert all(len(digest) == 64 for digest in digests)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize_px": 0}, "preprocessing.resize_px: .*greater than or equal to 1"),
        ({"std": (1, 1, 0)}, "preprocessing.std.2: .*greater than 0"),
        ({"mean": (1, 1)}, "preprocessing.mean.2: .*required"),
        ({"interpolation": "nearest"}, "preprocessing.interpolation: .*'bilinear' or 'bicubic'"),
        ({"crop": 224}, "preprocessing.crop: Unexpected"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        Preprocessing.from_json(custom().to_json() | change)


def test_missing_values_are_all_named():
    with pytest.raises(ConfigError) as caught:
        Preprocessing.from_json({"resize_px": 256})
    assert len(str(caught.value).splitlines()) == 4


def test_decoding():
    encoded = encode(draw_image(1, 90, 120), format="png")
    assert np.array_equal(decode_for(custom(), encoded), custom()(draw_image(1, 90, 120)))
    with pytest.raises(ImageError):
        decode_for(custom(), encoded[:100])
    with pytest.raises(ImageError):
        decode_for(custom(), encoded, max_pixels=90 * 120 - 1)


@pytest.mark.fixtures
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "squeezenet1_0"])
def test_real_weights_know_what_is_on_the_photographs(fixtures, backbone):
    classifier = build_classifier(backbone, num_classes=1000).eval()
    tensors = load_weights(str(fixtures / "weights" / f"{backbone}_imagenet.pth")).tensors
    load_weights_into(classifier, tensors, uri="file", head=True)
    preprocessing, names = preprocessing_of(backbone), class_names_of(backbone)
    shown = {"hot_dog.jpg": "hotdog", "parrot.jpg": "macaw", "coffee.png": "espresso", "owl.jpg": "great grey owl"}
    crops = [decode_for(preprocessing, (fixtures / "content" / name).read_bytes()) for name in shown]
    with torch.no_grad():
        best = (
            classifier(preprocessing.pixels(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))).topk(5).indices
        )
    assert [names[row[0]] for row in best][:3] == ["hotdog", "macaw", "espresso"]
    assert all(name in [names[index] for index in row] for name, row in zip(shown.values(), best, strict=True))
