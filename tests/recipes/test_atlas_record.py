"""The comparison of layouts with the libraries' own layers: its record, and the comparison itself on PyTorch's."""

import json
import re
from dataclasses import replace
from pathlib import Path

import atlas
import pytest
import torch
from atlas import Layout, blocks, declared, groups, layouts

from tools import atlas as comparison
from tools import compared

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "snippets" / "atlas" / "compared.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module", autouse=True)
def pytorch():
    import tools.compared.pytorch  # noqa: F401  the one library that is here


def test_the_record_is_of_the_rows_as_they_are():
    found = {name: one["of"] for name, one in RECORD["layouts"].items()}
    assert found == {name: declared(layouts()[name]) for name in found}
    assert len(found) >= 45
    assert RECORD["torch"] == torch.__version__.partition("+")[0]


def test_the_versions_are_those_that_are_pinned():
    text = (ROOT / "requirements-libraries.txt").read_text(encoding="utf-8")
    pins = {re.sub("_", "-", name): version for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M)}
    pins["torch"] = torch.__version__.partition("+")[0]
    for name, one in RECORD["layouts"].items():
        assert one["version"] == pins[one["package"].replace("_", "-")], name
        assert layouts()[name].version in (one["version"], ""), name
        assert one["output"] <= one["bound"]


def test_a_row_that_changes_is_not_compared():
    layout = layouts()["GPT-2"]
    for changed in ({"order": groups}, {"rotary": "half"}, {"scale": "1"}, {"grouped": True}, {"tensors": {}}):
        assert declared(replace(layout, **changed)) != RECORD["layouts"]["GPT-2"]["of"]
    for beside in ({"mask": "hidden"}, {"asks": "politely"}, {"models": ("gpt3",)}):
        assert declared(replace(layout, **beside)) == RECORD["layouts"]["GPT-2"]["of"]


def test_what_is_equal_is_recorded():
    one = comparison.run("torch")
    assert one["output"] < 1e-14
    assert one["weights"] < 1e-14
    assert one["wrong"] > 0.1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"order": blocks("kqv")}, "output off by"),
        ({"scale": "1"}, "output off by"),
        ({"misread": {"order": blocks()}}, "the wrong reading differs by"),
    ],
)
def test_a_wrong_row_is_told(monkeypatch, wrong, said):
    right = layouts()["torch"]
    monkeypatch.setattr(comparison, "layouts", lambda: {"torch": replace(right, **wrong)})
    with pytest.raises(AssertionError, match=said):
        comparison.run("torch")


def test_wrong_weights_are_told(monkeypatch):
    package, make = compared.CASES["torch"]

    def averaged():
        case = make()
        return replace(case, weights=case.weights.mean(1, keepdim=True).expand_as(case.weights))

    monkeypatch.setitem(compared.CASES, "torch", (package, averaged))
    with pytest.raises(AssertionError, match="weights by 0"):
        comparison.run("torch")


def test_a_layout_is_compared_once():
    with pytest.raises(ValueError, match="torch: is compared twice"):
        compared.compared("torch", package="torch")(lambda: None)


def test_a_new_file_is_all_that_a_layout_needs(tmp_path, monkeypatch):
    """layouts_NAME.py beside atlas.py: nothing else is edited, and no record refuses it."""
    for file in Path(atlas.__file__).parent.glob("layouts_*.py"):
        (tmp_path / file.name).write_text(file.read_text("utf-8"), encoding="utf-8")
    made = 'from atlas import Layout, blocks, fused\nLAYOUTS = [Layout("Mine", "mine", fused("a", "b"), blocks())]\n'
    (tmp_path / "layouts_mine.py").write_text(made, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(atlas, "__file__", str(tmp_path / "atlas.py"))
    assert isinstance(layouts()["Mine"], Layout)
    assert layouts().keys() > RECORD["layouts"].keys()
