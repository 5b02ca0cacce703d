"""Batches of training images: the pixels, their order, and images that cannot be used."""

import io
from pathlib import Path

import numpy as np
import pytest
from drawn import draw_image
from PIL import Image

from vtray.augment.recipe import Recipe
from vtray.augment.variants import AugmentWork, VariantMaker, decode_source
from vtray.classify.preprocessing import Preprocessing
from vtray.classify.views import ViewMaker
from vtray.errors import InputError
from vtray.sources import open_source
from vtray.steps.load_batch import EncodedImages, LoadBatch

SMALL = Preprocessing(
    resize_px=36, crop_px=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), interpolation="bilinear"
)
RECIPE = Recipe.model_validate({"operators": [{"op": "random_resized_crop", "size_px": 32}, {"op": "flip"}]})


@pytest.fixture
def folder(tmp_path):
    """Two classes of three PNGs."""
    for number in range(6):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw_image(number, 48, 64)).save(path)
    return tmp_path


def loader(folder, **options):
    source = open_source(str(folder))
    maker = ViewMaker(preprocessing=SMALL, **options)
    return LoadBatch(refs=source.refs, format=source.format, maker=maker)


def test_images_come_in_the_order_asked_for_with_labels_and_ids(folder):
    load = loader(folder)
    batch = load(0, [4, 0, 4])
    assert batch.images.shape == (3, 32, 32, 3)
    assert batch.images.dtype == np.uint8
    assert batch.labels.tolist() == [1, 0, 1]
    assert batch.image_ids == tuple(load.refs[index].image_id for index in (4, 0, 4))
    expected = SMALL(np.asarray(Image.open(load.refs[0].uri)))
    assert np.array_equal(batch.images[1], expected)
    assert np.array_equal(batch.images[0], batch.images[2])


def test_an_epoch_sees_the_variant_that_augment_writes(folder):
    load = loader(folder, recipe=RECIPE, seed=7)
    lossless = Recipe.model_validate(RECIPE.model_dump() | {"image": {"format": "png"}})
    work = AugmentWork(recipe=lossless, seed=7)
    source = decode_source(load.refs[2], Path(load.refs[2].uri).read_bytes(), work)
    written = np.asarray(Image.open(io.BytesIO(VariantMaker(work=work).row(source, 5).image)))
    assert np.array_equal(load(4, [2]).images[0], written)
    assert not np.array_equal(load(3, [2]).images[0], written)


def test_an_augmented_image_of_another_size_is_prepared_as_usual(folder):
    flip = Recipe.model_validate({"operators": [{"op": "flip", "p": 0}]})
    assert np.array_equal(loader(folder, recipe=flip)(0, [1]).images, loader(folder)(0, [1]).images)


def test_for_a_broken_image_the_next_whole_one_stands_in_and_the_fault_is_told(folder):
    (folder / "a" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    load = loader(folder)
    broken = next(index for index, ref in enumerate(load.refs) if ref.uri.endswith("a/2.png"))
    batch = load(0, [broken, 3, 4])
    assert batch.image_ids[0] == batch.image_ids[1] == load.refs[3].image_id
    assert batch.labels.tolist() == [1, 1, 1]
    (fault,) = batch.faults
    assert (fault["image_id"], fault["stage"]) == (load.refs[broken].image_id, "decode")
    last = load(0, [3, broken])
    assert last.image_ids == (load.refs[3].image_id,) * 2


def test_a_batch_without_any_whole_image_is_refused(folder):
    load = loader(folder)
    (folder / "a" / "0.png").unlink()
    with pytest.raises(InputError, match="all 1 images of a batch are broken"):
        load(0, [0])


def test_images_that_were_read_are_not_read_again(folder):
    load = loader(folder)
    first = load(0, [0, 1])
    for path in folder.rglob("*.png"):
        path.unlink()
    assert np.array_equal(load(0, [1, 0]).images, first.images[::-1])


def test_what_is_kept_is_bounded(folder):
    source = open_source(str(folder))
    kept = EncodedImages(limit=1)
    refs = {ref.image_id: ref for ref in source.refs}
    assert len(kept.read(refs, format=source.format, every=source.refs)) == 6
    for path in folder.rglob("*.png"):
        path.unlink()
    assert all(image.encoded is None for image in kept.read(refs, format=source.format, every=source.refs))
