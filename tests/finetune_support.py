"""Small trainings on drawn images, in this process or on a cluster."""

import json
from pathlib import Path

import torch
from drawn import draw_image
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.finetune_config import FinetuneConfig
from vtray.classify.backbone import build_classifier

BACKBONE = "shufflenet_v2_x0_5"
SIDE = 32


def write_images(folder, *, train=12, val=6, test=0, classes=3, side=48):
    """split/class/number.png; each class is a colour with a pattern."""
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            label = number % classes
            image = draw_image(1000 * len(split) + number, side, side) // 3
            image[..., label % 3] += 120
            path = Path(folder) / split / "abcdefgh"[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return Path(folder)


def write_backbone(path, *, backbone=BACKBONE, seed=0):
    """Weights as of a pretrained network: random, with batch-norm statistics that are not the initial ones."""
    torch.manual_seed(seed)
    classifier = build_classifier(backbone, num_classes=1000)
    for name, buffer in classifier.network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.05)
    save_file(dict(classifier.network.state_dict()), path)
    return path


def config_of(images, output, weights, /, **values):
    """A training of a few seconds: its values, with those given on top (sections are merged)."""
    fixed = {
        "input": {"uri": str(images)},
        "output": {"uri": str(output)},
        "backbone": BACKBONE,
        "weights": str(weights),
        "preprocess": {"resize_px": 36, "crop_px": SIDE},
        "lr": 1e-3,
        "loop": {"epochs": 3, "batch_size": 6},
        "tracking": {"uri": "none"},
        "precision": "fp32",
        "layout": "nchw",
        "threads": 1,
        "use_gpu": False,
        "num_workers": 0,
        "check": {"split": "none"},
        "units": {"max_images": 4},
    }
    for key, value in values.items():
        fixed[key] = fixed[key] | value if isinstance(fixed.get(key), dict) else value
    return FinetuneConfig.model_validate(fixed)


def model_bytes(output):
    """The files of the model, name -> bytes."""
    return {path.name: path.read_bytes() for path in sorted((Path(output) / "model").iterdir())}


def tensors_of(output):
    """The weights of a finished training."""
    return load_file(Path(output) / "model" / "model.safetensors")


def history_of(output):
    """One dict per epoch."""
    return [json.loads(line) for line in (Path(output) / "model" / "metrics.jsonl").read_text().splitlines()]
