"""What `vtray stylize --dry-run` says, on a tiny network and with probes whose times are given."""

import subprocess
import sys

import pytest
from drawn import ROOT, draw_image
from PIL import Image
from style_support import stylize_config, write_painting, write_weights

from pipelines import cluster, machine, stylize, stylize_estimate
from pipelines.cluster import Cluster, Node
from pipelines.stylize_estimate import Estimate, Memory, Sample, estimate, sample_of, steps_of
from pipelines.stylize_probe import Probe, probe_image
from vtray.errors import InputError, ResourcesError
from vtray.steps.stylize_unit import load_engine

GB = 10**9
SMALL, LARGE = (48, 64), (96, 128)  # height, width; LARGE is worked on at half its size


@pytest.fixture
def place(tmp_path):
    """A catalog of three small images, one large one, one without a header and one too small for the network."""
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    for number, (height, width) in enumerate([SMALL, SMALL, SMALL, LARGE, (6, 9)]):
        Image.fromarray(draw_image(number, height, width)).save(catalog / f"{number}.png")
    (catalog / "broken.jpg").write_bytes(b"no image")
    write_weights(tmp_path / "vgg.pth")
    write_painting(tmp_path / "painting.png")
    return tmp_path


def job_of(place, *, engine=(), **values):
    config = stylize_config(
        place / "catalog",
        place / "out",
        weights=place / "vgg.pth",
        painting=place / "painting.png",
        engine={"size_px": 64} | dict(engine),
        **values,
    )
    return stylize.prepare(config, has_gpu=lambda: False)


def plain(**changes):
    """10 images of 512 x 384 and one with twice the side, a probe of 2 s a step."""
    sizes = (((384, 512), (384, 512)),) * 10 + (((768, 1024), (384, 512)),)
    values = {
        "images": 1100,
        "units": 200,
        "sample": Sample(sizes=sizes, unreadable=0, too_small=0),
        "probe": Probe(full=(384, 512), working=(384, 512), step_s=2.0, fixed_s=1.0, file_s=0.5),
        "steps": (20, 60),
        "seconds": 3600.0,
        "workers": 4,
        "where": "this machine",
        "memory": Memory(worker=2 * GB, together=8 * GB, there=16 * GB),
    }
    return Estimate(**(values | changes))


def test_the_table_says_sizes_time_and_memory():
    assert plain().table() == "\n".join(
        [
            "  images   1,100 in 200 units",
            "  sizes    512 x 384 100 % (as worked on; from the headers of 11)",
            "  image    3.27 s on one worker: 20 + 60 steps at most, 2 s a step at 512 x 384 (probed)",
            "  run      at most 15 min 0 s on 4 workers (this machine); 1 worker-hours",
            "  memory   about 2.0 GB a worker, 8.0 GB in all, of 16.0 GB",
        ]
    )


def test_the_table_warns_where_memory_may_not_do():
    table = plain(memory=Memory(worker=3 * GB, together=12 * GB, there=8 * GB)).table()
    assert "warning  4 workers may need more memory than there is; use --set num_workers=2," in table


def test_the_table_names_what_will_fail_and_the_frequent_sizes():
    sizes = tuple(((size, size), (size, size)) for size in (64, 64, 72, 72, 72, 80, 88, 96))
    table = plain(sample=Sample(sizes=sizes, unreadable=2, too_small=1)).table()
    assert "72 x 72 27 %, 64 x 64 18 %, 80 x 80 9 %, 2 more" in table
    assert "failing  2 without a readable header and 1 too small among 11" in table


@pytest.mark.parametrize(
    ("on_gpu", "words"), [(True, "about 2.0 GB of its GPU a worker"), (False, "2.0 GB a worker")]
)
def test_memory_elsewhere_is_told_for_one_worker(on_gpu, words):
    table = plain(memory=Memory(worker=2 * GB, together=None, there=GB, on_gpu=on_gpu)).table()
    assert words in table
    assert "warning" not in table


def test_a_probe_is_scaled_by_pixels():
    probe = Probe(full=(40, 30), working=(20, 15), step_s=2.0, fixed_s=1.0, file_s=0.5)
    assert probe.seconds_for((40, 30), (20, 15), steps=10) == 21.5
    # twice the sides at work: four times the engine; three times the file's pixels
    assert probe.seconds_for((60, 60), (40, 30), steps=10) == 4 * 21 + 3 * 0.5


def test_the_whole_estimate(place, monkeypatch):
    monkeypatch.setattr(machine, "memory_bytes", lambda: 64 * GB)
    monkeypatch.setattr(stylize_estimate, "this_machine", lambda num_gpus: Node(num_cpus=2))
    probe = Probe(full=SMALL, working=SMALL, step_s=1.0, fixed_s=2.0, file_s=0.5)
    monkeypatch.setattr(stylize_estimate, "probe_image", lambda job, refs: probe)
    found = estimate(job_of(place))
    assert sorted(found.sample.sizes) == [(SMALL, SMALL)] * 3 + [(LARGE, SMALL)]
    assert (found.sample.unreadable, found.sample.too_small, found.sample.number) == (1, 1, 6)
    # four steps: 2 + 4 s for each, 0.5 s for a small file, 2 s for the large one with four times the pixels
    assert found.seconds == pytest.approx(4 * 6 + 3 * 0.5 + 4 * 0.5)
    assert (found.images, found.units, found.workers, found.where) == (6, 2, 2, "this machine")
    assert found.memory.together == 2 * found.memory.worker
    assert found.memory.worker > stylize_estimate.PROCESS_BYTES


def test_a_real_probe_measures_steps_and_writes_nothing(place):
    job = job_of(place, colour="luma")
    probe = probe_image(job, job.source.refs)
    assert (probe.full, probe.working) == (SMALL, SMALL)
    assert probe.step_s >= 0
    assert probe.fixed_s >= 0
    assert probe.file_s > 0
    assert not (place / "out").exists()


def test_a_probe_passes_over_what_cannot_be_used(place):
    job = job_of(place)
    refs = sorted(
        job.source.refs, key=lambda ref: ref.image_id, reverse=True
    )  # broken.jpg and the small one first
    assert probe_image(job, refs).full == LARGE
    assert probe_image(job, refs[:2]) is None


def test_masks_are_part_of_the_probe(place):
    Image.new("L", (64, 48), 255).save(place / "mask.png")
    job = job_of(place, style={"masks": str(place / "mask.png")})
    assert probe_image(job, job.source.refs).working == SMALL


def test_nothing_to_stylize_is_an_error(place):
    for path in (place / "catalog").glob("[0-3].png"):
        path.unlink()
    with pytest.raises(InputError, match="none of the 2 images looked at can be stylized"):
        estimate(job_of(place))


def test_steps_by_level(place):
    engine = load_engine(job_of(place, engine={"levels": 3, "steps": 60, "coarse_steps": 20}).work, "cpu")
    # a level has at least 64 px on its shorter side: 300 -> 150 -> 75, 200 -> 100 (50 is too small)
    assert steps_of(engine, (300, 400)) == (20, 20, 60)
    assert steps_of(engine, (200, 400)) == (20, 60)
    assert steps_of(engine, (100, 100)) == (60,)
    # ten steps at half the side cost as much as two and a half
    assert stylize_estimate._fine_steps(engine, (300, 400)) == 60 + 20 / 4 + 20 / 16


def test_sizes_below_the_network_s_least_are_counted(place):
    engine = load_engine(job_of(place).work, "cpu")
    least = engine.extractor.min_side_px
    sample = sample_of([(least, 40), (least - 1, 40), None], engine)
    assert (len(sample.sizes), sample.unreadable, sample.too_small) == (1, 1, 1)


def test_workers_are_those_of_a_run(place, monkeypatch):
    monkeypatch.setattr(stylize_estimate, "this_machine", lambda num_gpus: Node(num_cpus=8))
    assert stylize_estimate._workers(job_of(place, units={"max_images": 1})) == (6, "this machine")
    assert stylize_estimate._workers(job_of(place, units={"max_images": 1}, threads=3))[0] == 2
    with pytest.raises(ResourcesError, match="use at most 8"):
        stylize_estimate._workers(job_of(place, num_workers=9))
    monkeypatch.setattr(cluster, "connect", lambda address: Cluster(nodes=(Node(num_cpus=3),)))
    assert stylize_estimate._workers(job_of(place, units={"max_images": 1}, cluster="ray://head:10001")) == (
        3,
        "the cluster at ray://head:10001",
    )


@pytest.mark.parametrize(("text", "expected"), [("1000000\n", 1_000_000), ("max\n", None), ("9" * 20, None)])
def test_the_memory_of_a_container_counts(tmp_path, monkeypatch, text, expected):
    monkeypatch.setattr(machine, "CGROUP_LIMITS", ())
    installed = machine.memory_bytes()
    (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (str(tmp_path / "absent"), str(tmp_path / "memory.max")))
    assert machine.memory_bytes() == (expected or installed)


def test_this_machine_has_a_cpu():
    assert machine.this_machine().num_cpus >= 1
    assert machine.this_machine(num_gpus=2).num_gpus == 2


def test_asking_costs_no_torch_before_it_is_needed():
    code = "import pipelines.stylize_estimate, sys; print('torch' in sys.modules, 'ray' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == ["False", "False"]
