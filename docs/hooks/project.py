"""What the hooks share: where things are, which language is being built, and how a fault is told."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SNIPPETS = ROOT / "snippets"
CACHE = ROOT / ".cache"
RECORDS = CACHE / "snippets"  # what each script printed, claimed, showed and drew

LANGUAGES = {"ja": "日本語", "en": "English"}
LANG = os.environ.get("DOCS_LANG", "ja")
IS_CHILD = "DOCS_LANG" in os.environ  # the second language, built by a process of its own

log = logging.getLogger("mkdocs.hooks")


class _State:
    serving = False  # set by languages.on_startup


state = _State()


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong, where, and what to do about it.

    file is relative to the project's root; line counts from 1, 0 when the whole file is meant.
    A soft fault only warns under `mkdocs serve`, so that writing is possible.
    """

    file: str
    line: int
    message: str
    soft: bool = False

    def __str__(self):
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


soft_faults: list[Fault] = []  # of this build, under serve: each page shows its own in a banner


def stop(faults):
    """End the build with every fault, or, under serve, go on past the soft ones with a warning."""
    faults = sorted(set(faults))
    hard = [fault for fault in faults if not (fault.soft and state.serving)]
    for fault in faults:
        if fault not in hard:
            log.warning(str(fault))
            soft_faults.append(fault)
    if hard:
        raise PluginError("\n".join(map(str, hard)))


def relative(path):
    """`path` as a reader of a message would type it: from the project's root, with slashes."""
    path = Path(path).resolve()
    return path.relative_to(ROOT.resolve()).as_posix() if path.is_relative_to(ROOT.resolve()) else str(path)


def page_files(language):
    """Every Markdown page of one language, sorted, as paths relative to docs/LANGUAGE."""
    folder = DOCS / language
    return sorted(path.relative_to(folder) for path in folder.rglob("*.md"))


def script_of(page):
    """The script of a page: layouts/scaled-dot-product.md -> layouts/scaled_dot_product.py."""
    return Path(page).with_suffix(".py").as_posix().replace("-", "_")
