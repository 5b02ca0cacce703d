"""Fine-tuning against plain PyTorch, and what the cache saves; needs the fixtures and a quiet machine.

python benchmarks/finetune.py [arithmetic] [cache] [loop] [epochs]

arithmetic  our own choice of precision and layout against the textbook's loop (fp32, NCHW), one thread
cache       an epoch on cached activations against one that computes them again from stored crops, and against one
            that trains everything, one thread
loop        a worker on Ray with a stream of augmented images against PyTorch with a DataLoader, after start-up
epochs      fifty short epochs of a worker on Ray, from the start of the first to the end of the last
"""

import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import harness
import torch
from harness import Opponent, interleaved, medians, opponents, ratios
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

sys.path.insert(0, str(harness.ROOT))

from pipelines.finetune_config import FinetuneConfig
from pipelines.finetune_rows import Store, build_rows, phase_rows
from pipelines.finetune_work import FinetuneWork
from vtray.classify.activations import Activations
from vtray.classify.backbone import Classifier, build_classifier, load_weights_into
from vtray.classify.batches import StoredRows
from vtray.classify.finite_guard import FiniteGuard
from vtray.classify.freezing import freeze
from vtray.classify.loop import Batch, Trainer
from vtray.classify.numerics import Numerics, choose
from vtray.classify.preprocessing import decode_for
from vtray.classify.published import preprocessing_of
from vtray.classify.sampling import Sampling
from vtray.classify.train_spec import TrainSpec
from vtray.steps.worker import prepare_worker
from vtray.weights import load_weights

IMAGES = harness.FIXTURES / "datasets" / "grocery10"
WEIGHTS = {"mobilenet_v2": harness.FIXTURES / "weights" / "mobilenet_v2_imagenet.pth"}  # others: random
GOALS = {"mobilenet_v2": 1.3, "squeezenet1_1": 1.8, "resnet18": 2.0}
PROBE_GOAL, PREFIX_GOAL, LOOP_GOAL, EPOCHS_GOAL_S = 50, 3, 0.95, 10
CLASSES, BATCH, LR, WEIGHT_DECAY = 10, 16, 1e-4, 0.01
STEPS, STEP_ROUNDS = 2, 7
CACHED_IMAGES, CACHE_ROUNDS = 96, 5
LOOP_IMAGES, LOOP_EPOCHS, LOOP_ROUNDS, LOOP_THREADS = 160, 3, 2, 2
SHORT_EPOCHS, SHORT_BATCH, SHORT_RUNS = 50, 2, 3
Work = Callable[[], None]


def pretrained(backbone: str) -> Classifier:
    """The network that all contestants train, with a new head; the same at every call."""
    torch.manual_seed(0)
    classifier = build_classifier(backbone, num_classes=CLASSES)
    if backbone in WEIGHTS:
        weights = load_weights(str(WEIGHTS[backbone]))
        load_weights_into(classifier, weights.tensors, uri=weights.uri, head=False)
    return classifier


def batches_of_photographs(backbone: str) -> list[Batch]:
    """STEPS batches of prepared training images, uint8 (BATCH, 3, 224, 224); labels are arbitrary."""
    preprocessing = preprocessing_of(backbone)
    paths = sorted(IMAGES.glob("train/*/*"))[:: CLASSES // 2][: STEPS * BATCH]
    crops = torch.stack([torch.tensor(decode_for(preprocessing, path.read_bytes())) for path in paths])
    return [
        Batch(inputs=part.permute(0, 3, 1, 2).contiguous(), labels=torch.arange(BATCH) % CLASSES, image_ids=())
        for part in crops.split(BATCH)
    ]


def timed(started: Mapping[str, Opponent], *, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each contestant on the CPU and on the clock, taken in turn."""
    clock: dict[str, list[float]] = {name: [] for name in started}

    def once(name: str) -> float:
        start = time.perf_counter()
        seconds = started[name].seconds()
        clock[name].append(time.perf_counter() - start)
        return seconds

    cpu = interleaved({name: partial(once, name) for name in started}, rounds=rounds)
    return {"cpu": cpu, "clock": {name: values[1:] for name, values in clock.items()}}


# arithmetic: the contestants, each in its own process ---------------------------------------------------------


def vtray_steps(argument: str) -> Work:
    """Our optimizer steps as `Trainer.train_epoch` takes them; argument: backbone, precision and layout."""
    backbone, precision, layout = argument.split()
    torch.set_num_threads(1)
    prepare_worker()
    spec = TrainSpec(
        epochs=1,
        steps_per_epoch=10**6,
        batch_size=BATCH,
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        head_lr_factor=1,
        precision=precision,
        layout=layout,
    )
    trainer = Trainer(pretrained(backbone), spec, preprocessing=preprocessing_of(backbone))
    batches, guard = batches_of_photographs(backbone), FiniteGuard(every=1)

    def work() -> None:
        for step, batch in enumerate(batches):
            trainer.train_step([batch], factor=1.0, place=(0, step), guard=guard)

    return work


def textbook_steps(backbone: str) -> Work:
    """The loop of a tutorial on pixels that are normalised already, which costs it nothing."""
    torch.set_num_threads(1)
    network = textbook_network(backbone)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    prepare = preprocessing_of(backbone).pixels
    batches = [(prepare(batch.inputs), batch.labels) for batch in batches_of_photographs(backbone)]
    return lambda: textbook_epoch(network, optimizer, batches)


def textbook_network(backbone: str) -> nn.Module:
    """torchvision's own module with the weights of `pretrained`."""
    network = models.get_model(backbone, num_classes=CLASSES)
    network.load_state_dict(pretrained(backbone).network.state_dict())
    return network.train()


def textbook_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> None:
    """One pass over batches of pixels and labels."""
    running = 0.0
    for pixels, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(pixels), labels)
        loss.backward()
        optimizer.step()
        running += loss.item()


def arithmetic() -> dict[str, Any]:
    """Images per second of the network's training steps: ours over the textbook's."""
    torch.set_num_threads(1)
    prepare_worker()
    return {"threads": 1, "batch": BATCH, "bf16_units": bf16_units()} | {
        backbone: race(backbone, goal) for backbone, goal in GOALS.items()
    }


def race(backbone: str, goal: float) -> dict[str, Any]:
    """One network, with the arithmetic that our probe chooses for it here."""
    batch = batches_of_photographs(backbone)[0]
    chosen = choose(pretrained(backbone), preprocessing_of(backbone).pixels(batch.inputs))
    makers = {
        "vtray": partial(Opponent, "finetune", "vtray_steps", f"{backbone} {chosen.precision} {chosen.layout}"),
        "textbook": partial(Opponent, "finetune", "textbook_steps", backbone),
    }
    with opponents(makers) as started:
        seconds = timed(started, rounds=STEP_ROUNDS)
    images = STEPS * BATCH
    speed = {name: images / value for name, value in medians(seconds["clock"]).items()}
    return {
        "goal": goal,
        "chosen": described(chosen),
        "speedup": ratios(seconds["clock"], of="textbook", to="vtray"),
        "speedup_cpu_time": ratios(seconds["cpu"], of="textbook", to="vtray"),
        "images_per_s": speed,
        "gflop_per_s": {name: gflop_per_image(backbone) * value for name, value in speed.items()},
    }


def described(chosen: Numerics) -> dict[str, Any]:
    """What the probe chose, and its seconds per step of 16 images, forward and backward."""
    return {"numerics": f"{chosen.precision} {chosen.layout}", "probe_seconds": dict(chosen.seconds)}


def gflop_per_image(backbone: str) -> float:
    """Of one training step: two operations per multiply-add, once forward and twice backward."""
    return 2 * 3 * float(models.get_model_weights(backbone).DEFAULT.meta["_ops"])


def bf16_units() -> list[str]:
    """The instructions for bf16 that this CPU has."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return [name for name in ("avx512_bf16", "amx_bf16") if name in flags]


# cache ----------------------------------------------------------------------------------------------------------


def cached_epochs(argument: str) -> Work:
    """Training epochs as in a worker, on stored rows; argument: `epochs_of` as JSON."""
    torch.set_num_threads(1)
    prepare_worker()
    given = json.loads(argument)
    stored = StoredRows(rows=Activations.load(given["uri"], "train"))
    sampling = Sampling(num_images=len(stored.rows), batch_size=BATCH, seed=0)
    spec = TrainSpec(
        epochs=10**6,
        steps_per_epoch=sampling.steps_per_epoch,
        batch_size=BATCH,
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        start=given["start"],
        precision=given["precision"],
        layout=given["layout"],
    )
    classifier = pretrained("mobilenet_v2")
    freeze(classifier, frozenset(range(given["frozen"])))
    trainer = Trainer(classifier, spec, preprocessing=preprocessing_of("mobilenet_v2"))
    numbers = itertools.count()

    def work() -> None:
        for epoch in itertools.islice(numbers, given["times"]):
            trainer.train_epoch(epoch, stored.batches(sampling, epoch, rank=0, size=1))

    return work


def cache(folder: Path) -> dict[str, Any]:
    """Epochs of a linear probe and of training the last quarter; both sides choose their arithmetic."""
    torch.set_num_threads(1)
    prepare_worker()
    few_images(folder / "images", CACHED_IMAGES)
    work = FinetuneWork.of(config_for(folder, "cache", num_workers=0), device="cpu")
    stages = len(work.stage_names)
    result: dict[str, Any] = {"threads": 1, "backbone": "mobilenet_v2", "images": CACHED_IMAGES, "batch": BATCH}
    for name, frozen, goal in (
        ("linear_probe", stages, PROBE_GOAL),
        ("three_quarters", stages * 3 // 4, PREFIX_GOAL),
    ):
        told = {"goal": goal, "frozen": f"{frozen} of {stages} stages", "macs_allow": macs_allow(frozen)}
        result[name] = told | epochs_compared(work, frozen)
    return result


def macs_allow(frozen: int) -> dict[str, float]:
    """How much less there is to multiply with a cache; a backward pass counts as two forward passes.

    over_frozen: than with the same stages frozen and no cache. over_full: than when everything is trained.
    """
    classifier, pixels = pretrained("mobilenet_v2").eval(), torch.zeros(1, 3, 224, 224)

    def multiplied(run: Callable[[], object]) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    activations = classifier.prefix(pixels, frozen)
    behind = multiplied(lambda: classifier(activations, start=frozen)) / multiplied(lambda: classifier(pixels))
    return {"over_frozen": (1 + 2 * behind) / (3 * behind), "over_full": 1 / behind}


def epochs_compared(work: FinetuneWork, frozen: int) -> dict[str, Any]:
    """Epochs from activations, against those from stored crops with the same stages frozen and with none."""
    classifier = work.pretrained()
    work.with_head(classifier, None)
    stores = {"crops": Store(num_frozen=0, train=True), "activations": Store(num_frozen=frozen, train=True)}
    built = build_rows(work, tuple(stores.values()), classifier)
    rows = {name: phase_rows(store, built[store]) for name, store in stores.items()}
    epochs = {"full": epochs_of(classifier, rows["crops"])}
    freeze(classifier, frozenset(range(frozen)))
    epochs |= {name: epochs_of(classifier, rows[name]) for name in stores}
    makers = {name: partial(Opponent, "finetune", "cached_epochs", json.dumps(e)) for name, e in epochs.items()}
    with opponents(makers) as started:
        seconds = timed(started, rounds=CACHE_ROUNDS)
    each = {
        kind: {name: [value / epochs[name]["times"] for value in values] for name, values in of_kind.items()}
        for kind, of_kind in seconds.items()
    }
    return {
        "speedup": ratios(each["clock"], of="crops", to="activations"),
        "speedup_cpu_time": ratios(each["cpu"], of="crops", to="activations"),
        "speedup_over_full": ratios(each["clock"], of="full", to="activations"),
        "seconds_per_epoch": medians(each["clock"]),
        "chosen": {name: f"{values['precision']} {values['layout']}" for name, values in epochs.items()},
        "bytes_per_image": built[stores["activations"]].num_bytes // built[stores["activations"]].num_images,
        "seconds_to_build": built[stores["activations"]].seconds,
    }


def epochs_of(classifier: Classifier, rows: Any) -> dict[str, Any]:
    """What a contestant is told. times: epochs in a round, so that short ones can be measured."""
    batch = StoredRows(rows=Activations.load(rows.train, "train")).batch(range(BATCH))
    inputs = preprocessing_of("mobilenet_v2").pixels(batch.inputs) if rows.start == 0 else batch.inputs.float()
    chosen = choose(classifier, inputs, start=rows.start)
    return {
        "uri": rows.train,
        "start": rows.start,
        "frozen": len(classifier.frozen),
        "precision": chosen.precision,
        "layout": chosen.layout,
        "times": 20 if rows.start == classifier.last_boundary else 1,
    }


# whole trainings, as users start them -------------------------------------------------------------------------


def few_images(folder: Path, train: int) -> None:
    """The first photographs of each class, `train` in all, and one of each class to validate with."""
    for split, of_a_class in (("train", -(-train // CLASSES)), ("val", 1)):
        chosen = [
            path for kind in sorted((IMAGES / split).iterdir()) for path in sorted(kind.iterdir())[:of_a_class]
        ]
        for path in chosen[: train if split == "train" else None]:
            target = folder / split / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def config_for(folder: Path, output: str, **values: Any) -> FinetuneConfig:
    """A training of mobilenet_v2 on the images of the folder."""
    fixed = {
        "input": {"uri": str(folder / "images")},
        "output": {"uri": str(folder / output)},
        "cluster": "local",
        "backbone": "mobilenet_v2",
        "weights": str(WEIGHTS["mobilenet_v2"]),
        "lr": LR,
        "tracking": {"uri": "none"},
        "check": {"split": "none"},
        "use_gpu": False,
    }
    return FinetuneConfig.model_validate(fixed | values)


def records_of(config: FinetuneConfig) -> list[tuple[float, dict[str, Any]]]:
    """Train by `vtray finetune`, which starts its own Ray; for each epoch when its record was written, and it."""
    output = Path(config.output.uri)
    recipe = output.with_suffix(".yaml")
    recipe.write_text(json.dumps(config.from_anywhere()))  # JSON is YAML
    command = [sys.executable, "-m", "jobs.cli", "finetune", "--config", str(recipe)]
    done = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vtray finetune failed:\n{done.stderr[-2000:]}")
    paths = sorted(output.glob("_vtray/training-*/epochs/*.json"))
    return [(path.stat().st_mtime, json.loads(path.read_text())) for path in paths]


# loop -----------------------------------------------------------------------------------------------------------


class Photographs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """A torchvision-style dataset, with the files' bytes in memory: our loaders keep those too."""

    def __init__(self, folder: Path) -> None:
        from torchvision.transforms import v2

        kinds = sorted(folder.iterdir())
        self._items = [(path.read_bytes(), label) for label, kind in enumerate(kinds) for path in kind.iterdir()]
        own = preprocessing_of("mobilenet_v2")
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(own.crop_px),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(own.mean, own.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        encoded, label = self._items[index]
        return self._transform(Image.open(io.BytesIO(encoded)).convert("RGB")), label


def plain(folder: str) -> None:
    """The opponent in a process of its own: images per second of each epoch, as JSON."""
    torch.set_num_threads(LOOP_THREADS)
    network = textbook_network("mobilenet_v2")
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    dataset = Photographs(Path(folder))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=1, persistent_workers=True
    )
    speeds = []
    for _ in range(LOOP_EPOCHS):
        start = time.perf_counter()
        textbook_epoch(network, optimizer, loader)
        speeds.append(len(dataset) / (time.perf_counter() - start))
    print(json.dumps(speeds))


def plain_run(folder: Path) -> list[float]:
    command = [sys.executable, __file__, "plain", str(folder / "images" / "train")]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def streamed_run(folder: Path) -> list[float]:
    """The same with ours: same arithmetic, images cropped and flipped anew in each epoch by one loader."""
    config = config_for(
        folder,
        Path(tempfile.mkdtemp(dir=folder)).name + "/out",
        num_workers=1,
        threads=LOOP_THREADS,
        precision="fp32",
        layout="nchw",
        loop={"epochs": LOOP_EPOCHS, "batch_size": BATCH, "weight_decay": WEIGHT_DECAY},
        operators=[{"op": "random_resized_crop", "size_px": 224}, {"op": "flip"}],
    )
    return [record["images_per_s"] for _, record in records_of(config)]


def loop(folder: Path) -> dict[str, Any]:
    """Whole runs in turn, each alone on the machine; the first epoch of each is start-up and does not count."""
    few_images(folder / "images", LOOP_IMAGES)
    speeds: dict[str, list[float]] = {"vtray": [], "plain": []}
    for _ in range(LOOP_ROUNDS):
        speeds["vtray"] += streamed_run(folder)[1:]
        speeds["plain"] += plain_run(folder)[1:]
    return {
        "goal": LOOP_GOAL,
        "threads": LOOP_THREADS,
        "images": LOOP_IMAGES,
        "batch": BATCH,
        "vtray_over_plain": statistics.median(speeds["vtray"]) / statistics.median(speeds["plain"]),
        "images_per_s": medians(speeds),
        "epochs": speeds,
    }


# epochs ---------------------------------------------------------------------------------------------------------


def short_epochs(folder: Path) -> dict[str, Any]:
    """Linear probes on cached features, with validation, checkpoint and MLflow in every epoch."""
    few_images(folder / "images", CACHED_IMAGES)
    runs = [short_run(folder, f"short-{number}") for number in range(SHORT_RUNS)]
    return {
        "goal_s": EPOCHS_GOAL_S,
        "epochs": SHORT_EPOCHS,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "trained_s": statistics.median(run["trained_s"] for run in runs),
        "runs": runs,
    }


def short_run(folder: Path, output: str) -> dict[str, float]:
    """seconds: from the first epoch's start to the last one's record. trained_s: of them, in training steps."""
    config = config_for(
        folder,
        output,
        num_workers=1,
        threads=1,
        strategy="linear_probe",
        loop={"epochs": SHORT_EPOCHS, "batch_size": SHORT_BATCH},
        tracking={"uri": f"sqlite:///{folder / output}.db"},
    )
    records = records_of(config)
    assert len(records) == SHORT_EPOCHS
    (first_written, first), (last_written, _) = records[0], records[-1]
    return {
        "seconds": last_written - first_written + first["seconds"],
        "epoch_ms": 1000 * statistics.median(record["seconds"] for _, record in records),
        "trained_s": sum(record["images"] / record["images_per_s"] for _, record in records),
    }


SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "arithmetic": lambda folder: arithmetic(),
    "cache": cache,
    "loop": loop,
    "epochs": short_epochs,
}


def main() -> None:
    if not IMAGES.is_dir():
        sys.exit(f"no fixtures at {harness.FIXTURES}; set VTRAY_FIXTURES")
    if sys.argv[1:2] == ["plain"]:
        plain(sys.argv[2])
        return
    unknown = set(sys.argv[1:]) - set(SECTIONS)
    if unknown:
        sys.exit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    for section in sys.argv[1:] or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            harness.write(f"finetune-{section}", SECTIONS[section](Path(folder)))


if __name__ == "__main__":
    main()
