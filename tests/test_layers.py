"""The import rule of the project, read from the source: jobs -> pipelines -> vtray, one door per service."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jobs", "pipelines", "vtray")
ALLOWED = {"jobs": {"jobs", "pipelines", "vtray"}, "pipelines": {"pipelines", "vtray"}, "vtray": {"vtray"}}
PIPELINE_EDGES = {("tune", "finetune")}  # the only job that may build on another

# service -> the only files (or folders) that may import it
DOORS = {
    "ray": ("jobs/", "pipelines/"),
    "mlflow": ("vtray/tracking.py", "vtray/tracking_model.py"),
    "s3fs": ("vtray/storage.py",),
    "fsspec": ("vtray/storage.py",),
    "botocore": ("vtray/storage.py",),
    "typer": ("jobs/",),
    "argparse": ("jobs/",),
    "click": ("jobs/",),
}
# inside vtray: a file of one tier imports from its own tier and from those below
TIERS = (
    ("errors", "seeding", "stopwatch"),
    (
        "images",
        "shards",
        "manifest",
        "attempts",
        "verification",
        "storage",
        "tracking",
        "settings",
        "sources",
        "weights",
    ),
    ("augment", "classify", "style", "report", "demo"),
    ("steps",),
)


def source_files():
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(path):
    """Names of all modules that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges():
    return [(path.relative_to(ROOT).as_posix(), name) for path in source_files() for name in imports_of(path)]


def tier_of(module):
    """The tier of `vtray.x...`, or None for the package itself."""
    part = module.split(".")[1] if "." in module else ""
    return next((n for n, names in enumerate(TIERS) for name in names if part.startswith(name)), None)


def test_every_file_was_seen():
    assert len(source_files()) >= 60
    assert len(edges()) > 500
    assert all(any((ROOT / package).rglob("*.py")) for package in PACKAGES)


def test_layers_never_point_up():
    wrong = [
        f"{file} imports {name}"
        for file, name in edges()
        if name.split(".")[0] in PACKAGES and name.split(".")[0] not in ALLOWED[file.split("/")[0]]
    ]
    assert wrong == []


@pytest.mark.parametrize("service", sorted(DOORS))
def test_one_door_per_service(service):
    wrong = [
        f"{file} imports {name}"
        for file, name in edges()
        if name.split(".")[0] == service and not file.startswith(DOORS[service])
    ]
    assert wrong == []


def test_environment_variables_only_in_jobs():
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in source_files()
        if any(use in path.read_text() for use in ("os.environ", "getenv")) and path.parent != ROOT / "jobs"
    ]
    assert wrong == []


def test_tiers_inside_vtray():
    wrong = []
    for file, name in edges():
        if file.startswith("vtray/") and name.startswith("vtray."):
            here = tier_of(file.removesuffix(".py").replace("/", "."))
            there = tier_of(name)
            if here is not None and there is not None and there > here:
                wrong.append(f"{file} imports {name}")
    assert wrong == []


def test_every_module_of_vtray_has_a_tier():
    modules = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in source_files()}
    unknown = {m for m in modules if m.startswith("vtray.") and m != "vtray.__init__" and tier_of(m) is None}
    assert unknown == set()


def test_no_cycle_between_modules():
    modules = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in source_files()}
    graph = defaultdict(set)
    for path in source_files():
        tree = ast.parse(path.read_text())
        here = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for node in tree.body:  # the top of the file only: that is where a cycle breaks an import
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                graph[here].add(node.module)
    done = set()

    def visit(module, path):
        assert module not in path, f"cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(modules):
        visit(module, [])
    assert len(done) >= 60


def test_augment_path_is_light():
    """Workers start in about a second: nothing on the augment path imports torch, torchvision, ray or MLflow."""
    code = (
        "import vtray.steps.augment_unit, sys;"
        "print(sorted({'torch', 'torchvision', 'ray', 'mlflow', 's3fs', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
