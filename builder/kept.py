"""What a step made of a page, kept by a digest of all that went into it, so that it is not made again.

Below .cache/pages/KIND there is a file for each thing that was made, named by the digest of what it was made of. It
carries a digest of its own: what is damaged is made anew. The program belongs to what everything is made of: builder/,
the templates, the configuration, and the versions of what turns Markdown into pages.
"""

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from builder import project, words

MAKERS = (
    "django-static-mathjax", "Jinja2", "Markdown", "mkdocs", "mkdocs-jupyter", "mkdocs-material", "nbconvert", "Pygments",
    "pymdown-extensions", "tinycss2",
)  # fmt: skip

_memory: dict[tuple[str, str], Any] = {}  # of this process: under serve nothing is read twice
_used: dict[str, set[str]] = {}


def digest(*parts: Any) -> str:
    """A digest of texts, or of what can be written as JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def program_files() -> list[Path]:
    """The files of the build itself: its modules, its templates and its words."""
    here = Path(__file__).parent
    parts = sorted(path for path in here.rglob("*") if path.suffix in (".py", ".j2"))
    return [here.with_name("mkdocs_adapter.py"), words.FILE, *parts]


@functools.cache
def program() -> str:
    """A digest of the build itself, as it stood when this process first asked."""
    texts = [path.read_text("utf-8") for path in program_files()]
    return digest(texts, [metadata.version(name) for name in MAKERS])


def kept(kind: str, parts: Any, make: Callable[[], Any], keep: Callable[[Any], bool] = lambda made: True) -> Any:
    """What `make` made of `parts`, now or before; it is not kept where `keep` says no.

    kind     the folder: things of one kind that no build has asked for are forgotten together
    parts    all that it depends on, as JSON can be written of it
    make     gives what JSON can be written of
    """
    key = digest(program(), kind, parts)
    _used.setdefault(kind, set()).add(key)
    if (kind, key) in _memory:
        return _memory[kind, key]
    file = project.CACHE / "pages" / kind / f"{key}.json"
    try:
        text = file.read_text(encoding="utf-8")
        seal, _, body = text.partition("\n")
        if seal == hashlib.sha256(f"{key}{body}".encode()).hexdigest():
            return _memory.setdefault((kind, key), json.loads(body))
    except (OSError, ValueError):
        pass
    made = make()
    if keep(made):
        body = json.dumps(made, ensure_ascii=False)
        _write(file, f"{hashlib.sha256(f'{key}{body}'.encode()).hexdigest()}\n{body}")
        made = _memory[kind, key] = json.loads(body)
    return made


def _write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as part:
        part.write(text)
    os.replace(part.name, file)


def begin() -> None:
    """A build begins: nothing is in use yet."""
    _used.clear()


def forget() -> None:
    """The build has succeeded: of each kind that it asked for, what it did not ask for goes."""
    for kind, keys in _used.items():
        for file in (project.CACHE / "pages" / kind).glob("*"):
            if file.stem not in keys:
                file.unlink(missing_ok=True)
    for kind, key in [one for one in _memory if one[1] not in _used.get(one[0], ())]:
        if kind in _used:
            del _memory[kind, key]
