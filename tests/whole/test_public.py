"""What the rooms of builder/ offer each other says what it takes and gives, and what it is for; who knows whom is as agreed."""

import ast
import re
from fnmatch import fnmatch

import pytest

from builder import project

FILES = sorted((project.ROOT / "builder").rglob("*.py"))


def public(body, owner=""):
    """(name, function) of every function and method that another file may call."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield owner + node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{node.name}.")


def lacking(node):
    """What a function does not say of itself: its docstring, its return, or a parameter."""
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    without = [part.arg for part in named if part.annotation is None and part.arg not in ("self", "cls")]
    return ["docstring"] * (not ast.get_docstring(node)) + ["return"] * (node.returns is None) + without


@pytest.mark.parametrize("path", FILES, ids=[project.relative(path) for path in FILES])
def test_every_public_function_is_typed_and_has_a_docstring(path):
    found = public(ast.parse(path.read_text("utf-8")).body)
    assert not {name: missing for name, node in found if (missing := lacking(node))}


def test_what_a_function_leaves_out_is_noticed():
    (bare,) = ast.parse("def f(a, *b, c: int = 1, **d) -> int:\n    return 1\n").body
    assert lacking(bare) == ["docstring", "a", "b", "d"]
    (whole,) = ast.parse('class A:\n    def f(self, a: int):\n        "What it does."\n').body
    assert [(name, lacking(node)) for name, node in public([whole])] == [("A.f", ["return"])]
    assert sum(1 for path in FILES for _ in public(ast.parse(path.read_text("utf-8")).body)) > 200


def test_no_folder_of_the_tests_is_passed_over(request):
    """By its name: pytest looks into none that is called build, dist or venv, and says nothing."""
    folders = [path for path in (project.ROOT / "tests").rglob("*") if path.is_dir() and path.name != "__pycache__"]
    assert len(folders) > 5
    passed_over = request.config.getini("norecursedirs")
    assert [path for path in folders if any(fnmatch(path.name, pattern) for pattern in passed_over)] == []


BUILDER = project.ROOT / "builder"
DOORS = {"__init__.py", "__main__.py", "order.py", "port_is_free.py"}  # these lead into the rooms


def known_to(text):
    """{room: what CONTRIBUTING.md says that it imports, beside its own}."""
    rows = re.findall(r"^\| ((?:`[a-z_]+(?:\.py|/)`(?:, )?)+) \| .* \| ([^|]*) \|$", text, re.M)
    return {
        room: set(re.findall(r"[a-z_.]+", knows)) for rooms, knows in rows for room in re.findall(r"`([^`]+)`", rooms)
    }


def imported(path):
    """The modules of builder/ that a file imports, as "pages.reader"."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "builder":
            for name in (f"{node.module}.{alias.name}".removeprefix("builder.") for alias in node.names):
                file = BUILDER / name.replace(".", "/")
                yield name if file.is_dir() or file.with_suffix(".py").is_file() else name.rpartition(".")[0]


def test_a_room_imports_what_the_contract_says():
    agreed = known_to((project.ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    rooms = {f"{path.name}{'/' * path.is_dir()}": path for path in BUILDER.iterdir() if path.name != "__pycache__"}
    assert set(agreed) == rooms.keys() - DOORS
    for room, allowed in agreed.items():
        own, path = room.removesuffix(".py").strip("/"), rooms[room]
        found = {name for file in ([path] if path.is_file() else path.rglob("*.py")) for name in imported(file)}
        others = {name for name in found - {"project", "words"} if name.partition(".")[0] != own}
        unknown = {name for name in others if not {name, name.partition(".")[0]} & allowed}
        assert not unknown, f"{room} imports {unknown}, of which CONTRIBUTING.md says nothing"
