"""A recipe that needs many others, as one archive: recipes/detective.zip."""

import ast
import io
import zipfile
from pathlib import Path

from builder import project

WHOLE = ("detective",)  # programs of many files; a page links to recipes/NAME.zip
RECIPES = project.SNIPPETS / "recipes"


def files_of(name: str) -> list[Path]:
    """A recipe and all that it needs beside it: what it imports, and the declarations that atlas.py looks for."""
    found: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        path = RECIPES / f"{waiting.pop()}.py"
        if path.stem in found or not path.is_file():
            continue
        found[path.stem] = path
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                waiting.append(node.module or "")
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
        if path.stem == "atlas":
            waiting += [one.stem for one in RECIPES.glob("layouts_*.py")]
    return [found[stem] for stem in sorted(found)]


def packed(name: str) -> bytes:
    """The archive, the same bytes for the same files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(name):
            archive.writestr(zipfile.ZipInfo(path.name, (1980, 1, 1, 0, 0, 0)), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return out.getvalue()
