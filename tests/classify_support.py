"""A small classifier that tells drawn images apart, and images for it."""

from pathlib import Path

import numpy as np
import torch
from drawn import draw_image
from PIL import Image

from vtray.classify.backbone import build_classifier
from vtray.classify.model_dir import Model, load_model, save_model
from vtray.classify.preprocessing import Preprocessing
from vtray.storage import open_storage

CLASSES = ("bottle", "box", "can", "carton", "jar", "tube")
PREPROCESSING = Preprocessing(resize_px=48, crop_px=48, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")


def write_model(folder: Path, *, temperature: float = 2.0) -> Model:
    """A random squeezenet whose head points from the mean of six drawn images to each: number n is class n."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = build_classifier("squeezenet1_1", num_classes=len(CLASSES)).eval()
    drawn = np.stack([PREPROCESSING(draw_image(number, 60, 80)) for number in range(len(CLASSES))])
    pixels = PREPROCESSING.pixels(torch.tensor(drawn).permute(0, 3, 1, 2))
    with torch.no_grad():
        features = classifier.features(pixels)
        apart = features - features.mean(0)
        apart = 10 * apart / apart.square().sum(1, keepdim=True)
        classifier.head.weight.copy_(apart[:, :, None, None])
        classifier.head.bias.copy_(5 - apart @ features.mean(0))  # the ReLU behind this head cuts nothing off
    model = Model(classifier=classifier, classes=CLASSES, preprocessing=PREPROCESSING, temperature=temperature)
    save_model(open_storage(str(folder)), model, config_yaml=b"backbone: squeezenet1_1\n")
    return load_model(str(folder))


def write_images(folder: Path, numbers: range, *, classes: tuple[str, ...] = CLASSES) -> Path:
    """JPEG files CLASS/NN.jpg of drawn images; with six classes the model is right about numbers 0 to 5."""
    for number in numbers:
        place = folder / classes[number % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(number, 60, 80)).save(place / f"{number:02}.jpg", quality=95)
    return folder
