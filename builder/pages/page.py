"""One page in one language, while it is built: where it comes from, where it goes, and what is wrong with it."""

import posixpath
from dataclasses import dataclass, field

from builder import project
from builder.project import Fault


@dataclass
class Page:
    """What every step of builder/order.py is told of the page that it works on.

    name      its path below docs/LANGUAGE: layouts/rosetta.md
    meta      its front matter
    site      the site's address, without a slash at its end: https://host/repository
    faults    what a step found wrong and went on past: the build ends with them when all pages are done
    markdown  its Markdown after all of BEFORE; notebook: of a practice page, the JSON text of its executed notebook
    drawn     how often each figure stands on it so far, by its short name
    found     the sections of its text that the search looks through
    """

    language: str
    name: str
    meta: dict = field(default_factory=dict)
    site: str = ""
    faults: list[Fault] = field(default_factory=list)
    markdown: str = ""
    notebook: str = ""
    drawn: dict[str, int] = field(default_factory=dict)
    found: list[dict] = field(default_factory=list)

    @property
    def file(self) -> str:
        """Its source, for messages: docs/en/layouts/rosetta.md."""
        return f"docs/{self.language}/{self.name}"

    @property
    def source(self) -> str:
        """Its Markdown as it is written."""
        return (project.DOCS / self.language / self.name).read_text(encoding="utf-8-sig")

    @property
    def url(self) -> str:
        """Its address below the language's root: layouts/rosetta/; empty for the home page."""
        return project.address_of(self.name)

    def link(self, target: str) -> str:
        """The address of a file or page of this language, as seen from here: explorers/head-view.js -> ../../explorers/head-view.js."""
        return relative_url(target, self.url)

    def fault(self, message: str, line: int = 0, **soft: bool) -> None:
        """Note that something is wrong here."""
        self.faults.append(Fault(self.file, line, message, **soft))


def relative_url(target: str, here: str) -> str:
    """The address `target` as seen from the page `here`, both below one root; folders end with a slash."""
    way = posixpath.relpath(f"/{target}", f"/{here.rpartition('/')[0]}")
    return way + "/" if target.endswith("/") and not way.endswith("/") else way
