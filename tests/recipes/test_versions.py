"""The record of the recipes under other PyTorches is made by running their tests, and counts what fails."""

import json
import sys

import pytest
import torch
from small_project import ROOT

from tools import versions

RECORDED = json.loads(versions.DATA.read_text(encoding="utf-8"))
# data, what trains or reads a trained model, and what is tested in a browser or on the built page
UNTESTED = {"kaomoji", "negation", "running_example", "option_grid", "head_view", "trained", "reactions", "pronouns"}
# not yet tried under another PyTorch: they cut, turn and stack
UNTESTED |= {
    "convert",
    "exercises",
    "refit",
    "paper_heads",
    "compare_models",
    "hugging_face",
    "atlas",
    "layout_trace",
    "convert_file",
}
UNTESTED |= {
    "detective",
    "detective_numbers",
    "attention_layer",
    "attention_names",
    "headers",
}  # names and shapes alone
UNTESTED |= {path.stem for path in versions.RECIPES.glob("layouts_*.py")}


def test_every_recipe_is_run():
    recipes = {path.stem for path in versions.RECIPES.glob("*.py")}
    assert {name for files in versions.TESTED.values() for name in files} | UNTESTED == recipes
    assert set(RECORDED) == set(versions.TESTED)
    for recipe in versions.TESTED:
        assert versions.tests_of(recipe)[0].exists()


def test_the_version_of_the_site_is_among_the_recorded():
    pinned = torch.__version__.split("+")[0]
    for recipe, records in RECORDED.items():
        assert records[pinned]["failed"] == 0, recipe
        assert records[pinned]["passed"] > 0, recipe
        assert records[pinned]["digest"] == versions.digest(recipe), f"{recipe} has changed: make versions"


def test_a_test_that_fails_and_one_that_is_skipped_are_counted(tmp_path, monkeypatch):
    (tmp_path / "tests/recipes").mkdir(parents=True)
    (tmp_path / "tests/recipes/test_kernels.py").write_text(
        "import pytest\nfrom kernels import fused_calls\n"
        "def test_a(): pass\ndef test_b(): assert fused_calls is None\n"
        "@pytest.mark.skip\ndef test_c(): pass\n"
        "@pytest.fixture\ndef broken(): raise OSError\ndef test_d(broken): pass\n"
    )
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    assert versions.run(sys.executable, "kernels") == {"passed": 1, "failed": 2, "skipped": 1}
    before = versions.digest("kernels")
    (tmp_path / "tests/recipes/test_kernels_more.py").write_text("")
    assert versions.digest("kernels") != before
    assert len(versions.tests_of("kernels")) == 2


def test_an_interpreter_without_pytest_is_said(monkeypatch, tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho no such module >&2\n")
    fake.chmod(0o755)
    with pytest.raises(SystemExit, match="python: pytest did not run: no such module"):
        versions.run(str(fake), "kernels")


def test_make_hands_interpreters_on():
    assert "-m tools.versions $(PYTHONS)" in (ROOT / "Makefile").read_text(encoding="utf-8")
