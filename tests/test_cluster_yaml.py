"""cluster.yaml: what Ray's launcher accepts, of the locked versions, and closed to the outside."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
RAY_PYTHON = "py311"  # the lowest python that pyproject.toml asks for


@pytest.fixture(scope="module")
def text():
    return (ROOT / "cluster.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config(text):
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def schema():
    import ray

    path = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def locked_ray():
    return re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]


def nodes(config, *, head):
    return {name: node for name, node in config["available_node_types"].items() if (name == "head") == head}


def start_options(config):
    (command,) = [line for line in config["head_start_ray_commands"] if line.startswith("ray start")]
    return dict(re.findall(r"--([\w-]+)(?:=(\S+))?", command))


def test_the_launcher_accepts_it(config, schema):
    jsonschema.Draft7Validator.check_schema(schema)
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(config)] == []


def test_the_schema_can_say_no(config, schema):
    with pytest.raises(jsonschema.ValidationError, match="min_workers"):
        jsonschema.validate(config | {"min_workers": 1}, schema)


def test_images_are_of_the_locked_ray_and_our_python(config):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].replace(">=", "py").replace(".", "") == RAY_PYTHON
    tag = f"rayproject/ray:{locked_ray()}-{RAY_PYTHON}"
    assert config["docker"]["image"] == tag
    assert config["available_node_types"]["gpu_worker"]["docker"]["worker_image"] == f"{tag}-gpu"


def test_the_head_takes_no_work_and_is_on_demand(config):
    (head,) = nodes(config, head=True).values()
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_are_spot_and_scale(config):
    workers = nodes(config, head=False)
    assert set(workers) == {"cpu_worker", "gpu_worker"}
    for worker in workers.values():
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert worker["min_workers"] < worker["max_workers"]
    assert sum(worker["max_workers"] for worker in workers.values()) <= config["max_workers"]
    assert config["idle_timeout_minutes"] > 0


def test_the_dashboard_is_on_loopback_behind_a_token(config):
    assert start_options(config)["dashboard-host"] == "127.0.0.1"
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_no_port_is_opened(config, text):
    assert "security_group" not in config["provider"]  # the only place where the launcher takes open ports
    assert "0.0.0.0" not in text
    options = " ".join(config["docker"]["run_options"])
    assert re.search(r"--publish|-p\b|--expose", options) is None


def test_no_secret_is_in_the_file(text):
    assert re.search(r"AKIA|aws_secret|secret_access_key|RAY_AUTH_TOKEN=|BEGIN .*PRIVATE", text) is None


def test_what_is_sent_exists_and_is_not_the_whole_folder(config):
    project = {to: Path(source) for to, source in config["file_mounts"].items() if "/project/" in to}
    assert len(project) == 7
    missing = [str(source) for source in project.values() if not (ROOT / source).exists()]
    assert missing == []
    assert Path() not in project.values()  # it would take .venv along


def test_setup_installs_the_lock_and_the_project(config):
    lock, project = config["setup_commands"]
    assert "-r ~/project/requirements.lock" in lock
    assert "--no-deps /tmp/project" in project
