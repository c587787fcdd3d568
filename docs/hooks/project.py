"""What the hooks share: where things are, which language is being built, and how a fault is told."""

import datetime
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import filelock
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SNIPPETS = ROOT / "snippets"
CACHE = ROOT / ".cache"
RECORDS = CACHE / "snippets"  # what each script printed, claimed, showed and drew

LANGUAGES = {"ja": "日本語", "en": "English"}
LANG = "ja"  # which one this process builds
IS_CHILD = False  # whether it builds the second one: second_language.py alone says so, on an order of languages.py

LOCK = filelock.FileLock(CACHE / "lock")  # the system takes it back when its holder dies

log = logging.getLogger("mkdocs.hooks")


class _State:
    serving = False  # set by languages.on_startup
    handed: tuple["Fault", ...] = ()  # to the second language: soft faults that the first one found


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


def built():
    """When the site is built: SOURCE_DATE_EPOCH says so where two builds are to be the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return datetime.datetime.now(datetime.UTC)
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)


def failed(error):
    """What the system refused, as a sentence: an OSError names a reason and a file, that which was written where it copied."""
    name = next((relative(name) for name in (error.filename2, error.filename) if isinstance(name, str | bytes)), "a file")
    return f"{name}: {(error.strerror or str(error)).lower()}; the build needs to read and write here"


def lock():
    """Keep whoever else would write into .cache, a build or a stamp, waiting, and wait for whoever does: LOCK.release()."""
    CACHE.mkdir(exist_ok=True)
    try:
        LOCK.acquire(timeout=0)
    except filelock.Timeout:
        log.info("Another build of this checkout is running: waiting until it has finished")
        LOCK.acquire()


def relative(path):
    """`path` as a reader of a message would type it: from the project's root, with slashes."""
    path = Path(os.fsdecode(path)).resolve()
    return path.relative_to(ROOT.resolve()).as_posix() if path.is_relative_to(ROOT.resolve()) else str(path)


def page_files(language):
    """Every Markdown page of one language, sorted, as paths relative to docs/LANGUAGE."""
    folder = DOCS / language
    return sorted(path.relative_to(folder) for path in folder.rglob("*.md"))


def script_of(page):
    """The script of a page: layouts/scaled-dot-product.md -> layouts/scaled_dot_product.py."""
    return Path(page).with_suffix(".py").as_posix().replace("-", "_")
