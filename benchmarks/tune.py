"""What a search costs and how good its winner is; needs the fixtures, and about 20 minutes on two cores.

python benchmarks/tune.py [--trials 16] [--images N]

search    `vtray tune`: 16 trials over lr x freeze of mobilenet_v2 on ten grocery products, with caches and start
grid      the same trials on the same caches, none stopped: the best that there was to find
uncached  one trial of each depth as `vtray finetune` without stored rows to its last epoch; the others of a depth
          take as long, so the sum over all trials is extrapolated from these
refit     the winner in full and the default recipe in full, both on the test images

Each arm runs in processes of its own, two at a time with one thread each; wall time counts. `--images N` keeps N
training images of each class, to try the program.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness

sys.path.insert(0, str(harness.ROOT))

GROCERY = harness.FIXTURES / "datasets" / "grocery10"
WEIGHTS = harness.FIXTURES / "weights" / "mobilenet_v2_imagenet.pth"
DEPTHS = [0, 7, 14, 19]  # of 19 stages: none frozen, about a third, two thirds, all
RATES = [1e-4, 5e-4, 2.5e-3, 1e-2]
EPOCHS, BATCH, DEFAULT_LR = 6, 16, RATES[1]
AT_A_TIME = 2
GOAL_SHARE, GOAL_POINTS = 1 / 4, 0.01
DEFAULT = {
    "backbone": "mobilenet_v2",
    "weights": str(WEIGHTS),
    "tracking": {"uri": "none"},
    "cluster": "local",
    "precision": "fp32",
    "layout": "nhwc",
    "lr": DEFAULT_LR,
    "loop": {"epochs": EPOCHS, "batch_size": BATCH},
}
AUGMENTED = {"operators": [{"op": "random_resized_crop", "size_px": 224, "area": [0.35, 1.0]}, {"op": "flip"}]}
HERE = {"num_workers": 0, "threads": 1}


def searched(config: dict[str, Any]) -> dict[str, Any]:
    """The report of a search, and the top-1 and seconds of its trials."""
    from pipelines import tune
    from pipelines.tune_config import TuneConfig

    report = tune.run(TuneConfig.model_validate(config)).to_json()
    folder = Path(config["output"]["uri"], "_vtray", "trials")
    records = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    curves = {record["number"]: [epoch["val_top1"] for epoch in record["epochs"]] for record in records}
    return report | {
        "curves": list(curves.values()),
        "values_of": [record["values"] for record in records],
        "tested": tested(report["model"], config["input"]["uri"]),
    }


def trained(config: dict[str, Any]) -> dict[str, Any]:
    """Seconds and accuracies of one training."""
    from pipelines import finetune
    from pipelines.finetune_config import FinetuneConfig

    report = finetune.run(FinetuneConfig.model_validate(config))
    images = config["input"]["uri"]
    return {"seconds": report.seconds, "val": report.val_top1, "tested": tested(report.model, images)}


def tested(model_uri: str, images: str) -> float:
    """Top-1 on the test split."""
    import numpy as np

    from vtray.classify.model_dir import load_model
    from vtray.classify.preprocessing import decode_for
    from vtray.sources import Unit, open_source, read_unit

    model, source = load_model(model_uri), open_source(images)
    refs = tuple(ref for ref in source.refs if ref.split == "test")
    found = read_unit(Unit(unit_id="test", format=source.format, refs=refs))
    crops = np.stack([decode_for(model.preprocessing, image.encoded or b"") for image in found])
    labels = np.array([model.classes.index(ref.class_name or "") for ref in refs])
    taken = [model.logits(crops[first : first + 40]).argmax(1).numpy() for first in range(0, len(crops), 40)]
    return float((np.concatenate(taken) == labels).mean())


ARMS = {"searched": searched, "trained": trained}


def in_a_process(arm: str, config: dict[str, Any]) -> dict[str, Any]:
    """An arm with nothing left over from another; `wall_s` is the whole process."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--arm", arm, json.dumps(config)]
    environment = harness.os.environ | {"OMP_NUM_THREADS": "1"}
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    print(f"{arm} {config['output']['uri']}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    return found | {"wall_s": time.perf_counter() - started}


def fewer_images(folder: Path, count: int | None) -> Path:
    """The images, or links to the first `count` of each class of each split."""
    if count is None:
        return GROCERY
    for place in sorted(GROCERY.glob("*/*")):
        target = folder / place.relative_to(GROCERY)
        target.mkdir(parents=True)
        for image in sorted(place.iterdir())[:count]:
            (target / image.name).symlink_to(image)
    return folder


def compared(folder: Path, images: Path, *, trials: int) -> dict[str, Any]:
    """All arms, one after the other."""

    def config(name: str, *parts: dict[str, Any]) -> dict[str, Any]:
        whole = {"input": {"uri": str(images)}, "output": {"uri": str(folder / name)}} | DEFAULT
        for part in parts:
            whole |= part
        return whole

    space = {"lr": RATES, "freeze": DEPTHS}
    search = {"searcher": "grid", "num_trials": trials, "space": space}
    cached = in_a_process("searched", config("search", AUGMENTED, HERE, {"search": search}))
    shared = {"cache_uri": str(folder / "search" / "_vtray" / "caches")}
    grid = in_a_process("searched", config("grid", shared, HERE, {"search": search | {"scheduler": "none"}}))
    depths = sorted({values["freeze"] for values in cached["values_of"]})
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        alone = [config(f"uncached-{depth}", HERE, {"cache": "off", "freeze": depth}) for depth in depths]
        uncached = dict(zip(depths, pool.map(lambda each: in_a_process("trained", each), alone), strict=True))
    default = in_a_process("trained", config("default", AUGMENTED, HERE))
    return {"search": cached, "grid": grid, "uncached": uncached, "default": default}


def summary(arms: dict[str, Any]) -> dict[str, Any]:
    """The three comparisons of the goals."""
    cached, grid, uncached = arms["search"], arms["grid"], arms["uncached"]
    depths = [values["freeze"] for values in cached["values_of"]]
    total = sum(uncached[depth]["seconds"] for depth in depths) / AT_A_TIME
    best = max(max(curve) for curve in grid["curves"])
    return {
        "trials": len(depths),
        "search_s": cached["search_s"],
        "uncached_s": total,
        "uncached_extrapolated_from": {str(depth): uncached[depth]["seconds"] for depth in uncached},
        "share": cached["search_s"] / total,
        "winner": cached["values"],
        "winner_val": cached["trial_top1"],
        "best_of_grid_val": best,
        "stopped": cached["stopped"],
        "test_winner": cached["tested"],
        "test_default": arms["default"]["tested"],
        "goals": {
            "search at most a quarter": cached["search_s"] / total <= GOAL_SHARE,
            "winner within a point": best - cached["trial_top1"] <= GOAL_POINTS,
            "test at least the default's": cached["tested"] >= arms["default"]["tested"],
        },
        "curves_of_the_grid": grid["curves"],
        "values_of_the_grid": grid["values_of"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=len(DEPTHS) * len(RATES))
    parser.add_argument("--images", type=int)
    parser.add_argument("--arm", nargs=2)
    options = parser.parse_args()
    if options.arm:
        from jobs import environment

        environment.prepare()
        arm, config = options.arm
        print(json.dumps(ARMS[arm](json.loads(config)), default=str))
        return
    if not WEIGHTS.is_file():
        sys.exit(f"no fixtures at {harness.FIXTURES}; set VTRAY_FIXTURES")
    with tempfile.TemporaryDirectory() as folder:
        images = fewer_images(Path(folder, "images"), options.images)
        found = summary(compared(Path(folder), images, trials=options.trials))
    name = "tune" if options.images is None else "tune-tried"
    assert all(math.isfinite(found[key]) for key in ("search_s", "uncached_s"))
    harness.write(name, found)


if __name__ == "__main__":
    main()
