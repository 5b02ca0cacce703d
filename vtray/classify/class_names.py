"""Which class of the pretrained head a class of ours is: by WordNet id, by lemma or synonym, or by an alias file.

No row is picked in silence: a name that two classes share is refused with the choices, and a bare index with the
class that it would mean. timm lists the wnids and lemmas of ImageNet-1k; the weights' own categories must name the
same class at every row.
"""

import difflib
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import yaml

from vtray.errors import ConfigError, StorageMissing
from vtray.storage import read_uri

log = logging.getLogger(__name__)

Aliases = Mapping[str, str | int | None]

IMAGENET_CLASSES = 1000
NEW_HEAD = "set head.init: new"
_WNID = re.compile(r"n\d{8}")
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, kw_only=True)
class Match:
    """A class of ours and the row of the pretrained head that means the same; `row` is None if there is none.

    `lemma` holds all names of the row's class as WordNet lists them, such as "racer, race car, racing car".
    """

    class_name: str
    row: int | None = None
    wnid: str | None = None
    lemma: str | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """One class of the pretrained head; the names are unequal, the weights' own first."""

    row: int
    wnid: str | None
    lemma: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.wnid or f'row {self.row}'} ({', '.join(self.names)})"


class _Vocabulary:
    """The classes of a pretrained head, found by wnid or by name."""

    def __init__(self, classes: Iterable[_Known]) -> None:
        self.classes = tuple(classes)
        self._by_wnid = {known.wnid: known for known in self.classes if known.wnid}
        self._by_name = defaultdict[str, list[_Known]](list)
        for known in self.classes:
            for name in known.names:
                self._by_name[normalized(name)].append(known)

    def find(self, name: str) -> list[_Known]:
        """All classes that `name` may mean; data sets such as Stanford Dogs write n02085620-Chihuahua."""
        words = normalized(name)
        known = self._by_wnid.get(words.split(" ")[0])
        return [known] if known else self._by_name.get(words, [])

    def similar(self, name: str) -> str:
        close = difflib.get_close_matches(normalized(name), self._by_name, n=2)
        return f"; did you mean {' or '.join(close)}?" if close else ""


def match_classes(
    wanted: Sequence[str], *, categories: Sequence[str], aliases: Aliases | None = None
) -> tuple[Match, ...]:
    """For each wanted class, in order, the row of the head whose rows are called `categories`, or no row.

    A wnid decides, else a lemma or synonym; case, `_`, `-` and spaces do not count. An alias (wnid or name; None:
    no class of the head) is the user's own word and goes before both, so it also settles what is ambiguous.
    Raises: ConfigError with one line for each ambiguous class and each alias that is unknown, ambiguous or a bare
    index; or if 1000 categories are not ImageNet's.
    """
    vocabulary = _vocabulary(tuple(categories))
    aliases = aliases or {}
    matches, faults = [], []
    for name in wanted:
        try:
            matches.append(_match(name, vocabulary, aliases))
        except ConfigError as error:
            faults.append(f"class {name!r}: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
    _report_unused(aliases, wanted)
    return tuple(matches)


def read_aliases(uri: str) -> dict[str, str | None]:
    """The aliases in a YAML file: class name to wnid, lemma or null (no class of the head); all are read as text.

    Raises: ConfigError (missing, not YAML, not a mapping of names to names, a class twice); StorageError.
    """
    try:
        root = yaml.compose(read_uri(uri).decode(), yaml.SafeLoader)
    except StorageMissing as error:
        raise ConfigError(f"{uri}: no such alias file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{uri}: not valid YAML: {' '.join(str(error).split())}") from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{uri}: not a mapping; write one `class name: wnid or lemma` a line")
    aliases: dict[str, str | None] = {}
    for key, value in root.value if root else ():
        # the text as it stands, not what YAML makes of it: a class may be called `no`, `7` or `007`
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode) or key.value in aliases:
            line = key.start_mark.line + 1
            raise ConfigError(f"{uri}, line {line}: write each class once, as `class name: wnid or lemma`")
        aliases[key.value] = None if value.tag == _NULL else value.value
    return aliases


def normalized(name: str) -> str:
    """The name in small letters, its words parted by single spaces."""
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()


def _match(name: str, vocabulary: _Vocabulary, aliases: Aliases) -> Match:
    if name not in aliases:
        return _match_of(name, _only(vocabulary.find(name), name))
    alias = aliases[name]
    if alias is None:
        return Match(class_name=name)
    if isinstance(alias, int) or alias.strip().isdecimal():
        raise ConfigError(_bare_index(name, int(alias), vocabulary))
    found = vocabulary.find(alias)
    if not found:
        raise ConfigError(f"alias {alias!r} is no class of the weights{vocabulary.similar(alias)}")
    return _match_of(name, _only(found, name))


def _match_of(name: str, known: _Known | None) -> Match:
    if known is None:
        return Match(class_name=name)
    return Match(class_name=name, row=known.row, wnid=known.wnid, lemma=known.lemma)


def _only(found: Sequence[_Known], name: str) -> _Known | None:
    if len(found) > 1:
        choices = " or ".join(map(str, found))
        raise ConfigError(
            f"ambiguous, it may mean {choices}; say which in the alias file, "
            f"`{name}: {found[0].wnid or found[0].names[0]}`, or `{name}: null` for neither"
        )
    return found[0] if found else None


def _bare_index(name: str, index: int, vocabulary: _Vocabulary) -> str:
    if not 0 <= index < len(vocabulary.classes):
        return f"alias {index} is a bare index, and the weights have no such class; write a wnid or a name"
    known = vocabulary.classes[index]
    return (
        f"alias {index} is a bare index and would mean {known}; "
        f"if that is the class, write `{name}: {known.wnid or known.names[0]}`"
    )


def _report_unused(aliases: Aliases, wanted: Sequence[str]) -> None:
    unused = sorted(set(aliases) - set(wanted))
    if unused:
        log.warning("aliases of classes that the images do not have: %s", ", ".join(unused))


# the classes of the weights --------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _vocabulary(categories: tuple[str, ...]) -> _Vocabulary:
    """ImageNet's classes with wnids and synonyms; other heads have only the names of their own labels."""
    if len(categories) == IMAGENET_CLASSES:
        return _Vocabulary(_imagenet(categories))
    return _Vocabulary(_Known(row, None, name, (name,)) for row, name in enumerate(categories))


def _imagenet(categories: tuple[str, ...]) -> list[_Known]:
    """ImageNet-1k in the order of the sorted wnids. Raises: ConfigError if the categories are in another order."""
    from timm.data.imagenet_info import ImageNetInfo  # here, because timm takes seconds to import

    info = ImageNetInfo("imagenet-1k")
    known, wrong = [], []
    for row, category in enumerate(categories):
        wnid = info.index_to_label_name(row)
        lemma = info.label_name_to_description(wnid)
        lemmas = lemma.split(", ")
        if not _names_one_of(category, lemmas):
            wrong.append(f"{row} is {category!r}, not {lemma!r}")
        known.append(_Known(row, wnid, lemma, _unequal([category, *lemmas])))
    if wrong:
        raise ConfigError(
            f"the weights' {len(wrong)} classes are not ImageNet's in the order of the wnids "
            f"({'; '.join(wrong[:3])}{'; ...' if len(wrong) > 3 else ''}); {NEW_HEAD}"
        )
    return known


def _names_one_of(category: str, lemmas: Sequence[str]) -> bool:
    """Whether the category is a lemma, or one with words added: torchvision has `crane` and `crane bird`."""
    words = normalized(category) + " "
    return any(words.startswith(normalized(lemma) + " ") for lemma in lemmas)


def _unequal(names: Iterable[str]) -> tuple[str, ...]:
    kept: dict[str, str] = {}
    for name in names:
        kept.setdefault(normalized(name), name)
    return tuple(kept.values())
