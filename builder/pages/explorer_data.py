"""Numbers that an explorer fetches when it needs them: what a page's script kept, as a file beside the site's own.

A page that says `data: [heads_en]` in its front matter gets `data/heads_en.json` below its language's root: the JSON that
its script kept with show("heads_en", ...).
"""

import json
from collections.abc import Iterator
from pathlib import Path

from builder import project
from builder.pages import reader
from builder.project import Fault
from builder.scripts import records


def wanted(language: str) -> Iterator[tuple[str, str]]:
    """[(page, name of a value)] that the pages of one language ask for."""
    for page in project.page_files(language):
        text = (project.DOCS / language / page).read_text(encoding="utf-8")
        for name in reader.front_matter(text).get("data", []):
            yield page.as_posix(), name


def faults() -> Iterator[Fault]:
    """Data that no script keeps, and data of two pages under one name."""
    for language in project.LANGUAGES:
        taken = {}
        for page, name in wanted(language):
            file, script = f"docs/{language}/{page}", project.script_of(page)
            kept = _data(script)
            if name not in kept:
                there = ", ".join(kept) or "none"
                yield Fault(file, 1, f"data: no JSON {name!r} is shown by snippets/{script}; it shows {there}")
            if taken.setdefault(name, page) != page:
                yield Fault(file, 1, f"data: {name!r} is the name of another page's data, {taken[name]}")


def write(folder: Path) -> None:
    """The files below a language's folder of the site: of all languages, since these share one copy."""
    for language in project.LANGUAGES:
        for page, name in wanted(language):
            path = folder / "data" / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(_data(project.script_of(page))[name], encoding="utf-8")


def _data(script):
    """{name: text} of the values of a script that are JSON objects."""
    return {name: text for name, text in (records.record(script, "values") or {}).items() if _is_object(text)}


def _is_object(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
