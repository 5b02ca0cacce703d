"""`vtray styles`: models found below a folder, told in a table, shown on a page."""

import base64
import json
import shlex
import subprocess
import sys

import pytest
from painters import feedforward_model, msgnet_model
from style_networks import stripes

from jobs import cli, stylize
from vtray.images import encode
from vtray.report.shelf_page import command_of
from vtray.storage import open_storage
from vtray.style.fast.shelf import find_models


@pytest.fixture
def shelf(tmp_path):
    """Two models, one in the output of a training, a classifier's folder and a broken config.json."""
    folder = tmp_path / "models"
    feedforward_model(folder / "night" / "model")
    msgnet_model(folder / "many")
    (folder / "many/thumbnails/along.png").unlink()
    for name, text in {"classifier": json.dumps({"classes": 3}), "broken": "{"}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    return folder


def test_models_are_found_with_their_styles(shelf):
    many, night = find_models(open_storage(str(shelf)))
    assert (many.name, many.engine, many.styles) == ("many", "msgnet", ("across", "along"))
    assert (night.name, night.engine, night.styles) == ("night", "feedforward", ("across",))
    assert night.uri.endswith("night/model")
    assert list(many.thumbnails) == ["across"]
    (alone,) = find_models(open_storage(str(shelf / "night/model")))
    assert alone.name == "."


def test_the_page_has_every_style_and_its_picture(shelf, tmp_path, capsys):
    page = tmp_path / "pages" / "styles.html"
    assert cli.main(["styles", str(shelf), "--to", str(page)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[:2]] == [
        ["many", "msgnet", "across,", "along"],
        ["night", "feedforward", "across"],
    ]
    assert str(page) in printed[2]
    text = page.read_text()
    picture = base64.b64encode(encode(stripes(1), format="png")).decode()
    assert text.count(f'src="data:image/png;base64,{picture}"') == 4  # a thumbnail and a preview of each model
    assert text.count("no thumbnail") == 1
    assert "2 models" in text
    assert "src=" not in text.replace('src="data:', "")  # nothing from elsewhere


def test_the_command_on_the_page_is_valid(shelf):
    for model in find_models(open_storage(str(shelf))):
        words = shlex.split(command_of(model))
        values = [word for word in words if "=" in word]
        config = stylize.load(None, values)
        assert (config.engine.name, config.engine.model) == (model.engine, model.uri)
        assert config.style.name == (("across",) if model.engine == "msgnet" else None)


def test_a_folder_without_models_is_told(tmp_path, capsys):
    assert cli.main(["styles", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no model directories" in line


def test_torch_is_not_imported(shelf, tmp_path):
    code = (
        "import sys; from jobs.cli import main\n"
        f"main(['styles', {str(shelf)!r}, '--to', {str(tmp_path / 'p.html')!r}])\n"
        "print('torch' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
