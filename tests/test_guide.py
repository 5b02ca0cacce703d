"""docs/guide.md says what the code says, its blocks run, and no page has a dead link."""

import re
from typing import get_args

import numpy as np
import pytest
import yaml
from pages import PAGES, ROOT, Page
from PIL import Image
from pydantic import BaseModel

from pipelines.augment import AugmentConfig
from vtray.augment.operator import Sample
from vtray.augment.recipe import Recipe
from vtray.augment.variants import AugmentWork, VariantMaker, decode_source
from vtray.images import FORMATS, encode
from vtray.images.faults import Reason
from vtray.seeding import rng_for
from vtray.shards.rows import SCHEMA
from vtray.sources import ImageRef
from vtray.sources.read import FAULTS

GUIDE = Page(ROOT / "docs" / "guide.md")
BY_SIZE = ("units.max_images", "num_workers", "tracking.uri", "run_name")  # their defaults are told in words


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in Page(path).links():
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in Page(target).anchors(), link


def test_pages_and_links_were_seen():
    assert len(PAGES) >= 6
    assert sum(len(Page(path).links()) for path in PAGES) >= 25


def test_every_failure_has_its_line():
    rows = GUIDE.table("| stage | error_type | meaning |")
    told = {(stage, reason.strip("`")) for stage, reason, _ in rows}
    read = {("read", reason) for reason in FAULTS}
    decode = {("decode", reason) for reason in get_args(Reason) if reason != "too_large"}
    others = {("encode", "empty"), ("encode", "too_large"), ("augment", "name of the Python error")}
    assert told == read | decode | others
    assert len(rows) == len(told) == 19


def test_every_column_of_a_row_has_its_line():
    rows = GUIDE.table("| column | type | meaning |")
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row[0])] == SCHEMA.names


def settings_of(model, prefix=""):
    """Dotted key -> default of every setting; ... where it is required."""
    found = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings_of(field.annotation, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = ... if field.is_required() else field.default
    return found


def test_every_setting_has_its_line_and_its_default():
    expected = settings_of(AugmentConfig)
    told = {}
    for keys, default, _ in GUIDE.table("| key | default | meaning |"):
        values = re.findall(r"`([^`]+)`", default) or [default]
        told |= dict(zip(re.findall(r"`([\w.]+)`", keys), values, strict=True))
    assert told.keys() == expected.keys()
    assert len(told) == 24
    for key in expected.keys() - set(BY_SIZE):
        value = expected[key]
        if value is ...:
            assert told[key] == "required"
        else:
            assert yaml.safe_load(told[key]) == (list(value) if isinstance(value, tuple) else value), key


def test_every_image_format_is_named():
    readme = Page(ROOT / "README.md").text
    names = {name: {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}.get(name, name) for name in FORMATS}
    assert [name for name in names.values() if name not in readme] == []
    assert len(names) == 10


def test_the_recipe_is_one():
    (block,) = GUIDE.blocks("yaml")
    recipe = Recipe.model_validate(yaml.safe_load(block))
    assert [operator.op for operator in recipe.operators] == [
        "random_resized_crop",
        "flip",
        "sometimes",
        "one_of",
        "some_of",
    ]
    assert recipe(np.full((64, 64, 3), 90, np.uint8)).shape == (224, 224, 3)


def test_blocks_are_of_kinds_that_are_run():
    assert sorted(GUIDE.languages()) == ["python"] * 3 + ["yaml"]


def test_the_job_s_pixels_in_python(tmp_path, monkeypatch):
    """The first block makes what a job writes for variant 2 of the same file."""
    drawn = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(drawn).save(tmp_path / "photo.jpg")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(GUIDE.blocks("python")[0], names)
    work = AugmentWork(recipe=names["recipe"], seed=0)
    ref = ImageRef(image_id="a.jpg", uri="photo.jpg", num_bytes=1, version="1")
    row = VariantMaker(work=work).row(decode_source(ref, names["encoded"], work), 2)
    assert encode(names["sample"].image) == row.image


def test_the_operator_of_one_s_own():
    define, use = GUIDE.blocks("python")[1:]
    names = {}
    exec(define, names)
    exec(use, names)
    image = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
    image.flags.writeable = False
    posterize = names["Posterize"]()
    one, other = (posterize(Sample(image=image), rng_for("x")) for _ in range(2))
    (record,) = one.applied
    assert np.array_equal(one.image, other.image)
    assert one.image.dtype == np.uint8
    assert len(np.unique(one.image)) == 2 ** record["bits"]
