"""Exercises that answer: what a practice page's notebook carries so that `check` can tell an answer.

Between its sections, a page's script registers what is right and which mistakes are known, all of it computed:

    exercise("causal", future, ones=ones, past=future.T)

A section of the script is the empty cell (`check("causal", mask)`), under the heading of that id, and the page's front
matter says in its language what is amiss: `exercises: {causal: {ones: "…", past: "…"}}`. The notebook carries the script,
without what it prints and claims, and these sentences, packed.
"""

import ast
import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from builder import project
from builder.pages import reader
from builder.project import Fault

OPENS = "import exercises\n\nexercises.of"
SILENT = {"print", "show", "figure", "refused", "check", "assert_close"}  # calls that no answer needs
FORMS = {"given", "slopes"}  # of `exercise`, which are no mistakes
TOLD = "every_answer_is_told"  # the guard that judges each registered answer


class Registered(NamedTuple):
    """An exercise in a script: its line, and the names of the known mistakes."""

    line: int
    mistakes: list[str]


def _calls(source: str, function: str) -> dict[str, ast.Call]:
    """{first argument: the call} of each statement of a script that calls a function by its bare name."""
    values = (node.value for node in ast.parse(source).body if isinstance(node, ast.Expr))
    calls = (value for value in values if isinstance(value, ast.Call) and getattr(value.func, "id", "") == function)
    return {call.args[0].value: call for call in calls}


def registered(source: str) -> dict[str, Registered]:
    """{name: what a script registers}."""
    return {
        name: Registered(call.lineno, [keyword.arg for keyword in call.keywords if keyword.arg not in FORMS])
        for name, call in _calls(source, "exercise").items()
    }


def tried(source: str) -> dict[str, int]:
    """{name: line} of the empty cells of a script."""
    return {name: call.lineno for name, call in _calls(source, "check").items()}


class _Solutions(ast.NodeTransformer):
    """A script without claims, outputs and remarks: what is left computes the registered answers."""

    def visit_Assert(self, node):
        return None

    def visit_Expr(self, node):
        value = node.value
        name = getattr(value, "func", None)
        called = getattr(name, "id", getattr(name, "attr", ""))
        return None if isinstance(value, ast.Constant) or called in SILENT else node

    def visit_Try(self, node):
        return None  # what demands an error leaves nothing behind

    def generic_visit(self, node):
        super().generic_visit(node)
        if getattr(node, "body", 1) == []:
            node.body = [ast.Pass()]
        return node


def solutions(source: str) -> str:
    """The code that a notebook carries packed."""
    return ast.unparse(ast.fix_missing_locations(_Solutions().visit(ast.parse(source))))


def cell(language: str, page: Path) -> str:
    """The code of the notebook's cell that says what answers are checked against; empty where a page registers nothing."""
    script = project.SNIPPETS / project.script_of(page)
    source = script.read_text("utf-8") if script.is_file() else ""
    if not registered(source):
        return ""
    content = packed(solutions(source), _sentences(language, page))
    return f"{OPENS}({json.dumps(language)}, {json.dumps(content)})"


def is_packed(cell: dict) -> bool:
    """Whether a notebook's cell is that of `cell`, which the page does not show."""
    return "".join(cell["source"]).startswith(OPENS)


def packed(code: str, says: dict) -> str:
    """A script, and {exercise: {mistake: sentence}}, as `of` of the recipe takes them."""
    text = json.dumps({"code": code, "says": says}, ensure_ascii=False, sort_keys=True)
    return base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def _sentences(language, page):
    return reader.front_matter((project.DOCS / language / page).read_text("utf-8")).get("exercises") or {}


def faults() -> Iterator[Fault]:
    """Exercises without a cell, a heading or a sentence for each of their mistakes, and sentences that nothing says."""
    for language in project.LANGUAGES:
        for page in project.page_files(language):
            file, script = f"docs/{language}/{page.as_posix()}", project.SNIPPETS / project.script_of(page)
            said = _sentences(language, page)
            source = script.read_text("utf-8") if script.is_file() else ""
            known, cells = registered(source) if "exercise(" in source else {}, {}
            if known:
                cells = tried(source)
                headings = {
                    block.identity
                    for block in reader.blocks((project.DOCS / language / page).read_text("utf-8"))
                    if isinstance(block, reader.Heading)
                }
                if f"# guard: {TOLD}" not in source:
                    yield Fault(project.relative(script), 0, f"no answer is judged: claim it as guard {TOLD}")
                for name in sorted(known.keys() - cells.keys()):
                    yield Fault(project.relative(script), known[name].line, f'no cell asks `check("{name}", …)`')
                for name in sorted(cells.keys() - known.keys()):
                    yield Fault(project.relative(script), cells[name], f"no exercise {name!r} is registered")
                for name in sorted(known.keys() - headings):
                    yield Fault(file, 0, f"exercise {name!r}: no heading has this id")
            for name in sorted({*known, *said}):
                wanted = set(known[name].mistakes if name in known else [])
                for mistake in sorted(wanted - set(said.get(name) or {})):
                    yield Fault(
                        file, 1, f"exercise {name!r}: no sentence says what is amiss with {mistake!r}", soft=True
                    )
                for mistake in sorted(set(said.get(name) or {}) - wanted):
                    yield Fault(file, 1, f"exercise {name!r}: no answer is told {mistake!r}", soft=True)
