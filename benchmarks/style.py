"""Style transfer against the loops that people write today, interleaved in one run; needs the fixtures.

python benchmarks/style.py [race] [batch]

race   our default against plain torch.optim.LBFGS, fp32 and 120 evaluations long: the loss of the 8-bit result,
       and CPU time. Two sizes, two weightings, ten pairs each; at one weighting also against a loop as in the
       PyTorch tutorial, and our Adam. About 20 minutes on two cores.
batch  engine.batch 4 against 1 for the same four contents, on one thread: as used on a CPU, and optimized together
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import harness
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(harness.ROOT))

from vtray.steps.worker import prepare_worker
from vtray.style.engines.optimize import OptimizeEngine
from vtray.style.engines.stylized import Request
from vtray.style.objective import Objective, Region
from vtray.style.pixels import resized, rounded, to_pixels
from vtray.style.probe import choose_numerics
from vtray.style.work import FeatureSpec, LossSpec, OptimizeSpec, StyleImage, StyleWork

EVALUATIONS = 120
SIZES = (128, 192)
WEIGHTINGS = {
    "strength 0.5": LossSpec(),
    "lecture 1, 3000, 3": LossSpec(content_weight=1.0, style_weight=3e3, tv_weight=3.0),
}
FULL_FIELD = "strength 0.5"  # the weighting at which all opponents run; they take half of the time
CONTENTS = ("astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.bmp", "parrot.jpg")
STYLES = ("starry_night.jpg", "shipwreck_turner.jpg")
PAIRS = tuple(product(CONTENTS, STYLES))
WEIGHTS = harness.FIXTURES / "style" / "vgg_normalised" / "vgg_normalised_conv3_1.pth"
LAYERS = {"relu1_1": 3, "relu2_1": 10, "relu3_1": 17}
FEATURES = FeatureSpec(
    network="vgg19_normalised",
    weights_uri=str(WEIGHTS),
    weights_sha256="",
    content_layers=("relu3_1",),
    style_layers=tuple(LAYERS),
)


def square(folder: str, name: str, side: int) -> np.ndarray:
    """The middle of a fixture as a square image of that side."""
    image = np.asarray(Image.open(harness.FIXTURES / folder / name).convert("RGB"))
    height, width = image.shape[:2]
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    return resized(np.ascontiguousarray(image[top : top + least, left : left + least]), (side, side))


def work_of(style: str, side: int, loss: LossSpec, **optimize: Any) -> StyleWork:
    """One piece of work in the numerics that are fastest here."""
    image = StyleImage(name=style, image=square("style_images", style, side), sha256=f"{style} {side}")
    work = StyleWork(styles=(image,), features=FEATURES, loss=loss, optimize=OptimizeSpec(**optimize))
    best, _ = choose_numerics(work)
    return replace(work, features=replace(FEATURES, precision=best.precision, layout=best.layout))


# the textbook opponents: plain fp32 torch, nothing of ours in the loop ----------------------------------------


def textbook_network() -> nn.Sequential:
    """The normalised VGG-19 to relu3_1 as a plain Sequential with the indices of its file."""
    tensors = torch.load(WEIGHTS, weights_only=True)
    layers: list[nn.Module] = []
    for index in range(18):
        if f"{index}.weight" in tensors:
            out, into, side, _ = tensors[f"{index}.weight"].shape
            layers.append(nn.Conv2d(into, out, side))
        elif index in (7, 14):
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        elif f"{index + 1}.weight" in tensors:
            layers.append(nn.ReflectionPad2d(1))
        else:
            layers.append(nn.ReLU())
    network = nn.Sequential(*layers)
    network.load_state_dict(tensors)
    return network.requires_grad_(False).eval()


@dataclass(frozen=True, eq=False)
class Textbook:
    """The same loss as our objective's, written as in a tutorial."""

    network: nn.Sequential
    content: Tensor
    grams: dict[str, Tensor]
    ours: Objective

    @classmethod
    def of(cls, content: Tensor, style: Tensor, ours: Objective) -> "Textbook":
        network = textbook_network()
        found = features(network, content)
        grams = {name: gram(feature) for name, feature in features(network, style).items()}
        return cls(network, found["relu3_1"], grams, ours)

    def __call__(self, pixels: Tensor) -> Tensor:
        found = features(self.network, pixels)
        content = (found["relu3_1"] - self.content).pow(2).mean()
        styles = {name: (gram(found[name]) - target).pow(2).mean() for name, target in self.grams.items()}
        units = self.ours.units
        if units:
            content = content / units["content relu3_1"][0]
            style = sum(loss / units[f"style {name}"][0] for name, loss in styles.items()) / len(styles)
        else:
            style = sum(styles.values())
        rows, columns = pixels[..., 1:, :] - pixels[..., :-1, :], pixels[..., 1:] - pixels[..., :-1]
        noise = (rows.abs().mean() + columns.abs().mean()) / 2
        weigh_content, weigh_style, weigh_tv = self.ours.weights
        return weigh_content * content + weigh_style * style + weigh_tv * noise

    def of_image(self, pixels: Tensor) -> float:
        """The loss of the 8-bit image."""
        with torch.no_grad():
            return float(self(rounded(pixels)))


def features(network: nn.Sequential, pixels: Tensor) -> dict[str, Tensor]:
    found = {}
    for index, layer in enumerate(network):
        pixels = layer(pixels)
        for name, number in LAYERS.items():
            if number == index:
                found[name] = pixels
    return found


def gram(features: Tensor) -> Tensor:
    _, channels, height, width = features.shape
    flat = features.view(channels, height * width)
    return flat @ flat.t() / (channels * height * width)


def plain_lbfgs(loss: Textbook, content: Tensor) -> Tensor:
    """torch.optim.LBFGS as it comes, one call of 120 evaluations; clamped when it is done."""
    pixels = content.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([pixels], max_iter=EVALUATIONS, max_eval=EVALUATIONS)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(pixels)
        value.backward()
        return value

    optimizer.step(closure)
    return pixels.detach()


def tutorial_loop(loss: Textbook, content: Tensor) -> Tensor:
    """As the PyTorch tutorial: LBFGS with its defaults, the image clamped inside the closure and at the end."""
    pixels = content.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([pixels])
    evaluations = 0
    while evaluations < EVALUATIONS:

        def closure() -> Tensor:
            nonlocal evaluations
            with torch.no_grad():
                pixels.clamp_(0, 1)
            optimizer.zero_grad()
            value = loss(pixels)
            value.backward()
            evaluations += 1
            return value

        optimizer.step(closure)
    return pixels.detach()


@dataclass(eq=False)
class Trace:
    """CPU seconds and the loss of the best 8-bit image so far, as told by our engine; measuring does not count."""

    loss: Textbook
    side: int
    points: list[tuple[float, float]] = field(default_factory=list)
    paused: float = 0.0
    started: float = field(default_factory=time.process_time)

    def __call__(self, pixels: Tensor, steps: Tensor) -> None:
        here = time.process_time()
        if pixels.shape[-1] == self.side:  # coarser levels have no loss of the full size
            self.points.append((here - self.started - self.paused, self.loss.of_image(pixels)))
        self.paused += time.process_time() - here

    def result(self, image: Tensor) -> dict[str, Any]:
        seconds = time.process_time() - self.started - self.paused
        return {"seconds": seconds, "loss": self.loss.of_image(image), "trace": self.points}


# the race -----------------------------------------------------------------------------------------------------


def race(content: str, style: str, side: int, weighting: str) -> dict[str, Any]:
    """One pair: 8-bit loss and CPU seconds of every contestant, in turn, and the loss of the content image."""
    torch.set_num_threads(1)
    prepare_worker()  # for all of them: freed memory stays with the process
    image = square("content", content, side)
    pixels = to_pixels([image])
    works = {name: work_of(style, side, WEIGHTINGS[weighting], optimizer=name) for name in ("lbfgs", "adam")}
    ours = fp32_objective(pixels, works["lbfgs"])
    loss = Textbook.of(pixels, to_pixels([works["lbfgs"].styles[0].image]), ours)

    def engine(name: str) -> dict[str, Any]:
        loaded = OptimizeEngine.load(works[name])
        loaded.targets.blend(side)  # computed once per job, as is loading
        trace = Trace(loss, side)
        made = replace(loaded, report=trace).stylize([Request(image=image)])[0]
        return trace.result(to_pixels([made.image])) | {"steps": made.steps}

    def loop(minimize: Callable[[Textbook, Tensor], Tensor]) -> dict[str, Any]:
        return Trace(loss, side).result(minimize(loss, pixels))

    results = {
        "start": loss.of_image(pixels),
        "agreement": float(ours.measure(pixels).total[0]) / loss.of_image(pixels) - 1,
        "vtray": engine("lbfgs"),
        "plain_lbfgs": loop(plain_lbfgs),
    }
    if weighting == FULL_FIELD:
        results |= {"vtray_adam": engine("adam"), "tutorial": loop(tutorial_loop)}
    return results


def fp32_objective(pixels: Tensor, work: StyleWork) -> Objective:
    """Our objective of the content image in fp32, whose units and weights the textbook uses."""
    exact = OptimizeEngine.load(replace(work, features=replace(work.features, precision="fp32", layout="nchw")))
    return Objective.of(
        pixels,
        (Region(grams=exact.targets.blend(max(pixels.shape[-2:]))),),
        extractor=exact.extractor,
        features=FEATURES,
        loss=work.loss,
    )


def races() -> Iterator[tuple[str, str, int, str]]:
    for side, weighting, (content, style) in product(SIZES, WEIGHTINGS, PAIRS):
        yield content, style, side, weighting


def run_races() -> dict[str, Any]:
    """All races, on as many single-threaded processes as there are cores; each race stays in one process."""
    cores = os.cpu_count() or 1
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "worker", str(number), str(cores)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for number in range(cores)
    ]
    lines = [line for process in processes for line in process.communicate()[0].splitlines()]
    return summarize([json.loads(line) for line in lines])


def worker(number: int, of: int) -> None:
    """Every `of`-th race, one JSON line each."""
    for index, entry in enumerate(races()):
        if index % of == number:
            names = dict(zip(("content", "style", "side", "weighting"), entry, strict=True))
            result = names | race(*entry)
            print(json.dumps(result), flush=True)
            share = seconds_to(result["vtray"]["trace"], result["plain_lbfgs"]["loss"])
            print(*entry, f"{share / result['plain_lbfgs']['seconds']:.3f}", file=sys.stderr, flush=True)


def summarize(results: list[dict[str, Any]]) -> dict[str, Any]:
    """For each size and weighting: ours against the two loops and against our Adam."""
    pairs = (("vtray", "plain_lbfgs"), ("vtray", "tutorial"), ("vtray_adam", "plain_lbfgs"))
    table = {}
    for side, weighting in product(SIZES, WEIGHTINGS):
        rows = [row for row in results if (row["side"], row["weighting"]) == (side, weighting)]
        table[f"{side} px, {weighting}"] = {"pairs": len(rows)} | {
            f"{one}_against_{other}": compare([(row[one], row[other]) for row in rows])
            for one, other in pairs
            if all(one in row and other in row for row in rows)
        }
    agreement = max(abs(row["agreement"]) for row in results)
    return {"evaluations": EVALUATIONS, "loss_agreement": agreement, "summary": table, "races": results}


def compare(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
    """time_to_loss: share of the other's CPU time until our 8-bit loss is as low as its final one, 99 if never.

    wins: pairs on which that happens. time: share of the other's time that the whole run takes. loss: ratio.
    """
    to_loss = [seconds_to(one["trace"], other["loss"]) / other["seconds"] for one, other in pairs]
    return {
        "time_to_loss_median": min(statistics.median(to_loss), 99),
        "wins": sum(ratio < math.inf for ratio in to_loss),
        "within_a_quarter": sum(ratio <= 0.25 for ratio in to_loss),
        "time_median": statistics.median(one["seconds"] / other["seconds"] for one, other in pairs),
        "loss_median": statistics.median(one["loss"] / other["loss"] for one, other in pairs),
    }


def seconds_to(trace: list[tuple[float, float]], target: float) -> float:
    """When a loss was reached; infinite if it was not."""
    return next((seconds for seconds, loss in trace if loss <= target), math.inf)


# batches ------------------------------------------------------------------------------------------------------


def batch_against_singles() -> dict[str, Any]:
    """CPU seconds per image of four contents with engine.batch 1 and 4, in turn, and how far the images differ."""
    torch.set_num_threads(1)
    return {f"{side} px": _batches_of(side) for side in SIZES}


def _batches_of(side: int) -> dict[str, Any]:
    requests = [Request(image=square("content", name, side)) for name in CONTENTS[:4]]
    shared = {"steps": 10, "coarse_steps": 5, "tolerance": 0.0}
    single, four = (
        OptimizeEngine.load(work_of(STYLES[0], side, LossSpec(), batch=batch, **shared)) for batch in (1, 4)
    )
    engines = {"single": single, "batch": four, "together": replace(four, batch_on_cpu=True)}
    images: dict[str, list[np.ndarray]] = {}

    def timed(name: str) -> float:
        started = time.process_time()
        images[name] = [made.image for made in engines[name].stylize(requests)]
        return (time.process_time() - started) / len(requests)

    seconds = harness.interleaved({name: partial(timed, name) for name in engines}, rounds=5)
    return {
        f"single_over_{name}": harness.ratios(seconds, of="single", to=name) for name in ("batch", "together")
    } | {
        "seconds_per_image": harness.medians(seconds),
        "levels_apart": {name: _apart(images["single"], images[name]) for name in ("batch", "together")},
    }


def _apart(ones: list[np.ndarray], others: list[np.ndarray]) -> int:
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in zip(ones, others, strict=True))


def main() -> None:
    if not WEIGHTS.is_file():
        sys.exit(f"no fixtures at {harness.FIXTURES}; set VTRAY_FIXTURES")
    if sys.argv[1:2] == ["worker"]:
        return worker(int(sys.argv[2]), int(sys.argv[3]))
    chosen = sys.argv[1:] or ["race", "batch"]
    result: dict[str, Any] = {}
    if "batch" in chosen:
        result["batch"] = batch_against_singles()
    if "race" in chosen:
        result["race"] = run_races()
    harness.write("style" if not sys.argv[1:] else f"style-{'-'.join(chosen)}", result)
    return None


if __name__ == "__main__":
    main()
