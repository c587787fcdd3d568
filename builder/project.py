"""What the rooms share: where things are, which language is being built, and how a fault is told."""

import datetime
import functools
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import filelock

from builder import words

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SNIPPETS = ROOT / "snippets"
CACHE = ROOT / ".cache"
RECORDS = CACHE / "snippets"  # what each script printed, claimed, showed and drew

LANGUAGES = words.LANGUAGES  # code: its own name; the first two have every page, further ones may have some
COMPLETE = [*LANGUAGES][:2]
LANG = next(iter(LANGUAGES))  # which one this process builds
IS_CHILD = False  # whether it builds the second one: second_language.py alone says so, on an order of the first process

LOCK = filelock.FileLock(CACHE / "lock")  # the system takes it back when its holder dies

log = logging.getLogger("mkdocs.builder")  # MkDocs shows what is below its own name


class Stopped(Exception):
    """The build ends here; the message tells every fault, one a line."""


class _State:
    serving = False  # whether the site is built to be looked at while it is written
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


def stop(faults: Iterable[Fault]) -> None:
    """End the build with every fault, or, under serve, go on past the soft ones with a warning."""
    faults = sorted(set(faults))
    hard = [fault for fault in faults if not (fault.soft and state.serving)]
    for fault in faults:
        if fault not in hard:
            log.warning(str(fault))
            soft_faults.append(fault)
    if hard:
        raise Stopped("\n".join(map(str, hard)))


def environment() -> dict[str, str]:
    """That of a process of Python which finds this package wherever it is started, and nothing that lies beside it there."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def built() -> datetime.datetime:
    """When the site is built: SOURCE_DATE_EPOCH says so where two builds are to be the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return datetime.datetime.now(datetime.UTC)
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)


def failed(error: OSError) -> str:
    """What the system refused, as a sentence: an OSError names a reason and a file, that which was written where it copied."""
    name = next(
        (relative(name) for name in (error.filename2, error.filename) if isinstance(name, str | bytes)), "a file"
    )
    return f"{name}: {(error.strerror or str(error)).lower()}; the build needs to read and write here"


def lock() -> None:
    """Keep whoever else would write into .cache, a build or a stamp, waiting, and wait for whoever does: LOCK.release()."""
    CACHE.mkdir(exist_ok=True)
    try:
        LOCK.acquire(timeout=0)
    except filelock.Timeout:
        log.info("Another build of this checkout is running: waiting until it has finished")
        LOCK.acquire()


def relative(path: Path | str | bytes) -> str:
    """`path` as a reader of a message would type it: from the project's root, with slashes."""
    return _relative(os.fsdecode(path), ROOT)


@functools.lru_cache(maxsize=4096)
def _relative(path, root):
    path, root = Path(path).resolve(), root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def page_files(language: str) -> list[Path]:
    """Every Markdown page of one language, sorted, as paths relative to docs/LANGUAGE."""
    folder = DOCS / language
    return sorted(path.relative_to(folder) for path in folder.rglob("*.md"))


def script_of(page: Path | str) -> str:
    """The script of a page: layouts/scaled-dot-product.md -> layouts/scaled_dot_product.py."""
    return Path(page).with_suffix(".py").as_posix().replace("-", "_")


def address_of(page: Path | str) -> str:
    """Where a page will be below its language's root: layouts/rosetta.md -> layouts/rosetta/, index.md -> nothing."""
    name = Path(page).as_posix()
    return name.removesuffix("index.md") if Path(name).name == "index.md" else name.removesuffix(".md") + "/"
