"""The operator reference in Markdown, written from the operators' own docstrings and fields."""

import inspect
from typing import Any

from vtray.augment.catalogue import OPERATORS
from vtray.augment.operator import Operator
from vtray.seeding import rng_for

FAMILIES = {  # heading -> modules of vtray.augment
    "Framing: crops, resize, pad": ("framing",),
    "Geometry: mirror, turn, shear": ("geometry",),
    "Colour": ("colour",),
    "Lighting": ("lighting", "shading", "reflection"),
    "Degradation: blur, noise, compression, erasing": ("degrade",),
    "Choice: operators that apply other operators": ("control",),
}

_INTRODUCTION = """\
# Operators

A recipe lists operators by name: `operators: [{op: flip, p: 0.5}, {op: blur, sigma: [0.5, 1]}]`. A pair
`[low, high]` is a range from which one value is drawn for each image; equal ends fix it. This page is written by
`vtray.augment.reference` from the code.
"""


def operator_reference() -> str:
    """The page docs/operators.md: all operators of the catalogue by family, with every field."""
    families = [_family(heading, modules) for heading, modules in FAMILIES.items()]
    return "\n".join([_INTRODUCTION, *families])


def _family(heading: str, modules: tuple[str, ...]) -> str:
    members = [kind for kind in OPERATORS if kind.__module__.rpartition(".")[2] in modules]
    return "\n".join([f"## {heading}\n", *map(_section, members)])


def _section(kind: type[Operator]) -> str:
    schema = kind.model_json_schema()
    own = schema if "properties" in schema else schema["$defs"][kind.__name__]
    required = own.get("required", ())
    rows = [_row(name, field, name in required) for name, field in own["properties"].items() if name != "op"]
    name = own["properties"]["op"]["const"]
    table = ["| field | value | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"### {name}\n", f"{inspect.getdoc(kind)}\n\n{_recorded(kind)}\n", *table, ""])


def _recorded(kind: type[Operator]) -> str:
    """The keys of its record; control operators have no draw of their own."""
    if kind.draw is Operator.draw:
        return f"In Python `{kind.__name__}`."
    drawn = kind.model_validate({}).draw(rng_for("reference"), 100, 100)
    names = ", ".join(f"`{name}`" for name in drawn) or "nothing else"
    return f"In Python `{kind.__name__}`; recorded: {names}."


def _row(name: str, field: dict[str, Any], required: bool) -> str:
    default = "required" if required else f"`{_yaml(field['default'])}`"
    return f"| `{name}` | {_value(field)} | {default} | {field['description']} |"


def _value(schema: dict[str, Any]) -> str:
    """What may be written for a field, in words."""
    if "anyOf" in schema:
        return " or ".join(_value(branch) for branch in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        items = [_value(item) for item in schema["prefixItems"]]
        return f"{len(items)} × {items[0]}" if len(set(items)) == 1 else f"[{', '.join(items)}]"
    if schema.get("type") == "array":
        return f"list of: {_value(schema['items'])}"
    return f"{schema.get('type', 'operator')}{_bounds(schema)}"


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" {low:g} to {high:g}"
    return "" if low is None else f" from {low:g}"


def _yaml(default: Any) -> str:
    if isinstance(default, list):
        return "[" + ", ".join(map(_yaml, default)) + "]"
    return "null" if default is None else f"{default:.4g}" if isinstance(default, float) else str(default)
