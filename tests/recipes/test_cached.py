"""A dear function is called once, and again as soon as anything that made its result has changed."""

import contextlib
import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from cached import cached, described

RECIPES = Path(__file__).parents[2] / "snippets" / "recipes"

DEAR = """
import torch
from helper import factor

def dear(n, seed=0):
    with open("calls", "a") as calls:
        calls.write("x")
    torch.manual_seed(seed)
    return {"drawn": torch.randn(n) * factor, "n": n}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dear.py").write_text(DEAR)
    (tmp_path / "helper.py").write_text("factor = 2\n")
    return tmp_path


def run(folder, code="print(cached(dear, 3)['drawn'].tolist())", cache="kept"):
    """What code prints that runs with the folder's files imported anew."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("ATTENTION_CACHE", cache or "")
        for name in ("dear", "helper"):
            sys.modules.pop(name, None)
        patch.setattr(sys, "dont_write_bytecode", True)  # a changed file may have the same size and second
        patch.setattr(torch, "__version__", torch.__version__)  # put back
        exec(
            "from dear import dear\n" + textwrap.dedent(code),
            {"torch": torch, "cached": cached, "__name__": "__main__"},
        )
    return said.getvalue()


def calls(folder):
    return len((folder / "calls").read_text())


def test_it_is_called_once_and_gives_the_same_twice(folder):
    assert run(folder) == run(folder)
    assert calls(folder) == 1
    assert [path.suffix for path in (folder / "kept").iterdir() if path.suffix == ".pt"] == [".pt"]


def test_without_a_folder_it_is_called_every_time(folder):
    run(folder)
    assert run(folder, cache=None) == run(folder)
    assert calls(folder) == 2
    run(folder, cache=None)
    assert calls(folder) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "dear.py").write_text(DEAR + "# a note\n"),
        lambda folder: (folder / "helper.py").write_text("factor = 3\n"),
    ],
    ids=["its file", "a file that it imports"],
)
def test_a_change_of_its_code_computes_it_anew(folder, change):
    run(folder)
    change(folder)
    run(folder)
    assert calls(folder) == 2


def test_other_arguments_are_another_result(folder):
    code = "print([len(cached(dear, n, s)['drawn']) for n in (3, 4) for s in (0, 1)])"
    assert run(folder, code) == run(folder, code) == "[3, 3, 4, 4]\n"
    assert calls(folder) == 4


def test_another_torch_computes_it_anew(folder):
    run(folder)
    run(folder, "torch.__version__ = '0.0'; cached(dear, 3)")
    assert calls(folder) == 2


def test_a_file_elsewhere_with_the_same_content_shares_the_result(folder, tmp_path):
    """A page's reader has copies of the files; the digest is of what they say."""
    run(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("dear.py", "helper.py"):
        (copy / name).write_bytes((folder / name).read_bytes())
    run(copy, cache=str(folder / "kept"))
    assert not (copy / "calls").exists()


@pytest.mark.parametrize("cache", ["kept", None])
def test_the_callers_random_numbers_go_on(folder, cache):
    code = "torch.manual_seed(5); cached(dear, 3); print(torch.rand(1).item())"
    drawn = run(folder, "torch.manual_seed(5); print(torch.rand(1).item())")
    assert run(folder, code, cache) == run(folder, code, cache) == drawn


def test_two_processes_compute_it_once(folder):
    (folder / "dear.py").write_text(
        "import time\n" + DEAR.replace("    torch.manual_seed", "    time.sleep(1)\n    torch.manual_seed")
    )
    (folder / "script.py").write_text("from cached import cached\nfrom dear import dear\nprint(cached(dear, 3))")
    environment = {**os.environ, "PYTHONPATH": str(RECIPES), "ATTENTION_CACHE": "kept"}

    def start():
        return subprocess.Popen(
            [sys.executable, "script.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )

    first, second = start(), start()
    assert first.communicate()[0] == second.communicate()[0] != ""
    assert calls(folder) == 1


def test_a_function_that_fails_leaves_nothing(folder):
    (folder / "dear.py").write_text("def dear(n):\n    raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        run(folder)
    assert not list((folder / "kept").glob("*.pt"))


def test_a_function_without_a_file_is_called(folder):
    """As in a notebook's cell."""
    code = "drawn = []\ndef fresh():\n    drawn.append(1)\ncached(fresh)\ncached(fresh)\nprint(len(drawn))"
    assert run(folder, code) == "2\n"


def test_arguments_without_a_lasting_description_are_refused():
    with pytest.raises(TypeError, match="args: expected plain values, lists, tuples and dicts, got object"):
        cached(print, object())
    assert described((1, [2.0, None], {"a": b"b"})) != described((1, [2, None], {"a": b"b"}))


def test_what_cannot_be_read_back_is_returned_and_not_kept(folder):
    """Else it would fail, the second time and for ever."""
    (folder / "dear.py").write_text(
        DEAR.replace('return {"drawn"', 'import fractions\n    return {"x": fractions.Fraction(1, 3), "drawn"')
    )
    for _ in range(2):
        with pytest.warns(UserWarning, match="dear: what it returns is not kept, for it holds more than tensors"):
            assert run(folder, "print(cached(dear, 3)['x'])") == "1/3\n"
    assert calls(folder) == 2
    assert [path.suffix for path in (folder / "kept").iterdir()] == [".lock"]
