"""Training fast styles on photographs: how good in how much time, and whether a kill changes anything.

python benchmarks/train_style.py [one] [many] [resume] [--minutes N] [--steps N]

one     a network for starry_night: style and content losses of 20 photographs that it never saw, next to the
        unstylized start and to the engine `optimize` at its default on six of them. 15 minutes of training.
many    a network for four styles: of 20 unseen photographs, how many results are nearest to their own style, and
        the distances along a blend of two styles. 25 minutes of training.
resume  SIGKILL twice and rerun: the same weights as without. A minute.

Needs the fixtures. The number of steps comes from a probe and the minutes, unless --steps says it.
"""

import argparse
import hashlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(harness.ROOT))

from pipelines import train_style
from pipelines.machine import this_machine
from pipelines.train_style_config import TrainStyleConfig
from pipelines.train_style_estimate import estimate
from vtray import settings
from vtray.images import decode
from vtray.style.engines.optimize import OptimizeEngine
from vtray.style.engines.stylized import Request
from vtray.style.fast.load import FastModel, load_fast
from vtray.style.features import FeatureExtractor
from vtray.style.losses import gram_matrix, style_loss
from vtray.style.objective import Objective, Region
from vtray.style.pixels import resized, rounded, to_pixels
from vtray.style.targets import StyleTargets
from vtray.style.work import FeatureSpec, Image, LossSpec, StyleImage, StyleWork

FIXTURES = harness.FIXTURES
SIZE_PX = 256
NUM_UNSEEN, NUM_OPTIMIZED = 20, 6
MINUTES = {"one": 15.0, "many": 25.0}
SPENT_ON_STEPS = 0.85  # of the minutes; the rest is start, sheets and the end
STYLES = ("starry_night.jpg", "shipwreck_turner.jpg", "great_wave_hokusai.png", "panel_peonies.png")
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
FEATURES = FeatureSpec(
    network="vgg19_normalised",
    weights_uri=str(FIXTURES / "style" / "vgg_normalised" / "vgg_normalised_conv3_1.pth"),
    weights_sha256="",
    content_layers=("relu3_1",),
    style_layers=("relu1_1", "relu2_1", "relu3_1"),
)
NETWORKS = {
    "one": {"engine": "feedforward", "width": 16},
    "many": {"engine": "msgnet", "width": 32, "filters": 16, "num_blocks": 3},
}
STRENGTHS = {"one": 0.2, "many": 0.35}  # one is judged by its content too
RUN = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from jobs import environment, train_style
environment.prepare()
train_style.train_style(Path({file!r}), [], dry_run=False)
"""


# what is trained -------------------------------------------------------------------------------------------------


def gather(folder: Path) -> Path:
    """The fixtures' content images and the training photographs of the groceries in one folder."""
    folder.mkdir()
    groceries = sorted((FIXTURES / "datasets" / "grocery10" / "train").rglob("*.jpg"))
    for path in (*sorted((FIXTURES / "content").iterdir()), *groceries):
        shutil.copy(path, folder / path.name)
    return folder


def config_of(kind: str, images: Path, output: Path, **values: Any) -> TrainStyleConfig:
    names = STYLES[:1] if kind == "one" else STYLES
    fixed: dict[str, Any] = {
        "input": {"uri": str(images)},
        "output": {"uri": str(output)},
        "style": {
            "uri": [str(FIXTURES / "style_images" / name) for name in names],
            "size_px": SIZE_PX,
            "strength": STRENGTHS[kind],
        },
        "network": NETWORKS[kind],
        "crops": {"crop_px": 128, "size_px": SIZE_PX},
        "features": {"network": FEATURES.network, "weights": FEATURES.weights_uri},
        "loop": {"batch_size": 4, "lr": 4e-3, "warmup_steps": 30},
        "tracking": {"uri": "none"},
        "num_workers": 0,
        "use_gpu": False,
    }
    for key, value in values.items():
        fixed[key] = fixed[key] | value if isinstance(fixed.get(key), dict) else value
    return TrainStyleConfig.model_validate(fixed)


def trained(kind: str, folder: Path, options: argparse.Namespace) -> tuple[FastModel, dict[str, Any]]:
    """The model after as many steps as the minutes allow, and what the training took."""
    images = gather(folder / "images")
    config = config_of(kind, images, folder / "out")
    probed = estimate(config).numerics
    seconds = 60 * (options.minutes or MINUTES[kind]) * SPENT_ON_STEPS
    steps = options.steps or max(50, int(seconds / probed.step_s))
    values = {"steps": steps, "preview_every": max(10, steps // 50 * 10)}
    chosen = {"precision": probed.precision, "layout": probed.layout}
    config = config_of(kind, images, folder / "out", loop=values, features=chosen)
    started, cpu = time.perf_counter(), time.process_time()
    report = train_style.run(config)
    took = {
        "steps": steps,
        "steps_per_s": steps / (time.perf_counter() - started),
        "minutes": (time.perf_counter() - started) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        "threads": int(this_machine().num_cpus),
        "arithmetic": f"{report.precision} {report.layout}",
        "probed_step_s": dict(probed.seconds),
        "network": NETWORKS[kind],
        "strength": config.style.strength,
    }
    if options.keep:
        shutil.copytree(folder / "out" / "model", options.keep, dirs_exist_ok=True)
    return load_fast(str(folder / "out")), took


# what it is measured with ----------------------------------------------------------------------------------------


def unseen() -> Iterator[tuple[str, Image]]:
    """Two photographs of each grocery's test split, with a longer side of SIZE_PX."""
    for folder in sorted((FIXTURES / "datasets" / "grocery10" / "test").iterdir()):
        for path in sorted(folder.glob("*.jpg"))[: NUM_UNSEEN // 10]:
            image = decode(path.read_bytes()).image
            factor = SIZE_PX / max(image.shape[:2])
            yield path.name, resized(image, (round(image.shape[0] * factor), round(image.shape[1] * factor)))


def style_of(name: str) -> StyleImage:
    image = decode((FIXTURES / "style_images" / name).read_bytes()).image
    return StyleImage(name=Path(name).stem, image=image, sha256=name)


@dataclass(frozen=True, eq=False)
class Judge:
    """Losses in fp32, whatever a network was trained with."""

    extractor: FeatureExtractor
    styles: tuple[StyleImage, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> "Judge":
        return cls(FeatureExtractor.load(FEATURES), tuple(map(style_of, names)))

    def objective(self, pixels: Tensor, style: StyleImage) -> Objective:
        targets = StyleTargets(extractor=self.extractor, styles=(style,), layers=FEATURES.style_layers)
        region = Region(grams=targets.blend(max(pixels.shape[-2:])))
        return Objective.of(pixels, (region,), extractor=self.extractor, features=FEATURES, loss=LossSpec())

    def losses(self, image: Image, result: Tensor, style: StyleImage) -> dict[str, float]:
        """Content loss of a result, and its style loss as a share of the unstylized image's."""
        objective = self.objective(to_pixels([image]), style)
        before, after = objective.measure(to_pixels([image])), objective.measure(rounded(result))
        return {"content": float(after.content[0]), "style_share": float(after.style[0] / before.style[0])}

    @torch.no_grad()
    def distances(self, result: Tensor) -> list[float]:
        """The style loss of a result against each style."""
        found = self.extractor(rounded(result))
        each = []
        for style in self.styles:
            targets = StyleTargets(extractor=self.extractor, styles=(style,), layers=FEATURES.style_layers)
            grams = targets.blend(max(result.shape[-2:]))
            losses = [style_loss(gram_matrix(found[layer]), grams[layer]) for layer in FEATURES.style_layers]
            each.append(float(torch.stack(losses).sum()))
        return each


@torch.inference_mode()
def painted(model: FastModel, image: Image, gram: Tensor | None = None) -> Tensor:
    """One pass of the network: pixels in 0 to 1."""
    levels = to_pixels([image]) * 255
    result: Tensor = model.network(levels) if gram is None else model.network(levels, gram)
    return (result / 255).clone()


# the comparisons -------------------------------------------------------------------------------------------------


def one(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    model, took = trained("one", folder, options)
    judge, style = Judge.of(STYLES[:1]), style_of(STYLES[0])
    rows = {name: judge.losses(image, painted(model, image), style) for name, image in unseen()}
    optimized = dict(
        optimize_default(style, list(unseen())[:: NUM_UNSEEN // NUM_OPTIMIZED][:NUM_OPTIMIZED], judge)
    )
    ratios = [rows[name]["content"] / losses["content"] for name, losses in optimized.items()]
    shares = [row["style_share"] for row in rows.values()]
    return {
        "training": took,
        "unseen": len(rows),
        "style_share": {"mean": statistics.mean(shares), "max": max(shares)},
        "content": statistics.mean(row["content"] for row in rows.values()),
        "optimize": {
            "images": len(optimized),
            "content": statistics.mean(losses["content"] for losses in optimized.values()),
            "style_share": statistics.mean(losses["style_share"] for losses in optimized.values()),
        },
        "content_to_optimize": {
            "of_means": statistics.mean(rows[name]["content"] for name in optimized)
            / statistics.mean(losses["content"] for losses in optimized.values()),
            "max": max(ratios),
        },
        "images": {name: row | {"optimize": optimized.get(name)} for name, row in rows.items()},
    }


def optimize_default(
    style: StyleImage, images: Sequence[tuple[str, Image]], judge: Judge
) -> Iterator[tuple[str, dict[str, float]]]:
    """What the engine `optimize` makes of the same photographs at its default."""
    features = replace(FEATURES, precision="bf16", layout="nhwc")
    work = StyleWork(styles=(style,), features=features, threads=int(this_machine().num_cpus))
    engine = OptimizeEngine.load(work)
    for name, image in images:
        (made,) = engine.stylize([Request(image=image)])
        assert made.image is not None
        yield name, judge.losses(image, to_pixels([made.image]), style)


def many(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    model, took = trained("many", folder, options)
    judge = Judge.of(STYLES)
    nearest: dict[str, int] = {}
    shares: dict[str, float] = {}
    images = list(unseen())
    for number, style in enumerate(judge.styles):
        found = [judge.distances(painted(model, image, model.grams[style.name])) for _, image in images]
        before = [judge.distances(to_pixels([image]))[number] for _, image in images]
        nearest[style.name] = sum(int(np.argmin(each) == number) for each in found)
        shares[style.name] = statistics.mean(each[number] for each in found) / statistics.mean(before)
    return {
        "training": took,
        "unseen": len(images),
        "nearest_to_own_style": nearest,
        "style_share": shares,
        "blend": blend(model, judge, images[::4]),
    }


def blend(model: FastModel, judge: Judge, images: Sequence[tuple[str, Image]]) -> dict[str, Any]:
    """Mean distances to the first two styles on the way from one to the other."""
    one, other = (style.name for style in judge.styles[:2])
    rows = []
    for share in BLENDS:
        gram = (1 - share) * model.grams[one] + share * model.grams[other]
        found = [judge.distances(painted(model, image, gram)) for _, image in images]
        rows.append([statistics.mean(each[number] for each in found) for number in (0, 1)])
    away, nearer = ([row[number] for row in rows] for number in (0, 1))
    return {
        "styles": [one, other],
        "shares": list(BLENDS),
        "distance_to_first": away,
        "distance_to_second": nearer,
        "monotonic": away == sorted(away) and nearer == sorted(nearer, reverse=True),
    }


def resume(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The weights of a calm run, and of one that was killed twice."""
    images = gather(folder / "images")
    steps = options.steps or 24
    loop = {"steps": steps, "log_every": 2, "checkpoint_every": 4, "preview_every": 12, "batch_size": 2}
    numerics = {"precision": "fp32", "layout": "nchw"}  # what is measured may differ from run to run
    fixed = {"crops": {"crop_px": 64, "size_px": 64}, "loop": loop, "features": numerics}
    calm, killed = (config_of("one", images, folder / name, **fixed) for name in ("calm", "killed"))
    train_style.run(calm)
    file = folder / "run.yaml"
    file.write_text(settings.dump(killed))
    kills = [kill_after(file, folder / "killed", records) for records in (steps // 6, steps // 3)]
    subprocess.run(command(file), check=True)
    hashes = [
        hashlib.sha256((folder / name / "model" / "model.safetensors").read_bytes()).hexdigest()
        for name in ("calm", "killed")
    ]
    return {"steps": steps, "killed_after_records": kills, "sha256": hashes, "same": hashes[0] == hashes[1]}


def command(file: Path) -> list[str]:
    return [sys.executable, "-c", RUN.format(root=str(harness.ROOT), file=str(file))]


def kill_after(file: Path, output: Path, records: int) -> int:
    """Start the job and kill it when so many records are there; returns how many there were."""
    process = subprocess.Popen(command(file))
    while len(list(output.glob("_vtray/training-*/epochs/*.json"))) < records and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(output.glob("_vtray/training-*/epochs/*.json")))


COMPARISONS = {"one": one, "many": many, "resume": resume}


def main() -> None:
    """Run the comparisons that the command line names, or all, and keep each result."""
    parser = argparse.ArgumentParser(description="training fast styles on photographs")
    parser.add_argument("names", nargs="*", choices=[*COMPARISONS, []], default=list(COMPARISONS))
    parser.add_argument("--minutes", type=float, help="of training; default: 15 and 25")
    parser.add_argument("--steps", type=int, help="instead of what fits into the minutes")
    parser.add_argument("--keep", type=Path, help="folder for the trained model")
    options = parser.parse_args()
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            harness.write(f"train-style-{name}", COMPARISONS[name](Path(folder), options))


if __name__ == "__main__":
    main()
