"""Every operator is documented, and the generated pages are what the code would write now."""

import re
from pathlib import Path

from vtray.augment.catalogue import OPERATORS
from vtray.augment.reference import operator_reference

DOCS = Path(__file__).parents[1] / "docs"

REWRITE = "docs/operators.md is stale; write it again: make docs"


def test_the_operator_reference_is_what_the_code_says():
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == operator_reference(), REWRITE


def test_every_operator_and_field_is_in_the_reference():
    sections = re.split(r"^### ", (DOCS / "operators.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    by_name = dict(section.split("\n", maxsplit=1) for section in sections)
    assert sorted(by_name) == sorted(kind.model_fields["op"].default for kind in OPERATORS)
    assert len(by_name) == 27
    rows = 0
    for kind in OPERATORS:
        for name, field in kind.model_fields.items():
            if name != "op":
                rows += 1
                assert f"| `{name}` |" in by_name[kind.model_fields["op"].default]
                assert field.description in by_name[kind.model_fields["op"].default]
    assert rows == sum(section.count("\n| `") for section in by_name.values())
    assert rows > 60
