"""What the demo measures: how often a model is right on pictures of one split."""

from pathlib import Path

import numpy as np

from vtray.classify.model_dir import load_model
from vtray.classify.preprocessing import decode_for
from vtray.sources import Unit, open_source, read_unit


def accuracy(model_uri: str, folder: Path, split: str) -> float:
    """The share of a split's pictures, `folder/split/class/name.jpg`, that the model names rightly.

    Raises: InputError, WeightsError, StorageError.
    """
    model = load_model(model_uri)
    source = open_source(str(folder))
    refs = tuple(ref for ref in source.refs if ref.split == split)
    images = read_unit(Unit(unit_id=split, format=source.format, refs=refs))
    crops = np.stack([decode_for(model.preprocessing, image.encoded or b"") for image in images])
    labels = [model.classes.index(ref.class_name or "") for ref in refs]
    return float((model.logits(crops).argmax(1).numpy() == np.array(labels)).mean())
