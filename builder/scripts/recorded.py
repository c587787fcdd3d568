"""Records that no build makes, since they need another environment, beside the scripts that read them.

One that says what it is made of, {"made": {"command": "make libraries", "of": {file: digest}}}, is refused as soon as one of
these files is another: its numbers are those of a program that is no longer here.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from builder import project
from builder.project import Fault


def digest(path: Path) -> str:
    """Of what a file holds; nothing where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def made(command: str, files: list[str]) -> dict:
    """What a record says of itself: files by their names from the project's root."""
    return {"command": command, "of": {name: digest(project.ROOT / name) for name in files}}


def faults() -> Iterator[Fault]:
    """Each file that a record was made with, and that is another by now."""
    for path in sorted(project.SNIPPETS.rglob("*.json")):
        text = path.read_text("utf-8")
        record = json.loads(text)
        said = record.get("made") if isinstance(record, dict) else None
        for name, known in said["of"].items() if isinstance(said, dict) else ():
            if digest(project.ROOT / name) != known:
                line = 1 + text[: text.index(json.dumps(name))].count("\n")
                message = f"this record was made with another {name} than is here: `{said['command']}` makes it anew"
                yield Fault(project.relative(path), line, message, soft=True)
