"""Small trainings of fast networks on drawn images, in this process or on a cluster."""

from pathlib import Path

import torch
from PIL import Image
from style_networks import picture, random_weights, saved, spec_of, stripes, style_of

from pipelines.train_style_config import TrainStyleConfig
from vtray.style.fast.task import FastTask, NetworkSpec, StepSpec
from vtray.style.work import LossSpec

NETWORKS = {
    "feedforward": NetworkSpec(engine="feedforward", width=4),
    "msgnet": NetworkSpec(engine="msgnet", width=8, filters=2, num_blocks=1),
}


def styles_for(engine):
    one, other = style_of(stripes(), name="down"), style_of(stripes(1), name="across")
    return (one,) if engine == "feedforward" else (one, other)


def task_of(folder, engine="feedforward", *, steps=6, **values):
    """A task of a few steps at 32 px with VGG-19 of four channels."""
    weights = Path(folder) / "vgg19.pth"
    saved(random_weights("vgg19", width=4, until="relu2_1"), weights)
    fixed = {
        "output_uri": str(Path(folder) / "out"),
        "folder": "_vtray/training",
        "fingerprint": "f",
        "network": NETWORKS[engine],
        "styles": styles_for(engine),
        "style_px": (32,) if engine == "feedforward" else (32, 48),
        "features": spec_of("vgg19", str(weights), ("relu1_1", "relu2_1")),
        "loss": LossSpec(),
        "steps": StepSpec(
            steps=steps, batch_size=2, lr=1e-2, log_every=2, preview_every=4, checkpoint_every=2, warmup_steps=1
        ),
        "unseen": {"a.png": picture(90, 32, 40)},
    }
    return FastTask(**(fixed | values))


def crops_of(step, count=2, side=32):
    """uint8 (count, 3, side, side), another for each step."""
    random = torch.Generator().manual_seed(step)
    return torch.randint(0, 256, (count, 3, side, side), generator=random, dtype=torch.uint8)


def write_photos(folder, count=8, side=48):
    """number.png, drawn."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(number, side, side + 8)).save(Path(folder) / f"{number:02}.png")
    return Path(folder)


def write_styles(folder):
    """across.png and down.png, stripes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for turn, name in enumerate(("down", "across")):
        Image.fromarray(stripes(turn)).save(Path(folder) / f"{name}.png")
    return Path(folder)


def config_of(place, output, /, **values):
    """A training of a few seconds: its values, with those given on top (sections are merged).

    place: a folder with photos/, styles/ and vgg19.pth.
    """
    fixed = {
        "input": {"uri": str(place / "photos")},
        "output": {"uri": str(output)},
        "style": {"uri": str(place / "styles" / "down.png"), "size_px": 32},
        "network": {"engine": "feedforward", "width": 4, "filters": 2, "num_blocks": 1},
        "crops": {"crop_px": 32, "size_px": 32, "unseen": 1},
        "features": {
            "network": "vgg19",
            "weights": str(place / "vgg19.pth"),
            "precision": "fp32",
            "layout": "nchw",
        },
        "loop": {
            "steps": 6,
            "batch_size": 2,
            "lr": 1e-2,
            "log_every": 2,
            "preview_every": 4,
            "checkpoint_every": 2,
            "warmup_steps": 1,
        },
        "tracking": {"uri": "none"},
        "threads": 1,
        "use_gpu": False,
        "num_workers": 0,
    }
    for key, value in values.items():
        fixed[key] = fixed[key] | value if isinstance(fixed.get(key), dict) else value
    return TrainStyleConfig.model_validate(fixed)


def write_place(folder):
    """What `config_of` reads."""
    write_photos(folder / "photos")
    write_styles(folder / "styles")
    saved(random_weights("vgg19", width=4, until="relu2_1"), folder / "vgg19.pth")
    return folder


def model_bytes(output):
    """The files of the model, name -> bytes."""
    root = Path(output) / "model"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.*"))}
