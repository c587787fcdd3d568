"""What the rooms of builder/ offer each other says what it takes and gives, and what it is for."""

import ast
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
