"""A page's Python blocks as its reader would paste them, for pytest-codeblocks: see conftest.py at the root."""

import contextlib
import functools
import io
import os
import sys
import tempfile
import types
from pathlib import Path

import pytest
from pytest_codeblocks.main import CodeBlock, extract_from_buffer

from builder.pages import notebooks, reader, values
from builder.scripts import records

ROOT = Path(__file__).parents[2]


def as_imported():
    """Set torch back to what it is when it has just been imported: a page may have changed it."""
    import torch

    torch.set_default_dtype(torch.float32)
    torch.set_printoptions(profile="default", sci_mode=None)
    torch.set_grad_enabled(True)
    torch.backends.mha.set_fastpath_enabled(True)
    torch.set_num_threads(1)
    torch.manual_seed(torch.initial_seed() + 1)  # a page seeds what it draws


@functools.cache
class Page:
    """One page's blocks, the namespace they share, and the folder they run in; both languages' lists ask for the Japanese one."""

    def __init__(self, path):
        self.path = path
        text = path.read_text(encoding="utf-8")
        self.parts = notebooks.cells_of(values.VALUE.sub("0", values.MARK.sub("", text)), "en")
        self.blocks = [cell for cell in self.parts.cells if cell.kind == "code"]
        seen = sum(fence.seems_python for fence in reader.fences_of(text))
        if seen != len(self.blocks) + self.parts.listings:
            raise pytest.Collector.CollectError(
                f"{path.relative_to(ROOT)}: {seen} fences look like Python, but {len(self.blocks)} blocks"
                f" and {self.parts.listings} listings of recipes were found: the others would escape the tests"
            )

    @property
    def code(self):
        return [cell.text for cell in self.blocks], self.parts.recipes

    def enter(self):
        """Lay the linked recipes into an empty folder and go there."""
        as_imported()
        self.module = types.ModuleType("__main__")
        self.folder = tempfile.TemporaryDirectory()
        for name in self.parts.recipes:
            source = (ROOT / "snippets" / "recipes" / name).read_text(encoding="utf-8")
            Path(self.folder.name, name).write_text(source, encoding="utf-8")
        self.modules = {}

    @contextlib.contextmanager
    def inside(self):
        """The page's folder, its __main__, and no recipe that it did not import itself, be it imported elsewhere."""
        shelf = ROOT / "snippets" / "recipes"
        recipes = [path.stem for path in shelf.glob("*.py")]
        others = {name: sys.modules.pop(name) for name in recipes if name in sys.modules}
        sys.modules.update(self.modules)
        before, paths = Path.cwd(), sys.path[:]
        os.chdir(self.folder.name)
        sys.path[:] = [self.folder.name, *(path for path in paths if path != str(shelf))]
        main, sys.modules["__main__"] = sys.modules["__main__"], self.module
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ATTENTION_CACHE", str(records.ARTIFACTS))  # the same recipes have trained in the build
                yield self.module.__dict__
        finally:
            sys.modules["__main__"] = main
            sys.path[:] = paths
            os.chdir(before)
            self.modules = {name: sys.modules.pop(name) for name in recipes if name in sys.modules}
            sys.modules.update(others)


def extract(path, *_, **__):
    """The blocks of a page; of any other Markdown file its Python blocks, never a shell command."""
    path = Path(path)
    if ROOT / "docs" not in path.parents:
        blocks = extract_from_buffer(io.StringIO(path.read_text(encoding="utf-8")))
        return [block for block in blocks if block.syntax == "python"]
    page = Page(path)
    if ROOT / "docs" / "en" in path.parents and page.blocks:
        twin = Page(ROOT / "docs" / "ja" / path.relative_to(ROOT / "docs" / "en"))
        if twin.code == page.code:
            return []  # the same code: it runs as the Japanese page's
    return [Block(page, cell, index) for index, cell in enumerate(page.blocks)]


class Block(CodeBlock):
    def __init__(self, page, cell, index):
        # a page's blocks run one after the other, in one process
        super().__init__(cell.text, cell.line, "python", marks=[f"pytest.mark.xdist_group({str(page.path)!r})"])
        self.page, self.include = page, cell.include
        self.first, self.last = index == 0, index == len(page.blocks) - 1
