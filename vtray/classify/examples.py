"""The labelled images of an input, in the splits that training needs, and what is wrong with them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vtray.errors import InputError
from vtray.seeding import digest_of
from vtray.sources import ImageRef, Source

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Image references by split, each sorted by image_id; a label is an index into `classes`.

    carved: whether the validation images were taken from the training split.
    """

    classes: tuple[str, ...]
    train: tuple[ImageRef, ...]
    val: tuple[ImageRef, ...]
    test: tuple[ImageRef, ...]
    carved: bool

    @classmethod
    def of(cls, source: Source, *, val_fraction: float, seed: int) -> "Examples":
        """Labelled images of an input; without a split val, a fraction of each class is taken from train.

        Raises: InputError for labels that are missing, fewer than two classes, or a class without images.
        """
        _require_labels(source)
        groups = _by_split(source.refs)
        train, val = groups["train"], groups["val"]
        carved = not val
        if carved:
            train, val = _carve(train, fraction=val_fraction, seed=seed)
        examples = cls(
            classes=source.classes, train=tuple(train), val=tuple(val), test=tuple(groups["test"]), carved=carved
        )
        examples.require_all_classes()
        return examples

    def require_all_classes(self) -> None:
        """Raises: InputError if a class has no image to train on or to validate with, naming all of them."""
        faults = [
            f"{split}: no images of {_listed(missing)}"
            for split, refs in (("train", self.train), ("val", self.val))
            if (missing := self._missing(refs))
        ]
        if faults:
            raise InputError(
                f"{'; '.join(faults)}; every class needs images in train and val: add some or remove the class"
            )

    def _missing(self, refs: Iterable[ImageRef]) -> list[str]:
        there = {ref.label for ref in refs}
        return [name for label, name in enumerate(self.classes) if label not in there]

    def without(self, image_ids: frozenset[str]) -> "Examples":
        """The same without some images, such as broken ones. Raises: InputError if a class is left empty."""
        kept = {
            split: tuple(ref for ref in refs if ref.image_id not in image_ids)
            for split, refs in (("train", self.train), ("val", self.val), ("test", self.test))
        }
        examples = Examples(classes=self.classes, carved=self.carved, **kept)
        examples.require_all_classes()
        return examples


def split_of(name: str | None) -> str | None:
    """train, val or test for the usual names of splits, None for another; no name counts as train."""
    if name is None:
        return "train"
    return next((split for split, names in NAMES.items() if name.lower() in names), None)


def _require_labels(source: Source) -> None:
    unlabelled = [ref.image_id for ref in source.refs if ref.label is None]
    if unlabelled:
        raise InputError(
            f"{source.uri}: {len(unlabelled)} of {len(source.refs)} images have no label, such as {unlabelled[0]}"
            "; training needs class folders, or labels in the shards or the list"
        )
    if len(source.classes) < 2:
        raise InputError(
            f"{source.uri}: one class only ({source.classes[0]}); a classifier needs two or more, "
            "for example a folder of everything else"
        )


def _by_split(refs: Iterable[ImageRef]) -> dict[str, list[ImageRef]]:
    groups: dict[str, list[ImageRef]] = {split: [] for split in NAMES}
    for ref in refs:
        split = split_of(ref.split)
        if split is not None:  # a split of another name, such as showroom, is for `vtray evaluate`
            groups[split].append(ref)
    return groups


def _carve(refs: Sequence[ImageRef], *, fraction: float, seed: int) -> tuple[list[ImageRef], list[ImageRef]]:
    """Training and validation images: of each class the same fraction, at least one, chosen by hash.

    All variants of one image stay on one side, and only the image itself validates.
    """
    sources: dict[int | None, set[str]] = defaultdict(set)
    for ref in refs:
        sources[ref.label].add(source_id(ref))
    chosen: set[str] = set()
    for ids in sources.values():
        ordered = sorted(ids, key=lambda image_id: digest_of(seed, "val", image_id))
        chosen.update(ordered[: max(1, round(fraction * len(ordered)))] if len(ordered) > 1 else ())
    train = [ref for ref in refs if source_id(ref) not in chosen]
    val = [ref for ref in refs if source_id(ref) in chosen and ref.image_id == source_id(ref)]
    return train, val


def source_id(ref: ImageRef) -> str:
    """The image that a variant in augmented shards was made from."""
    stem, mark, number = ref.image_id.rpartition("#v")
    return stem if mark and number.isdigit() else ref.image_id


def counts_by_class(refs: Iterable[ImageRef], num_classes: int) -> list[int]:
    """How many images there are of each class."""
    counts = Counter(ref.label for ref in refs)
    return [counts[label] for label in range(num_classes)]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
