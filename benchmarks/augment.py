"""Augment against what people use today, interleaved in one run; needs the fixtures. Takes about five minutes.

python benchmarks/augment.py [step] [ray] [start]

step   one process: our step against Pillow + torchvision v2, same recipe (as a Dataset, which decodes for every
       variant, and written by hand so that it decodes once), and against decoding and encoding alone
ray    vtray on Ray with two CPUs against a multiprocessing.Pool(2) over the same step, both warm
start  time from command to first finished unit against a bare ray.init()
"""

import io
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
from harness import Opponent, interleaved, medians, opponents, ratios

sys.path.insert(0, str(harness.ROOT))

IMAGES = harness.FIXTURES / "datasets" / "grocery10" / "train"
RECIPE = {
    "operators": [{"op": "random_resized_crop", "size_px": 224}, {"op": "flip"}, {"op": "colour_jitter"}],
    "keep_original": False,
    "image": {"format": "jpeg", "quality": 90},
}
STEP_ROUNDS, RAY_ROUNDS, START_ROUNDS = 9, 5, 3
Work = Callable[[], None]


def encoded_images(limit: int | None = None) -> list[bytes]:
    """All training photographs, or the first `limit`."""
    return [path.read_bytes() for path in sorted(IMAGES.glob("*/*"))[:limit]]


# the contestants of `step`, each in its own process -----------------------------------------------------------


def torchvision_step(variants: str) -> Work:
    """The strongest opponent: Pillow decodes once for all variants, torchvision v2 on Pillow, Pillow encodes."""
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    torch.manual_seed(0)
    transform = v2.Compose(
        [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5, 0.5, 0.5, 0.5)]
    )
    images = encoded_images()

    def work() -> None:
        for encoded in images:
            decoded = Image.open(io.BytesIO(encoded)).convert("RGB")
            for _ in range(int(variants)):
                transform(decoded).save(io.BytesIO(), "JPEG", quality=90)

    return work


def torchvision_dataset(variants: str) -> Work:
    """What a torchvision Dataset does: every variant opens and decodes its image again."""
    once = torchvision_step("1")

    def work() -> None:
        for _ in range(int(variants)):
            once()

    return work


def vtray_step(variants: str) -> Work:
    """Our step: hash, decode once, operators with provenance, encode."""
    from vtray.augment.recipe import Recipe
    from vtray.augment.variants import AugmentWork, VariantMaker
    from vtray.sources import ImageRef
    from vtray.steps.worker import prepare_worker

    prepare_worker()
    maker = VariantMaker(work=AugmentWork(recipe=Recipe(**RECIPE, variants=int(variants)), seed=0))
    pairs = [
        (ImageRef(image_id=str(number), uri="", num_bytes=0, version=""), encoded)
        for number, encoded in enumerate(encoded_images())
    ]

    def work() -> None:
        for ref, encoded in pairs:
            list(maker.rows(ref, encoded))

    return work


def codec_only(variants: str) -> Work:
    """The ceiling of this design: decode once, encode `variants` pictures of 224 x 224, nothing between."""
    import numpy as np
    from PIL import Image

    from vtray.images import decode, encode
    from vtray.steps.worker import prepare_worker

    prepare_worker()
    images = encoded_images()
    small = [
        np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
        for encoded in images
    ]

    def work() -> None:
        for encoded, picture in zip(images, small, strict=True):
            decode(encoded)
            for _ in range(int(variants)):
                encode(picture, format="jpeg", quality=90)

    return work


def step() -> dict[str, object]:
    """Ratios of the step at one and four variants of each image."""
    result: dict[str, object] = {}
    for variants in ("1", "4"):
        names = ("torchvision_dataset", "torchvision_step", "vtray_step", "codec_only")
        makers = {name: partial(Opponent, "augment", name, variants) for name in names}
        with opponents(makers) as started:
            seconds = interleaved({name: one.seconds for name, one in started.items()}, rounds=STEP_ROUNDS)
        count = len(encoded_images()) * int(variants)
        result[f"variants_{variants}"] = {
            "dataset_over_vtray": ratios(seconds, of="torchvision_dataset", to="vtray_step"),
            "decoding_once_over_vtray": ratios(seconds, of="torchvision_step", to="vtray_step"),
            "share_of_codec_ceiling": ratios(seconds, of="codec_only", to="vtray_step"),
            "images_per_s": {name: count / value for name, value in medians(seconds).items()},
        }
    return result


# ray against a pool ------------------------------------------------------------------------------------------


def job_for(output: Path, variants: int = 16):
    """The job both sides do: 24 units of 12 photographs, 16 variants of each."""
    from pipelines.augment import AugmentConfig, prepare

    places = {"input": {"uri": str(IMAGES)}, "output": {"uri": str(output)}, "tracking": {"uri": "none"}}
    return prepare(AugmentConfig(**RECIPE, **places, variants=variants, units={"max_images": 12}))


def do_unit(job, unit) -> None:
    """One unit in a pool's process."""
    job.step(unit, job.plan.unit_digest(unit.unit_id))


def ray_against_pool(folder: Path) -> dict[str, object]:
    """Both warm, both write shards and receipts to a new folder in each round.

    Counted from the first finished unit to the last, which leaves out the start of a dataset (`whole` has it).
    """
    from pipelines import cluster
    from pipelines.units import run_units

    pool = multiprocessing.get_context("spawn").Pool(2)
    cluster.connect("local")
    whole: dict[str, list[float]] = {"pool": [], "ray": []}

    def with_pool(job):
        return pool.imap_unordered(partial(do_unit, job), job.units)

    def with_ray(job):
        digests = {unit.unit_id: job.plan.unit_digest(unit.unit_id) for unit in job.units}
        return run_units(job.units, job.step, digests, workers=cluster.Workers(least=2, most=2))

    def timed(name: str, run) -> float:
        output = Path(tempfile.mkdtemp(dir=folder)) / "out"
        job = job_for(output)
        start = time.perf_counter()
        finished = [time.perf_counter() for _ in run(job)]
        assert len(finished) == len(job.units)
        whole[name].append(finished[-1] - start)
        shutil.rmtree(output.parent)
        return finished[-1] - finished[0]

    contestants = {"pool": partial(timed, "pool", with_pool), "ray": partial(timed, "ray", with_ray)}
    seconds = interleaved(contestants, rounds=RAY_ROUNDS)
    pool.terminate()
    counted = {name: values[1:] for name, values in whole.items()}
    return {
        "pool_over_ray": ratios(seconds, of="pool", to="ray"),
        "pool_over_ray_whole": ratios(counted, of="pool", to="ray"),
        "images_per_s": {name: job_for(folder / "x").num_rows / value for name, value in medians(counted).items()},
    }


# start -------------------------------------------------------------------------------------------------------


def bare_ray_init() -> float:
    """Command to a ready local Ray, as little as possible."""
    start = time.perf_counter()
    code = "import ray; ray.init(address='local', include_dashboard=False)"
    process = subprocess.Popen([sys.executable, "-c", code + "; print('up', flush=True)"], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    taken = time.perf_counter() - start
    process.wait()
    return taken


def first_unit(folder: Path) -> float:
    """Command to the first receipt of `vtray augment`, MLflow on, as users run it."""
    output = Path(tempfile.mkdtemp(dir=folder)) / "out"
    tracking = f"tracking.uri=sqlite:///{output.parent}/mlflow.db"
    values = (f"input.uri={IMAGES}", f"output.uri={output}", "cluster=local", tracking)
    sets = [part for value in values for part in ("--set", value)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "augment", *sets], cwd=harness.ROOT, stdout=subprocess.DEVNULL
    )
    while not any((output / "_vtray" / "receipts").glob("*.json")):
        if process.poll() is not None:
            raise RuntimeError("vtray augment ended without a receipt")
        time.sleep(0.02)
    taken = time.perf_counter() - start
    process.wait()
    return taken


def start_up(folder: Path) -> dict[str, object]:
    """Interleaved; the first pair warms the disk cache."""
    contestants = {"vtray": lambda: first_unit(folder), "ray_init": bare_ray_init}
    seconds = interleaved(contestants, rounds=START_ROUNDS)
    return {"vtray_over_ray_init": ratios(seconds, of="vtray", to="ray_init"), "seconds": medians(seconds)}


def main() -> None:
    chosen = sys.argv[1:] or ["step", "ray", "start"]
    if not IMAGES.is_dir():
        sys.exit(f"no fixtures at {harness.FIXTURES}; set VTRAY_FIXTURES")
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "step" in chosen:
            result["step"] = step()
        if "start" in chosen:
            result["start"] = start_up(Path(folder))
        if "ray" in chosen:
            result["ray"] = ray_against_pool(Path(folder))
    harness.write("augment" if not sys.argv[1:] else f"augment-{'-'.join(chosen)}", result)


if __name__ == "__main__":
    main()
