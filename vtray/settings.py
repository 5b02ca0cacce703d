"""A YAML file plus `a.b=value` overrides become one complete, checked config.

All faults are reported at once, one line each: where, the value, what is allowed, what was probably meant.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vtray.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
Location = tuple[str | int, ...]

_JSON_TYPES: dict[type, str] = {list: "array", dict: "object"}
_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def load(model: type[M], *, file: Path | None = None, overrides: Sequence[str] = ()) -> M:
    """The config of a run: the YAML file, then the overrides, in the order given.

    Raises: ConfigError with one line per fault (unreadable file, wrong key, value, override).
    """
    values = read_yaml(file) if file else {}
    faults, changed = [], []
    for override in overrides:
        try:
            changed.append(_apply_override(values, override))
        except ConfigError as error:
            faults.append(str(error))
    try:
        config = model.model_validate(values)
    except ValidationError as error:
        faults += _explain(error, model, values, _Origin(str(file or "config"), tuple(changed)))
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def dump(config: BaseModel) -> str:
    """The resolved config as YAML that `load` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises: ConfigError for a missing, unreadable or malformed file."""
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _StrictLoader)
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such config file{_similar_files(file)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as a text file: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds {type(values).__name__}, not a mapping; write key: value lines")
    return values


def _similar_files(file: Path) -> str:
    if not file.parent.is_dir():
        return ""
    close = difflib.get_close_matches(file.name, [path.name for path in file.parent.iterdir()], n=1)
    return f"; did you mean {file.parent / close[0]}?" if close else ""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


# --set ----------------------------------------------------------------------------------------------------------


def _apply_override(values: dict[str, Any], override: str) -> Location:
    """Put `a.b.0=value` into the nested values; returns the location that was set."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip("."):
        raise ConfigError(f"--set {override}: not of the form key=value; example: --set output.uri=augmented")
    try:
        value = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value; quote it") from error
    location = tuple(int(part) if part.isdigit() else part for part in path.split("."))
    parent: Any = values
    for part in location[:-1]:
        parent = _child(parent, part, override)
    _assign(parent, location[-1], value, override)
    return location


def _child(parent: Any, part: str | int, override: str) -> Any:
    if isinstance(parent, dict):
        key = str(part) if not isinstance(part, str) else part
        if not isinstance(parent.get(key), dict | list):
            parent[key] = {}
        return parent[key]
    return parent[_index(parent, part, override)]


def _assign(parent: Any, part: str | int, value: Any, override: str) -> None:
    if isinstance(parent, dict):
        parent[str(part)] = value
    else:
        parent[_index(parent, part, override)] = value


def _index(parent: Any, part: str | int, override: str) -> int:
    if not isinstance(parent, list) or not isinstance(part, int) or part >= len(parent):
        size = f"a list of {len(parent)}" if isinstance(parent, list) else repr(parent)
        raise ConfigError(f"--set {override}: {part!r} does not name an item of {size}; items count from 0")
    return part


# faults ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Origin:
    """Where values came from: the file, and the locations that --set has put on top."""

    file: str
    changed: tuple[Location, ...]

    def of(self, path: Location) -> str:
        return "--set" if any(path[: len(c)] == c or c[: len(path)] == path for c in self.changed) else self.file


def _explain(error: ValidationError, model: type[BaseModel], values: Any, origin: _Origin) -> list[str]:
    """One line per faulty place; the branches of a plain union (int or pair) share their line."""
    schema = model.model_json_schema()
    lines: dict[Location, list[str]] = {}
    for fault in error.errors(include_url=False):
        path, node = _locate(schema, values, fault["loc"])
        lines.setdefault(path, []).append(_problem(fault, path, node))
    return [
        f"{origin.of(path)}: {'.'.join(map(str, path)) or 'config'}: {' or '.join(dict.fromkeys(problems))}"
        for path, problems in lines.items()
    ]


def _locate(schema: dict[str, Any], values: Any, loc: Location) -> tuple[Location, dict[str, Any]]:
    """The dotted path without pydantic's union tags, and the JSON schema of the mapping or value there."""
    path: list[str | int] = []
    node, value = _resolve(schema, schema, values), values
    for place, part in enumerate(loc):
        if isinstance(value, dict) and (part in value or (place == len(loc) - 1 and part not in value.values())):
            child, value = node.get("properties", {}).get(part), value.get(str(part))
            if child is None:  # an unknown key: keep the parent, whose keys are what is allowed
                return (*path, part), node
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            child, value = _item_schema(node, part), value[part]
        else:
            continue  # a union's tag or branch, not a place in the file
        path.append(part)
        node = _resolve(schema, child, value)
    return tuple(path), node


def _item_schema(node: dict[str, Any], index: int) -> dict[str, Any]:
    prefix: list[dict[str, Any]] = node.get("prefixItems", [])
    items: dict[str, Any] = prefix[index] if index < len(prefix) else node.get("items", {})
    return items


def _resolve(schema: dict[str, Any], node: dict[str, Any], value: Any) -> dict[str, Any]:
    """Follow references and pick the union branch that the value names."""
    if "$ref" in node:
        return _resolve(schema, schema["$defs"][node["$ref"].rpartition("/")[2]], value)
    mapping = node.get("discriminator", {}).get("mapping")
    if mapping and isinstance(value, dict):
        tag = value.get(node["discriminator"]["propertyName"])
        return _resolve(schema, {"$ref": mapping[tag]}, value) if tag in mapping else node
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        named = schema["$defs"][branch["$ref"].rpartition("/")[2]] if "$ref" in branch else branch
        kind = named.get("type")
        if kind is None or kind == _JSON_TYPES.get(type(value)):
            return _resolve(schema, branch, value)
    return node


def _problem(fault: Mapping[str, Any], path: Location, node: dict[str, Any]) -> str:
    kind, shown = fault["type"], _shown(fault["input"])
    context = fault.get("ctx", {})
    if kind == "missing":
        return f"required, but not given{_described(node)}"
    if kind == "extra_forbidden":
        return f"not a known key{_choices(str(path[-1]), node.get('properties', {}))}"
    if kind == "union_tag_not_found":
        return f"{shown} does not say which; add {context['discriminator']}"
    if kind == "union_tag_invalid":
        return f"{context['tag']!r} is not known{_choices(context['tag'], _tags(context))}"
    if kind == "literal_error":
        return f"{shown} is not allowed{_choices(str(fault['input']), node.get('enum', [node.get('const')]))}"
    limits = [f"{sign} {node[key]}" for key, sign in _LIMITS.items() if key in node]
    if limits:
        return f"{shown} is not allowed; allowed: {' and '.join(limits)}{_described(node)}"
    text = str(context["error"]) if kind == "value_error" else fault["msg"].removeprefix("Input ")
    if isinstance(fault["input"], dict):  # a rule over several fields: its message names them
        return text
    return f"{shown}: {text}{_described(node)}"


def _tags(context: Mapping[str, Any]) -> Iterator[str]:
    return (tag.strip().strip("'") for tag in context["expected_tags"].split(","))


def _choices(given: str, allowed: Any) -> str:
    names = sorted(map(str, allowed))
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (allowed: {', '.join(names)})" if hint else f"; allowed: {', '.join(names)}"


def _described(node: dict[str, Any]) -> str:
    text = node.get("description", "")
    return f" ({text.splitlines()[0]})" if text else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
