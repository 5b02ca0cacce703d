"""How good fine-tuning gets on ten grocery products, with seeds; needs the fixtures.

python benchmarks/finetune_accuracy.py [trainings] [numerics]

trainings  with and without augmentation, with recipes/showroom.yaml, and from scratch; about 15 minutes
numerics   crops and flips in fp32 and in bf16; about 6 minutes

Six epochs of mobilenet_v2 on 287 photographs, tested on 280 others: as they are, at a quarter of the pixel value,
and under a lamp of 3300 K. Every training is `vtray finetune` in a process of its own, on one thread.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import harness
import numpy as np

sys.path.insert(0, str(harness.ROOT))

SEEDS = (0, 1, 2)
GROCERY = harness.FIXTURES / "datasets" / "grocery10"
WEIGHTS = harness.FIXTURES / "weights" / "mobilenet_v2_imagenet.pth"
CROP_AND_FLIP = {
    "operators": [{"op": "random_resized_crop", "size_px": 224, "area": [0.35, 1.0]}, {"op": "flip"}],
}
SHOWROOM = {"recipe": str(harness.ROOT / "recipes" / "showroom.yaml")}
TUNED = {"lr": 5e-4, "loop": {"epochs": 6, "batch_size": 16}}
TRAININGS: dict[str, dict[str, Any]] = {
    "without augmentation": TUNED,
    "crop and flip": TUNED | CROP_AND_FLIP,
    "recipes/showroom.yaml": TUNED | SHOWROOM,
    "from scratch": TUNED | CROP_AND_FLIP | {"strategy": "scratch", "lr": 3e-3},
}
NUMERICS = {precision: TUNED | CROP_AND_FLIP | {"precision": precision} for precision in ("fp32", "bf16")}
SECTIONS = {"trainings": ("finetune-accuracy", TRAININGS), "numerics": ("finetune-numerics", NUMERICS)}
WARM_SEVERITY = 3


def one_run(name: str, seed: int) -> dict[str, float]:
    """Train, and the accuracy on the three kinds of test images."""
    from pipelines import finetune
    from pipelines.finetune_config import FinetuneConfig

    with tempfile.TemporaryDirectory() as folder:
        fixed = {
            "input": {"uri": str(GROCERY)},
            "output": {"uri": folder},
            "backbone": "mobilenet_v2",
            "weights": str(WEIGHTS),
            "tracking": {"uri": "none"},
            "num_workers": 0,
            "threads": 1,
            "seed": seed,
            "precision": "fp32",
            "layout": "nhwc",
        }
        report = finetune.run(FinetuneConfig.model_validate(fixed | (TRAININGS | NUMERICS)[name]))
        return tested(folder) | {"val": report.val_top1, "train_s": report.seconds}


def tested(model_uri: str) -> dict[str, float]:
    """Top-1 on the test split under three lights."""
    from vtray.classify.conditions import CONDITIONS
    from vtray.classify.model_dir import load_model
    from vtray.classify.preprocessing import decode_for
    from vtray.sources import Unit, open_source, read_unit

    model, source = load_model(model_uri), open_source(str(GROCERY))
    refs = tuple(ref for ref in source.refs if ref.split == "test")
    images = read_unit(Unit(unit_id="test", format=source.format, refs=refs))
    crops = np.stack([decode_for(model.preprocessing, image.encoded or b"") for image in images])
    labels = np.array([model.classes.index(ref.class_name or "") for ref in refs])
    warm = CONDITIONS["warm_light"]
    lights = {
        "test": crops,
        "a quarter": np.rint(crops * 0.25).astype(np.uint8),
        "warm": np.stack([warm(crop, WARM_SEVERITY, seed=0, source_sha256="") for crop in crops]),
    }
    return {light: _share(model, images, labels) for light, images in lights.items()}


def _share(model: Any, crops: np.ndarray, labels: np.ndarray) -> float:
    found = [model.logits(crops[first : first + 40]).argmax(1).numpy() for first in range(0, len(crops), 40)]
    return float((np.concatenate(found) == labels).mean())


def in_a_process(name: str, seed: int) -> dict[str, float]:
    """One run with nothing left over from another."""
    command = [sys.executable, __file__, "run", name, str(seed)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    print(f"{name}, seed {seed}: {found}", file=sys.stderr, flush=True)
    return found


def run_all(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every training with every seed, two at a time: for each light the mean and the seeds' own."""
    wanted = list(product(SEEDS, runs))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: in_a_process(pair[1], pair[0]), wanted))
    table: dict[str, Any] = {}
    for name in runs:
        rows = [row for (_, each), row in zip(wanted, found, strict=True) if each == name]
        table[name] = {
            light: {"mean": statistics.mean(row[light] for row in rows), "seeds": [row[light] for row in rows]}
            for light in rows[0]
        }
    return table


def main() -> None:
    if not WEIGHTS.is_file():
        sys.exit(f"no fixtures at {harness.FIXTURES}; set VTRAY_FIXTURES")
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(one_run(sys.argv[2], int(sys.argv[3]))))
        return
    unknown = set(sys.argv[1:]) - set(SECTIONS)
    if unknown:
        sys.exit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    for section in sys.argv[1:] or SECTIONS:
        file, runs = SECTIONS[section]
        harness.write(file, run_all(runs))


if __name__ == "__main__":
    main()
