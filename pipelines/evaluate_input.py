"""Which images an evaluation counts: a split of the input, labelled with classes of the model, and the sample."""

import logging
from dataclasses import replace

from pipelines import batch
from pipelines.evaluate_config import EvaluateConfig
from vtray.classify.conditions import CONDITIONS
from vtray.classify.examples import split_of
from vtray.errors import InputError
from vtray.seeding import digest_of
from vtray.sources import ImageRef, Source
from vtray.steps.classify_unit import Checks

log = logging.getLogger("vtray.evaluate")

AUTO, ALL = "auto", "all"
PREFERRED = ("test", "val")  # what auto takes, in this order
MOST_NAMED = 5


def open_labelled(config: EvaluateConfig, classes: tuple[str, ...]) -> tuple[Source, str]:
    """The input with only the images of the split, and the split's name.

    Raises: InputError if the split is not there, or images have no class or one that is not the model's;
    ConfigError, StorageError.
    """
    source = batch.open_input(config)
    split = chosen_split(source, config.split)
    refs = tuple(ref for ref in source.refs if is_of(ref, split))
    _require_classes(refs, classes, source=source, split=split)
    return replace(source, refs=refs), split


def chosen_split(source: Source, wanted: str) -> str:
    """The name of the split, or all. Raises: InputError if there is none of that name."""
    if wanted == AUTO:
        return next((name for name in PREFERRED if any(is_of(ref, name) for ref in source.refs)), ALL)
    if not any(is_of(ref, wanted) for ref in source.refs):
        there = sorted({ref.split for ref in source.refs if ref.split is not None})
        listed = f"it has {', '.join(there)}" if there else "it has none"
        raise InputError(f"split: {source.uri} has no split {wanted!r}; {listed}; or choose all")
    return wanted


def is_of(ref: ImageRef, split: str) -> bool:
    """Whether an image is of that split; valid and dev are val, see `examples.NAMES`."""
    if split == ALL or ref.split == split:
        return True
    return ref.split is not None and split_of(ref.split) == split


def _require_classes(refs: tuple[ImageRef, ...], classes: tuple[str, ...], *, source: Source, split: str) -> None:
    """Raises: InputError for images without a class, or with one that the model does not have."""
    unlabelled = [ref.image_id for ref in refs if ref.class_name is None]
    if unlabelled:
        raise InputError(
            f"{source.uri}: {len(unlabelled)} of {len(refs)} images have no class, such as {unlabelled[0]}; "
            "an evaluation needs labels: use vtray predict, or label them"
        )
    found = {ref.class_name for ref in refs if ref.class_name is not None}
    if unknown := sorted(found - set(classes)):
        raise InputError(
            f"{source.uri}: labels of another model: {_listed(unknown)} are not among its {len(classes)} classes "
            f"({_listed(sorted(classes))}); choose the model of these labels, or rename the classes"
        )
    if unseen := sorted(set(classes) - found):
        log.warning(
            "%s: no image of %s in split %s; these classes are not judged", source.uri, _listed(unseen), split
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def checks_of(config: EvaluateConfig, source: Source) -> Checks:
    """Conditions, severities and the sample, which a hash of seed and id chooses."""
    wanted = config.robustness.conditions
    conditions = () if wanted == "none" else tuple(CONDITIONS) if wanted == "all" else tuple(dict.fromkeys(wanted))
    drawn = sorted(
        (ref.image_id for ref in source.refs), key=lambda id_: digest_of("robustness", config.seed, id_)
    )
    return Checks(
        conditions=conditions,
        severities=tuple(sorted(set(config.robustness.severities))),
        sample=frozenset(drawn[: config.robustness.max_images] if conditions else ()),
        seed=config.seed,
    )
