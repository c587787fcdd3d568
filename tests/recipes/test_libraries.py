"""What `make libraries` compares is compared, and its record is of the program as it is. The libraries are not needed here."""

import json
import re
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from small_project import ROOT
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attend

from builder.scripts import recorded
from tools import libraries

RECORD = json.loads(libraries.DATA.read_text(encoding="utf-8"))
B, L, E, H = 2, 5, 24, 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(E, 3 * E)

    def heads(self, x):
        return self.qkv(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        return attend(*self.heads(x)).transpose(1, 2).flatten(2)


class Disturbed(Attention):
    """Another result while somebody listens."""

    def forward(self, x):
        listened = torch.overrides._get_current_function_mode_stack()
        return super().forward(x) + 1e-6 * bool(listened)


x = torch.randn(B, L, E, generator=torch.Generator().manual_seed(0))


def maps_of(model):
    q, k, _ = model[0].heads(x)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


def architecture(own=lambda model: [("*", [maps_of(model)])], kind=Attention, beyond="", answer=()):
    """A library of one attention, whose answer may be a wrong one."""
    return SimpleNamespace(
        library="torch", name="attention", model=lambda: nn.Sequential(kind()), call=lambda model: model(x), own=own,
        reference="a formula", beyond=beyond, asked=lambda model: answer,
    )  # fmt: skip


def test_what_is_equal_is_recorded():
    found = libraries.verify(architecture())
    assert 0 < found["greatest_error"] < 1e-6
    assert found["output_error"] == 0
    assert (found["modules"], found["calls"], found["heads"]) == (1, 1, [H])
    assert found["kernel"] == ["scaled_dot_product_attention"]
    assert found["asked_as_it_is"] == "()"
    assert libraries.verify(architecture(answer=(x,)))["asked_as_it_is"] == "weights"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"own": lambda model: [("*", [maps_of(model) * 1.001])]}, "a map differs by"),
        ({"own": lambda model: [("*", [maps_of(model).roll(1, 1)])]}, "a map differs by"),
        ({"own": lambda model: [("*", [maps_of(model) / 0 * 0])]}, "a map differs by nan"),
        ({"own": lambda model: [("*", [maps_of(model)] * 2)]}, "expected 2 maps, as the library gives, got 1"),
        ({"own": lambda model: [("other*", [maps_of(model)])]}, "other*: expected 1 maps, as the library gives, got 0"),
        ({"own": lambda model: [("*", [maps_of(model)[..., :-1]])]}, "expected the shape (2, 4, 5, 4), got (2, 4, 5, 5)"),
        ({"own": lambda model: []}, "the library gives no map of ['0']"),
        ({"own": lambda model: [("*", [maps_of(model)])], "beyond": "0"}, "expected 1 maps, as the library gives, got 0"),
        ({"kind": Disturbed}, "in training, the output is another one"),
    ],
)  # fmt: skip
def test_what_differs_is_told(wrong, said):
    with pytest.raises(AssertionError, match=re.escape(said)):
        libraries.verify(architecture(**wrong))


def test_an_output_that_only_evaluation_changes_is_told():
    class Evaluated(Disturbed):
        def forward(self, x):
            return Attention.forward(self, x) if self.training else super().forward(x)

    with pytest.raises(AssertionError, match=r"^the output is another one while capture\.py records"):
        libraries.verify(architecture(kind=Evaluated))


def test_flat_maps_prove_nothing(monkeypatch):
    def flat(model):
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return model

    monkeypatch.setattr(libraries, "redrawn", flat)
    with pytest.raises(AssertionError, match="flat maps prove nothing"):
        libraries.verify(architecture())


def test_what_capture_leaves_out_is_a_failure():
    class Kernel(Attention):
        def forward(self, x):
            out = torch._scaled_dot_product_flash_attention_for_cpu(*self.heads(x))[0]
            return super().forward(x) + out.transpose(1, 2).flatten(2)

    with pytest.raises(UserWarning, match="recorded in part"):
        libraries.verify(architecture(kind=Kernel))


def test_fused_inference_is_within_rounding_and_said():
    class Fused(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x, need_weights=False)[0]

    one = architecture(
        lambda model: [("*", [nn.MultiheadAttention.forward(model, x, x, x, average_attn_weights=False)[1]])]
    )
    one.model = lambda: Fused(E, H, batch_first=True)
    assert 0 < libraries.verify(one)["output_error"] < 1e-5
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_record_is_of_the_files_as_they_are():
    assert list(recorded.faults()) == []
    assert RECORD["made"]["of"].keys() >= {"snippets/recipes/capture.py", "tools/architectures.py"}
    assert RECORD["torch"] == torch.__version__.split("+")[0]


def test_the_record_has_an_entry_for_each_architecture_and_library():
    entries = RECORD["architectures"]
    assert len({(one["library"], one["architecture"]) for one in entries}) == len(entries) > 30
    pins = dict(line.split("==") for line in pinned() if line.split("==")[0] in {one["library"] for one in entries})
    assert {one["library"]: one["version"] for one in entries} == pins
    for one in entries:
        assert one["greatest_error"] < RECORD["rounding"]
        assert one["output_error"] == 0 or one["library"] == "open_clip_torch"


def pinned():
    lines = (ROOT / "requirements-libraries.txt").read_text(encoding="utf-8").splitlines()
    return [said for line in lines if (said := line.partition("#")[0].strip())]


def test_nothing_of_the_base_environment_is_replaced():
    """Each package has one version and a reason, and none of them is what the site itself runs on."""
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned())
    lines = (ROOT / "requirements-libraries.txt").read_text(encoding="utf-8").splitlines()
    assert all("# " in line for line in lines if "==" in line)
    base = {re.sub(r"[-_.]+", "-", one.name).lower() for one in metadata.distributions()}
    assert not base & {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in pinned()}


def test_ci_compares_and_says_where_it_cannot():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.index("make test") < script.index(
        "if make .libraries/installed; then\n  make libraries\nelse\n  echo"
    )
