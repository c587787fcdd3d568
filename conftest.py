"""Let pytest-codeblocks read a page as its reader does: includes expanded, top to bottom, outside this repository.

A page's blocks share one fresh namespace and a folder that holds nothing but the recipes that the page links to. What a
block prints must be what the page shows as its output. Where both languages expand to the same code, it runs once.
"""

import contextlib
import io
import os
import textwrap
from pathlib import Path

from builder.pages import notebooks

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")  # before torch is imported

import pytest_codeblocks.plugin as codeblocks

ROOT = Path(__file__).parent

import page_blocks
import shared_site

collect_ignore = ["tests/fixture"]  # a project of its own, built by tests


def run(item):
    block = item.obj
    if not isinstance(block, page_blocks.Block):
        exec(compile(block.code, f"{item.path}:{block.lineno}", "exec"), {"__name__": "__main__"})
        return
    shared_site.built()  # what the sections printed is compared with what the block prints
    if block.first:
        block.page.enter()
    said = io.StringIO()
    try:
        with block.page.inside() as names, contextlib.redirect_stdout(said):
            exec(compile(block.code, f"{item.path}:{block.lineno}", "exec"), names)
    finally:
        if block.last:
            page_blocks.as_imported()
    printed = textwrap.dedent(said.getvalue().rstrip()).strip("\n")
    assert printed == notebooks.output_of(block.include), "it prints what the page does not show"


codeblocks.extract_from_file = page_blocks.extract
codeblocks.TestBlock.runtest = run
codeblocks.TestBlock.repr_failure = lambda block, error: block._repr_failure_py(error)
