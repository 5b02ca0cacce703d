"""A Markdown page as tests see it: its blocks of code, its commands, links and headings."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Page:
    """One page; what stands in blocks of code is no text of it."""

    path: Path

    @property
    def source(self):
        return self.path.read_text(encoding="utf-8")

    @property
    def text(self):
        return re.sub(r"^```.*?^```$", "", self.source, flags=re.MULTILINE | re.DOTALL)

    def languages(self):
        """The language of every block, in order; "" where none is given."""
        return re.findall(r"^```(.*)$", self.source, re.MULTILINE)[::2]

    def blocks(self, language):
        return re.findall(rf"^```{language}\n(.*?)^```$", self.source, re.MULTILINE | re.DOTALL)

    def commands(self):
        """Every command of the sh blocks as its words; a line that ends in a backslash goes on."""
        lines = "".join(self.blocks("sh")).replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]

    def inline_commands(self, program):
        """What stands in the text as `program words`."""
        return [
            shlex.split(code) for code in re.findall(r"`([^`\n]+)`", self.text) if code.startswith(f"{program} ")
        ]

    def links(self):
        """The targets of all links and pictures."""
        return re.findall(r"\]\(([^)]+)\)", self.text)

    def anchors(self):
        """The headings as links name them."""
        headings = re.findall(r"^#+ (.+)$", self.text, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def table(self, header):
        """The rows below a table's header line, as their cells."""
        rows = self.text.split(f"\n{header}\n", 1)[1].splitlines()[1:]
        end = next((number for number, row in enumerate(rows) if not row.startswith("|")), len(rows))
        return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[:end]]
