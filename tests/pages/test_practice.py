"""Exercises of a practice page: what its notebook carries, and what the build refuses."""

import pytest
import torch

from builder import project
from builder.pages import exercises

SCRIPT = """\
import torch
from exercises import exercise, outcomes

# --8<-- [start:mask_try]
mask = None
check("mask", mask)
# --8<-- [end:mask_try]

# --8<-- [start:mask]
future = torch.ones(2, 2).triu(1)
print(future)
assert future.sum() == 1
# --8<-- [end:mask]
exercise("mask", future, given=None, past=future.T)
for expected, told in outcomes():
    assert told == expected  # guard: every_answer_is_told
"""
PAGE = """\
---
exercises:
  mask:
    past: "This hides the past."
---

# Masks {{ #masks }}

## 1. A mask {{ #{name} }}
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function (script, page's Markdown) that lays a project of one page out and returns its faults."""
    monkeypatch.setattr(project, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(project, "SNIPPETS", tmp_path / "snippets")

    def write(script=SCRIPT, name="mask"):
        for language in project.LANGUAGES:
            path = tmp_path / "docs" / language / "practice/masks.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PAGE.format(name=name), encoding="utf-8")
        (tmp_path / "snippets/practice").mkdir(parents=True, exist_ok=True)
        (tmp_path / "snippets/practice/masks.py").write_text(script, encoding="utf-8")
        return {fault.message for fault in exercises.faults()}

    return write


def test_a_whole_exercise_has_no_fault(written):
    assert written() == set()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('check("mask", mask)', "", 'no cell asks `check("mask", …)`'),
        ('check("mask", mask)', 'check("mask", mask)\ncheck("gone", mask)', "no exercise 'gone' is registered"),
        ("past=future.T", "past=future.T, ones=~future", "exercise 'mask': no sentence says what is amiss with 'ones'"),
        ("past=future.T", "ones=~future", "exercise 'mask': no answer is told 'past'"),
        ("  # guard: every_answer_is_told", "", "no answer is judged: claim it as guard every_answer_is_told"),
    ],
)
def test_what_is_missing_in_a_script_is_told(written, old, new, said):
    assert SCRIPT.count(old) == 1
    assert said in written(script=SCRIPT.replace(old, new))


def test_an_exercise_stands_under_the_heading_of_its_name(written):
    assert written(name="other") == {"exercise 'mask': no heading has this id"}


def test_what_a_notebook_carries_computes_the_answers_and_claims_nothing():
    code = exercises.solutions(
        SCRIPT + 'def refused(a):\n    """Words."""\n    assert a\n\ntry:\n    1 / 0\nexcept E:\n    pass\n'
    )
    assert "future = torch.ones(2, 2).triu(1)" in code
    assert "exercise('mask', future, given=None, past=future.T)" in code
    for gone in ("print", "assert", "check", "try", "Words", "8<"):
        assert gone not in code
    compile(code, "", "exec")


def test_the_answers_are_not_read_by_accident(written):
    written()
    cell = exercises.cell("en", project.Path("practice/masks.md"))
    assert exercises.is_packed({"source": cell})
    for part in ("future", "triu", "hides the past"):
        assert part not in cell
    (project.SNIPPETS / "practice/masks.py").write_text("x = 1\n", encoding="utf-8")
    assert exercises.cell("en", project.Path("practice/masks.md")) == ""


@pytest.mark.parametrize(("language", "right"), [("en", "Right."), ("ja", "正解です。")])
def test_a_page_s_cell_makes_its_checks_speak(written, language, right, capsys):
    written()
    names = {}
    exec(exercises.cell(language, project.Path("practice/masks.md")), names)
    future = torch.ones(2, 2).triu(1)
    for answer in (future, future.T):
        names["exercises"].check("mask", answer)
    assert capsys.readouterr().out.splitlines() == [right, "This hides the past."]
