"""Class names: from what each format stores as a label to one sorted list for the whole source."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from vtray.sources.unit import ImageRef


def class_name_of(label: object, names: Sequence[str] = ()) -> str | None:
    """The class that a stored label means: text is the name, an integer (or its text) an index into `names`.

    Without names an integer is its own name; nothing, NaN and values of other types are no label.
    """
    if isinstance(label, str):
        text = label.strip()
        index = int(text) if text.isdecimal() else -1
        return names[index] if 0 <= index < len(names) else text or None
    if isinstance(label, float) and label.is_integer():  # pandas turns integers with gaps into floats
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int):
        return None
    return names[label] if 0 <= label < len(names) else str(label)


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order; if all are numbers, by number, so that labels 0..n-1 keep their value."""
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def label_refs(refs: Sequence[ImageRef]) -> tuple[tuple[str, ...], tuple[ImageRef, ...]]:
    """The sorted classes, and the references with `label` set to the index of their class."""
    classes = sort_classes(ref.class_name for ref in refs if ref.class_name is not None)
    index = {name: label for label, name in enumerate(classes)}
    return classes, tuple(replace(ref, label=index[ref.class_name]) if ref.class_name else ref for ref in refs)
