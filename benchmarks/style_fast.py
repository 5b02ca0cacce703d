"""Fast styles against the same networks in plain torch, interleaved; tiles, jobs, a catalog. Needs the fixtures.

python benchmarks/style_fast.py [engine] [job] [tiles] [catalog] [--small]

engine   one image of 512 px, our engine (precision and layout measured, as in a run; and onnxruntime) against the
         same network in torch eager, fp32 and NCHW: CPU time of one thread, and how far the pixels are apart
job      the whole step (read, decode, stylize, encode, write) against the bare engine on the same photographs
tiles    3400 x 2100 px painted whole and in tiles, each in its own process: seconds, peak memory, levels apart
catalog  2,000 small images on a local Ray, killed half way and resumed: memory of the workers, images per hour
--small  a fraction of the sizes, to see that it works

The feedforward network is the model directory in VTRAY_STYLE_MODEL; without it, one of the published width with
random weights, which is as fast. adain and microast have the published weights of the fixtures.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import psutil
import torch
from PIL import Image

sys.path.insert(0, str(harness.ROOT))

from vtray.report.records import read_records
from vtray.sources import open_source
from vtray.steps.file_names import FileNames
from vtray.steps.stylize_unit import StylizeUnit
from vtray.storage import open_storage
from vtray.style.engines.fast import FastEngine
from vtray.style.engines.stylized import Request
from vtray.style.fast.load import FastModel
from vtray.style.fast.numerics import choose_fast_numerics
from vtray.style.fast.painter import load_painter
from vtray.style.fast.save import encode_fast, save_fast
from vtray.style.fast.tiles import bytes_in_tiles, paint_in_tiles
from vtray.style.fast.transformer import TransformerNet
from vtray.style.pixels import resized, to_images, to_pixels
from vtray.style.work import FastSpec, FastWork, StyleImage, WeightsFile

ENGINES = ("feedforward", "adain", "microast")
VGG, MICROAST = (harness.FIXTURES / "style" / name for name in ("vgg_normalised", "MicroAST"))
PARTS = ("content_encoder", "style_encoder", "modulator", "decoder")
ROUNDS = 9
EAGER = "torch eager fp32 NCHW"
SIZE_PX = 512
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.bmp", "parrot.jpg", "owl.jpg")


def photograph(name: str, height: int, width: int) -> np.ndarray:
    image = np.asarray(Image.open(harness.FIXTURES / "content" / name).convert("RGB"))
    return np.ascontiguousarray(resized(image, (height, width)))


def random_model(folder: Path) -> str:
    """A feedforward network of the published width whose random weights span the range of pixels."""
    torch.manual_seed(0)
    network = TransformerNet(32).eval().requires_grad_(False)
    network.deconv3.conv2d.weight.mul_(40)
    network.deconv3.conv2d.bias.fill_(120)
    model = FastModel(engine="feedforward", network=network, styles=("random",))
    save_fast(open_storage(str(folder)), encode_fast(model, thumbnails={}))
    return str(folder)


def work_of(engine: str, folder: Path, **options: Any) -> FastWork:
    painting = np.asarray(Image.open(harness.FIXTURES / "style_images" / "starry_night.jpg").convert("RGB"))
    style = StyleImage(name="starry_night.jpg", image=painting, sha256="starry_night")
    files = {"model": os.environ.get("VTRAY_STYLE_MODEL") or str(folder / "model")}
    if engine == "feedforward" and not Path(files["model"]).exists():
        random_model(folder / "model")
    if engine == "adain":
        files = {
            "encoder": str(VGG / "vgg_normalised_conv3_1.pth"),
            "decoder": str(VGG / "feature_invertor_conv3_1.pth"),
        }
    if engine == "microast":
        files = {part: str(MICROAST / f"{part}_iter_160000.pth.tar") for part in PARTS}
    weights = tuple(WeightsFile(part=part, uri=uri, sha256="") for part, uri in files.items())
    styles = () if engine == "feedforward" else (style,)
    return FastWork(styles=styles, fast=FastSpec(engine=engine, weights=weights, **options), named=not styles)


def measured(work: FastWork) -> FastWork:
    """In the precision and layout that a run would choose here."""
    best, _ = choose_fast_numerics(work)
    return replace(work, fast=replace(work.fast, precision=best.precision, layout=best.layout))


# opponents: each in a process of its own -------------------------------------------------------------------------


def eager(argument: str) -> Callable[[], object]:
    """The network as a program of a few lines runs it."""
    engine, folder, side = json.loads(argument)
    painter = load_painter(work_of(engine, Path(folder)))
    content = to_pixels([photograph(PHOTOGRAPHS[0], side, side)])
    network, levels = painter.network, painter.levels

    @torch.inference_mode()
    def paint() -> object:
        return to_images(network(content * levels) / levels)

    return paint


def ours(argument: str, **options: Any) -> Callable[[], object]:
    engine, folder, side = json.loads(argument)
    work = work_of(engine, Path(folder), **options)
    loaded = FastEngine.load(work if options else measured(work))
    request = Request(image=photograph(PHOTOGRAPHS[0], side, side))
    return partial(loaded.stylize, [request])


def by_onnxruntime(argument: str) -> Callable[[], object]:
    return ours(argument, runtime="onnxruntime")


def bare_engine(argument: str) -> Callable[[], object]:
    """The engine on the decoded images of a catalog."""
    engine, folder, _ = json.loads(argument)
    loaded = FastEngine.load(measured(work_of(engine, Path(folder))))
    images = [np.asarray(Image.open(path)) for path in sorted((Path(folder) / "catalog").iterdir())]
    return lambda: [loaded.stylize([Request(image=image)]) for image in images]


def whole_job(argument: str) -> Callable[[], object]:
    """The step of the job on the same catalog, from files to files."""
    engine, folder, _ = json.loads(argument)
    source = open_source(str(Path(folder) / "catalog"))
    (unit,) = source.units(max_bytes=10**9, max_images=10**6)
    names = FileNames.of((ref.image_id for ref in source.refs), input_format=source.format, output_format="same")
    work = measured(work_of(engine, Path(folder)))
    count = iter(range(10**6))

    def run() -> object:
        step = StylizeUnit(
            work=work,
            device="cpu",
            names=names,
            output_uri=str(Path(folder) / f"out-{engine}-{next(count)}"),
            quality=95,
            colour="style",
            masks=(),
            max_pixels=10**9,
        )
        return step(unit, "digest")

    return run


def race(makers: dict[str, str], argument: str, rounds: int) -> dict[str, list[float]]:
    opponents = {
        name: partial(harness.Opponent, "style_fast", function, argument) for name, function in makers.items()
    }
    with harness.opponents(opponents) as started:
        return harness.interleaved({name: each.seconds for name, each in started.items()}, rounds=rounds)


# parts -----------------------------------------------------------------------------------------------------------


def engine_part(folder: Path, *, small: bool) -> dict[str, object]:
    side, rounds = (128, 2) if small else (SIZE_PX, ROUNDS)
    found: dict[str, object] = {"size_px": side}
    for engine in ENGINES:
        argument = json.dumps([engine, str(folder), side])
        seconds = race({EAGER: "eager", "vtray": "ours", "onnxruntime": "by_onnxruntime"}, argument, rounds)
        found[engine] = {
            "cpu_seconds": harness.medians(seconds),
            "speedup": harness.ratios(seconds, of=EAGER, to="vtray"),
            "speedup_onnxruntime": harness.ratios(seconds, of=EAGER, to="onnxruntime"),
            **apart(engine, folder, side),
        }
    return found


@torch.inference_mode()
def apart(engine: str, folder: Path, side: int) -> dict[str, object]:
    """Mean and largest difference in levels between our engine's images and those of fp32."""
    work = measured(work_of(engine, folder))
    loaded, exact = FastEngine.load(work), FastEngine.load(work_of(engine, folder))
    differences = []
    for name in PHOTOGRAPHS:
        request = Request(image=photograph(name, side, side))
        one, other = (each.stylize([request])[0].image.astype(int) for each in (loaded, exact))
        differences.append(np.abs(one - other))
    return {
        "numerics": f"{work.fast.precision} {work.fast.layout}",
        "mean_levels_apart": max(float(each.mean()) for each in differences),
        "most_levels_apart": max(int(each.max()) for each in differences),
    }


def job_part(folder: Path, *, small: bool) -> dict[str, object]:
    side, number, rounds = (128, 4, 2) if small else (SIZE_PX, 24, 5)
    catalog = folder / "catalog"
    catalog.mkdir(exist_ok=True)
    for index in range(number):
        image = photograph(PHOTOGRAPHS[index % len(PHOTOGRAPHS)], side, side)
        Image.fromarray(np.roll(image, 7 * index, axis=1)).save(catalog / f"{index:03}.jpg", quality=92)
    found: dict[str, object] = {"images": number, "size_px": side}
    for engine in ENGINES:
        argument = json.dumps([engine, str(folder), side])
        seconds = race({"bare engine": "bare_engine", "whole job": "whole_job"}, argument, rounds)
        middle = harness.medians(seconds)
        found[engine] = {
            "cpu_seconds": middle,
            "rate_of_the_bare_engine": harness.ratios(seconds, of="bare engine", to="whole job"),
            "images_per_hour_and_core": 3600 * number / middle["whole job"],
        }
    return found


def tiles_part(folder: Path, *, small: bool) -> dict[str, object]:
    height, width = (420, 680) if small else (2100, 3400)
    found: dict[str, object] = {"width": width, "height": height}
    for engine in ENGINES:
        found[engine] = {}
        for way in ("whole", "exact", "fast"):
            arguments = (engine, str(folder), way, height, width)
            code = f"import style_fast; style_fast.paint_alone(*{arguments!r})"
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=harness.ROOT / "benchmarks",
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=True,
            )
            found[engine][way] = json.loads(done.stdout.splitlines()[-1])
        whole = np.load(folder / f"{engine}-whole.npy").astype(int)
        for way in ("exact", "fast"):
            difference = np.abs(np.load(folder / f"{engine}-{way}.npy") - whole)
            found[engine][way] |= {
                "most_levels_apart": int(difference.max()),
                "mean_levels_apart": difference.mean(),
            }
    return found


@torch.inference_mode()
def paint_alone(engine: str, folder: str, way: str, height: int, width: int) -> None:
    """Paint one large image in this process, keep it, and print what it took."""
    torch.set_num_threads(1)
    image = photograph(PHOTOGRAPHS[0], height, width)
    painter = load_painter(work_of(engine, Path(folder)))
    painter(to_pixels([image[:64, :64]]))
    before, started = peak_bytes(), time.process_time()
    if way == "whole":
        made, told = to_images(painter(to_pixels([image])))[0], painter.bytes_for(height, width)
    else:
        made = paint_in_tiles(painter, image, device=torch.device("cpu"), exact=way == "exact")
        told = bytes_in_tiles(painter, height, width)
    taken = {
        "cpu_seconds": time.process_time() - started,
        "peak_mb": (peak_bytes() - before) / 1e6,
        "told_mb": told / 1e6,
    }
    np.save(Path(folder) / f"{engine}-{way}.npy", made)
    Image.fromarray(made).save(Path(folder) / f"{engine}-{way}.png", compress_level=1)
    print(json.dumps(taken))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def catalog_part(folder: Path, *, small: bool) -> dict[str, object]:
    number = 60 if small else 2000
    catalog, output = folder / "small", folder / "small-out"
    catalog.mkdir()
    for index in range(number):
        draw(index).save(catalog / f"{index:05}.jpg", quality=90)
    values = {
        "input.uri": catalog,
        "output.uri": output,
        "style.uri": harness.FIXTURES / "style_images" / "starry_night.jpg",
        "engine.model": MICROAST,
        "engine.style_px": 256,
        "tracking.uri": "none",
        "cluster": "local",
        "use_gpu": "false",
        "max_failed": 0,
    }
    command = [sys.executable, str(harness.ROOT / "jobs" / "stylize.py")]
    command += ["--config", str(harness.ROOT / "recipes" / "stylize-microast.yaml")]
    command += [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    first = run_and_watch(command, output, stop_at=number // 2)
    killed_at = images_done(output)
    started = time.monotonic()
    second = run_and_watch(command, output)
    seconds = time.monotonic() - started
    report = json.loads((output / "_vtray" / "report.json").read_text())
    return {
        "images": number,
        "killed_after_images": killed_at,
        "status": report["status"],
        "records": records_of(output),
        "results": len(list((output / "data").iterdir())),
        "failed": report["failed"],
        "images_per_hour": 3600 * (number - killed_at) / seconds,
        "worker_mb_first": first,
        "worker_mb_second": second,
    }


def draw(index: int) -> Image.Image:
    """A small picture of its own: blobs of colour, in one of four sizes."""
    random = np.random.default_rng(index)
    blobs = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return blobs.resize(((96, 80), (80, 96), (88, 88), (101, 67))[index % 4], Image.Resampling.BICUBIC)


def run_and_watch(command: list[str], output: Path, stop_at: int | None = None) -> dict[str, float]:
    """Run a job, killed when so many images are done; the memory of its workers early, late and at most."""
    driver = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        seen = list(watch(driver, output, stop_at))
    finally:  # with its Ray, whatever ended us
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
    if stop_at is None and driver.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {driver.returncode}")
    third = max(1, len(seen) // 3)
    return {
        "early": max(seen[:third], default=0),
        "late": max(seen[-third:], default=0),
        "most": max(seen, default=0),
    }


def watch(driver: subprocess.Popen[bytes], output: Path, stop_at: int | None) -> Iterator[float]:
    """Megabytes of the largest worker, every 0.2 s from the first finished unit to the end, or so many images."""
    while driver.poll() is None:
        time.sleep(0.2)
        done, largest = images_done(output), largest_worker(driver.pid)
        if done and largest:
            yield largest
        if stop_at is not None and done >= stop_at:
            return


def largest_worker(pid: int) -> float:
    """Megabytes of the largest process that Ray works with for that driver."""
    sizes = [0.0]
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.name().startswith("ray::"):
                sizes.append(process.memory_info().rss / 1e6)
        except psutil.Error:
            continue
    return max(sizes)


def images_done(output: Path) -> int:
    receipts = (output / "_vtray" / "receipts").glob("*.json")
    return sum(json.loads(path.read_text())["num_images"] for path in receipts)


def records_of(output: Path) -> int:

    return len(
        {record["image_id"] for record in read_records((output / "_vtray" / "records.parquet").read_bytes())}
    )


def main() -> None:
    small = "--small" in sys.argv
    parts = [name for name in sys.argv[1:] if name != "--small"] or ["engine", "job", "tiles", "catalog"]
    for name in parts:
        with tempfile.TemporaryDirectory() as folder:
            result = globals()[f"{name}_part"](Path(folder), small=small)
        if small:
            print(json.dumps({name: result}, indent=1, default=float))
        else:
            harness.write(f"style-fast-{name}", result)


if __name__ == "__main__":
    main()
