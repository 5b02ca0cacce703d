import hashlib
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as PillowImage
from pydantic import ValidationError

from vtray.augment.colour import Brightness
from vtray.augment.degrade import Noise
from vtray.augment.framing import RandomResizedCrop
from vtray.augment.geometry import FlipLeftRight, Rotate
from vtray.augment.operator import Sample
from vtray.augment.recipe import ImageOutput, Recipe
from vtray.errors import ConfigError
from vtray.seeding import seed_for

IMAGE = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
IMAGE.flags.writeable = False
OPERATORS = (RandomResizedCrop(size_px=32), FlipLeftRight(), Brightness())

JOB = """
input: {uri: somewhere}
seed: 3
variants: 4
operators:
  - {op: random_resized_crop, size_px: 32}
  - op: one_of
    operators: [{op: blur}, {op: noise, std: [0, 2e1]}]
"""


def test_a_recipe_is_read_from_the_file_of_a_job(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    recipe = Recipe.load(tmp_path / "job.yaml")
    assert type(recipe) is Recipe
    assert recipe.variants == 4
    assert [operator.op for operator in recipe.operators] == ["random_resized_crop", "one_of"]
    assert recipe.operators[1].operators[1].std == (0, 20)  # PyYAML reads 2e1 as text
    changed = Recipe.load(str(tmp_path / "job.yaml"), overrides=["operators.0.size_px=16", "image.quality=80"])
    assert changed.operators[0].size_px == 16
    assert changed.image == ImageOutput(quality=80)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("op: blur", "op: blru"), "did you mean 'blur'"),
        (("size_px: 32", "size: 32"), "operators.0.size: not a known key"),
        (("size_px: 32", "size_px: 0"), "operators.0.size_px"),
        (("operators:\n  - {op: random", "operator:\n  - {op: random"), "operators: required"),
    ],
    ids=["operator", "field", "value", "misspelt list"],
)
def test_faults_in_the_file_are_named(tmp_path, change, message):
    assert change[0] in JOB
    (tmp_path / "job.yaml").write_text(JOB.replace(*change))
    with pytest.raises(ConfigError, match=message):
        Recipe.load(tmp_path / "job.yaml")


def test_faults_in_python_are_pydantics():
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Recipe(operators=(), variants=-1)
    with pytest.raises(ValidationError, match="'jpeg', 'png' or 'webp'"):
        ImageOutput(format="gif")
    with pytest.raises(ValidationError, match="less than or equal to 100"):
        ImageOutput(quality=101)


def test_the_digest_follows_what_decides_the_pixels_and_nothing_else():
    recipe = Recipe(operators=OPERATORS)
    assert len(recipe.digest) == 64
    assert Recipe(operators=OPERATORS, variants=9, keep_original=False).digest == recipe.digest
    assert Recipe(operators=OPERATORS[:2]).digest != recipe.digest
    assert Recipe(operators=OPERATORS, image=ImageOutput(quality=91)).digest != recipe.digest
    assert Recipe(operators=(OPERATORS[0], FlipLeftRight(p=0.4), OPERATORS[2])).digest != recipe.digest


def test_a_default_written_out_has_the_same_digest():
    assert Recipe(operators=(Noise(),)).digest == Recipe(operators=(Noise(std=(0, 15), p=1),)).digest


def test_variants_differ_and_follow_seed_source_and_number():
    recipe = Recipe(operators=OPERATORS)
    assert recipe.variant_seed(0, "ab", 1) == seed_for(0, "ab", 1)
    seeds = {recipe.variant_seed(seed, sha, v) for seed in (0, 1) for sha in ("ab", "cd") for v in (1, 2)}
    assert len(seeds) == 8
    images = [recipe(IMAGE, variant=variant).tobytes() for variant in range(1, 5)]
    assert len(set(images)) == 4


def test_operators_added_at_the_end_do_not_change_earlier_draws():
    short, long = Recipe(operators=OPERATORS[:2]), Recipe(operators=(*OPERATORS[:2], Rotate(), Noise()))
    for seed in range(10):
        before = short.apply(Sample(image=IMAGE), variant_seed=seed).applied
        after = long.apply(Sample(image=IMAGE), variant_seed=seed).applied
        assert after[: len(before)] == before


def test_records_are_json_and_name_what_was_applied():
    applied = Recipe(operators=OPERATORS).apply(Sample(image=IMAGE), variant_seed=4).applied
    assert json.loads(json.dumps(applied)) == list(applied)
    assert [record["op"] for record in applied if record["op"] != "flip"] == ["random_resized_crop", "brightness"]


def test_numpy_and_pillow_images_give_the_same_pixels_of_the_same_kind():
    recipe = Recipe(operators=OPERATORS)
    array, picture = recipe(IMAGE, seed=5), recipe(PillowImage.fromarray(IMAGE), seed=5)
    assert isinstance(array, np.ndarray)
    assert isinstance(picture, PillowImage.Image)
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(array, picture)


def test_pillow_images_of_other_modes_become_rgb():
    grey = PillowImage.fromarray(IMAGE).convert("L")
    np.testing.assert_array_equal(Recipe(operators=())(grey), grey.convert("RGB"))


@pytest.mark.parametrize("operators", [(), (FlipLeftRight(p=0),), (RandomResizedCrop(size_px=8),), OPERATORS])
@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("view", [IMAGE, IMAGE[::2, ::-1]], ids=["contiguous", "view"])
def test_the_result_is_the_callers_own_writable_contiguous_array(operators, variant, view):
    result = Recipe(operators=operators)(view, variant=variant)
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, IMAGE)
    if variant == 0:
        np.testing.assert_array_equal(result, view)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty"],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match=r"give uint8 with shape \(height, width, 3\)"):
        Recipe(operators=())(image)


def test_a_pickled_recipe_gives_the_same_pixels():
    recipe = Recipe(operators=OPERATORS)
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert again.digest == recipe.digest
    np.testing.assert_array_equal(again(IMAGE), recipe(IMAGE))


def test_another_process_gives_the_same_pixels_without_torch():
    program = (
        "import hashlib, pickle, sys\n"
        "recipe, image = pickle.loads(sys.stdin.buffer.read())\n"
        "heavy = {'torch', 'torchvision', 'ray', 'mlflow'} & set(sys.modules)\n"
        "print(hashlib.sha256(recipe(image).tobytes()).hexdigest(), sorted(heavy))"
    )
    recipe = Recipe(operators=(*OPERATORS, Noise(), Rotate()))
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps((recipe, IMAGE)),
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
        check=True,
    )
    assert run.stdout.decode().split() == [hashlib.sha256(recipe(IMAGE).tobytes()).hexdigest(), "[]"]
