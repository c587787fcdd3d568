"""Let pytest-codeblocks read a page as its reader does: includes expanded, top to bottom, outside this repository.

A page's blocks share one fresh namespace and a folder that holds nothing but the recipes the page links to. What a block
prints must be what the page shows as its output. Where both languages expand to the same code, it runs once.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")  # before torch is imported

import pytest
import pytest_codeblocks.plugin as codeblocks
from pytest_codeblocks.main import CodeBlock, extract_from_buffer

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT / "docs" / "hooks"), str(ROOT / "tests")]

import notebooks
import shared_site
import snippets

LOOKS_LIKE_PYTHON = re.compile(r"^[ \t>]*(?:`{3,}|~{3,})[ \t]*\{?[ \t]*\.?i?py(?:thon|con)?\d*\b", re.M | re.I)


class Page:
    """One page's blocks, the namespace they share, and the folder they run in."""

    def __init__(self, path):
        self.path = path
        text = path.read_text(encoding="utf-8")
        self.parts = notebooks.cells_of(snippets.VALUE.sub("0", text))
        self.blocks = [cell for cell in self.parts.cells if cell.kind == "code"]
        seen = len(LOOKS_LIKE_PYTHON.findall(text))
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
        self.names = {"__name__": "__main__"}
        self.folder = tempfile.TemporaryDirectory()
        for name in self.parts.recipes:
            source = (ROOT / "snippets" / "recipes" / name).read_text(encoding="utf-8")
            Path(self.folder.name, name).write_text(source, encoding="utf-8")
            sys.modules.pop(name.removesuffix(".py"), None)

    @contextlib.contextmanager
    def inside(self):
        before = Path.cwd()
        os.chdir(self.folder.name)
        sys.path.insert(0, self.folder.name)
        try:
            yield
        finally:
            sys.path.remove(self.folder.name)
            os.chdir(before)
            for name in self.parts.recipes:
                sys.modules.pop(name.removesuffix(".py"), None)


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
    return [Block(page, cell, index == 0) for index, cell in enumerate(page.blocks)]


class Block(CodeBlock):
    def __init__(self, page, cell, first):
        super().__init__(cell.text, cell.line, "python")
        self.page, self.first, self.include = page, first, cell.include


def run(item):
    block = item.obj
    if not isinstance(block, Block):
        exec(compile(block.code, f"{item.path}:{block.lineno}", "exec"), {"__name__": "__main__"})
        return
    shared_site.built()  # what the sections printed is compared with what the block prints
    if block.first:
        block.page.enter()
    said = io.StringIO()
    with block.page.inside(), contextlib.redirect_stdout(said):
        exec(compile(block.code, f"{item.path}:{block.lineno}", "exec"), block.page.names)
    assert said.getvalue().strip("\n") == notebooks.output_of(block.include), "it prints what the page does not show"


codeblocks.extract_from_file = extract
codeblocks.TestBlock.runtest = run
codeblocks.TestBlock.repr_failure = lambda block, error: block._repr_failure_py(error)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A page's blocks run one after the other, in one process."""
    for item in items:
        if isinstance(item, codeblocks.TestBlock):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


