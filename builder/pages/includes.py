"""Includes: `--8<-- "layouts/rosetta.py:round_trip"`, a section of a script, or with `.py.out` what that section printed."""

import re
import textwrap
from dataclasses import dataclass

from builder import project
from builder.pages.page import Page
from builder.scripts import records, sections

LINE = re.compile(r'^(?P<indent>[ \t]*)--8<--[ \t]+"(?P<target>[^"\n]+)"[ \t]*$', re.M)
TARGET = re.compile(r"(?P<script>[\w/.-]+?\.py)(?P<out>\.out)?(?::(?P<section>[\w-]+))?")


@dataclass(frozen=True)
class Include:
    """What an include names: a script below snippets/ or its output, whole or one section of it."""

    script: str
    out: bool = False
    section: str | None = None

    @classmethod
    def of(cls, target: str) -> "Include | None":
        """The include that a page writes as `target`; None for what cannot be one."""
        match = TARGET.fullmatch(target)
        return cls(match["script"], bool(match["out"]), match["section"]) if match and ".." not in target else None

    @property
    def is_recipe(self) -> bool:
        """Whether it is a file to take home, which is shown and not run."""
        return self.script.startswith("recipes/")

    @property
    def text(self) -> str:
        """Its lines without markers, as far left as they go; raises OSError or KeyError where it leads nowhere."""
        source = (
            records.output(self.script) if self.out else (project.SNIPPETS / self.script).read_text(encoding="utf-8")
        )
        text = sections.texts(source)[self.section] if self.section else source
        return textwrap.dedent("\n".join(line for line in text.splitlines() if not sections.MARKER.match(line)))


def written_in(text: str) -> list[Include]:
    """Every include of a text, in order; lines that only look like one are left out."""
    return [include for match in LINE.finditer(text) if (include := Include.of(match["target"]))]


def put(markdown: str, page: Page) -> str:
    """Each include replaced by the lines that it names, at its own indentation."""

    def lines(match):
        include = Include.of(match["target"])
        return textwrap.indent(include.text, match["indent"]) if include else match[0]

    return LINE.sub(lines, markdown)
