"""docs/tune.md says what the code says, its commands are valid, and a search leaves what its tree shows."""

import json
import re

import pytest
import typer
from pages import ROOT, Page
from test_guide import settings_of

from jobs import cli, evaluate, tune
from pipelines.tune_config import CONFIG_KEYS, SearchConfig
from vtray.errors import VtrayError

GUIDE = Page(ROOT / "docs" / "tune.md")
IN_WORDS = {"search.space.lr", "search.num_trials", "search.concurrency"} | {
    f"search.space.{name}" for name in CONFIG_KEYS if name not in ("lr", "freeze")
}
JOBS = {"tune": tune, "evaluate": evaluate}


def jobs_of_the_page():
    return [words for words in GUIDE.commands() if words[0] == "vtray"]


@pytest.mark.parametrize("words", jobs_of_the_page(), ids=lambda words: " ".join(words[1:])[:60])
def test_commands_of_the_page_are_valid(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, name, *arguments = words
    options = typer.main.get_command(cli.app).commands[name].make_context(name, arguments).params
    sets = options["set_"] or []
    model = [f"model={options['model']}"] if options.get("model") else []
    assert JOBS[name].load(options["config"], [*model, *sets]).input.uri == "images"


def test_commands_were_seen():
    assert len(jobs_of_the_page()) == 4
    assert sorted(GUIDE.languages()) == ["sh", "sh", "text"]
    submitted = next(words for words in GUIDE.commands() if words[0] == "ray")
    assert (ROOT / submitted[submitted.index("python") + 1]).is_file()
    assert (ROOT / submitted[submitted.index("--config") + 1]).is_file()


def test_every_setting_has_its_line_and_its_default():
    expected = settings_of(SearchConfig, "search.")
    told = {keys.strip("`"): default for keys, default, _ in GUIDE.table("| key | default | meaning |")}
    assert told.keys() == expected.keys()
    assert len(told) == 19
    for key in expected.keys() - IN_WORDS:
        shown = re.findall(r"`([^`]+)`", told[key])
        default = expected[key]
        assert shown == [json.dumps(default).strip('"')], key
    assert all("`" not in told[key] for key in IN_WORDS)


def test_every_key_of_the_space_has_its_line():
    rows = GUIDE.table("| key of the space | key of a training | values |")
    assert {ours.strip("`"): theirs.strip("`") for ours, theirs, _ in rows} == CONFIG_KEYS


def test_exit_codes_are_those_of_our_errors():
    told = {int(code) for code, _ in GUIDE.table("| code | meaning |")}
    assert told == {0, 130} | {kind.exit_code for kind in VtrayError.__subclasses__()}


def test_every_recipe_that_is_named_exists():
    named = set(re.findall(r"(?:recipes|benchmarks|jobs)/[\w-]+\.(?:yaml|py)", GUIDE.source))
    assert len(named) == 3
    assert [name for name in named if not (ROOT / name).is_file()] == []
