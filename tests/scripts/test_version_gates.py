"""Scripts of behaviour that depends on the version of PyTorch say so on another one, before anything else runs."""

import re
from pathlib import Path

import pytest
import torch

SNIPPETS = Path(__file__).parents[2] / "snippets"
GATED = sorted(SNIPPETS.rglob("*_versions.py"))


@pytest.mark.parametrize("path", GATED, ids=lambda path: path.stem)
@pytest.mark.parametrize("other", ["2.12.1", "2.15.0+cpu", "3.0.0"])
def test_another_version_is_refused_with_a_reason(path, other, monkeypatch):
    monkeypatch.setattr(torch, "__version__", other)
    gate = re.search(r"__version__\.startswith\((.+)\):", path.read_text(encoding="utf-8"))[1]
    holds_for = " and ".join(re.findall(r'"(.+?)\."', gate))
    with pytest.raises(RuntimeError, match=rf"holds for PyTorch {re.escape(holds_for)}, .*{re.escape(other)}"):
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__main__"})


def test_there_are_gated_scripts():
    assert {path.stem for path in GATED} >= {"causal_versions", "fully_masked_rows_versions"}
