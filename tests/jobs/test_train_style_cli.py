"""`vtray train-style` on the command line: its recipe, a run, the same again, and what is refused."""

import pytest
from fast_training import write_place

from jobs import cli
from pipelines import cluster
from vtray.style.fast.load import load_fast

ROOT = cli.Path(__file__).resolve().parents[2]
SMALL = (
    "features.network=vgg19",
    "style.size_px=32",
    "network.width=4",
    "crops.crop_px=32",
    "crops.size_px=32",
    "loop.steps=4",
    "loop.batch_size=2",
    "num_workers=0",
    "threads=1",
    "tracking.uri=none",
)


@pytest.fixture
def train(tmp_path, capsys, monkeypatch):
    """Run `vtray train-style` with the recipe, small: (exit code, stdout, stderr lines)."""
    place = write_place(tmp_path)
    monkeypatch.setattr(cluster, "connect", lambda address: pytest.fail("Ray was started"))

    def call(*options, **changed):
        values = {
            "input.uri": place / "photos",
            "style.uri": place / "styles" / "down.png",
            "output.uri": tmp_path / "out",
            "features.weights": place / "vgg19.pth",
        }
        pairs = [f"{key}={value}" for key, value in (values | changed).items()]
        recipe = str(ROOT / "recipes" / "train-style.yaml")
        sets = [part for value in (*SMALL, *pairs) for part in ("--set", value)]
        code = cli.main(["train-style", "--config", recipe, *sets, *options])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.strip().splitlines()

    return call


def test_a_dry_run_says_what_it_costs_and_writes_nothing(train, tmp_path):
    code, out, _ = train("--dry-run")
    assert code == 0
    assert "6 to train on, 2 kept out" in out
    assert "1: down" in out
    assert "total        about" in out
    assert not (tmp_path / "out").exists()


def test_a_run_says_where_the_model_is_and_the_same_again_does_nothing(train, tmp_path):
    code, out, _ = train()
    assert code == 0
    assert f"model       {tmp_path}/out/model" in out
    assert load_fast(str(tmp_path / "out")).styles == ("down",)
    code, out, _ = train()
    assert (code, "nothing to do" in out) == (0, True)


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"style.uri": "none.jpg"}, 2, "none.jpg: no such file"),
        ({"style.count": 4}, 2, "1 style images, style.count asks for 4"),
        ({"input.uri": "nowhere"}, 2, "nowhere"),
        ({"features.weights": "none.pth"}, 4, "no such weights file"),
        ({"network.engine": "msgnt"}, 2, "network.engine"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(train, changed, code, message):
    found, _, lines = train(**changed)
    assert (found, len(lines)) == (code, 1)
    assert message in lines[0]
