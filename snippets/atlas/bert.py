# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

torch.manual_seed(5)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H
x = torch.randn(B, L, E)
names = ("self.query", "self.key", "self.value", "output.dense")
state = {}
for name in names:
    state[f"{name}.weight"] = torch.randn(E, E) / 2
    state[f"{name}.bias"] = torch.randn(E) / 2
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# three of (E, E) -> (H, D, E) -> (H, E, D)
W_q, W_k, W_v = (
    state[f"{name}.weight"].view(H, D, E).mT for name in names[:3])
b_q, b_k, b_v = (
    state[f"{name}.bias"].view(H, D) for name in names[:3])
# (E, E) -> (E, H, D) -> (H, D, E)
W_o = state["output.dense.weight"].view(E, H, D).permute(1, 2, 0)
b_o = state["output.dense.bias"]
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
back = {
    "output.dense.weight": torch.cat([W.T for W in W_o], 1),
    "output.dense.bias": b_o.clone(),
}
for name, W, b in zip(
    names[:3], (W_q, W_k, W_v), (b_q, b_k, b_v), strict=True
):
    back[f"{name}.weight"] = torch.cat([matrix.T for matrix in W])
    back[f"{name}.bias"] = torch.cat(list(b))
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
print(*back, sep="\n")
# --8<-- [end:from_paper]

# The declarations of the atlas, and the picture that is drawn from the first.
from atlas import layouts, places
from convert import from_paper, to_paper

layout = layouts()["BERT"]
paper = to_paper(state, layout, H)
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o, "b_q": b_q, "b_k": b_k, "b_v": b_v, "b_o": b_o}
for name, tensor in written.items():
    assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
for name, tensor in from_paper(paper, layout).items():
    assert torch.equal(tensor, back[name])  # guard: as_declared_back
for i in range(H):
    span = slice(i * D, (i + 1) * D)
    for name, heads in (("self.query", paper.W_q), ("self.key", paper.W_k), ("self.value", paper.W_v)):
        assert torch.equal(heads[i], state[f"{name}.weight"][span].T)  # guard: rows
    assert torch.equal(paper.W_o[i], state["output.dense.weight"][:, span].T)  # guard: columns
drawn = {name: tensor for name, tensor in state.items() if name.endswith("weight")}
figure("heads", "blocks", drawn, labels={"groups": {
    name: [
        block | {"of": written[f"W_{block['role']}"][block["head"]]}
        for block in places(layout, name, tensor.shape, H)
    ]
    for name, tensor in drawn.items()
}})  # fmt: skip
# the same four matrices under the names of others: the same heads
for other, ends in (
    ("DistilBERT", ("q_lin", "k_lin", "v_lin", "out_lin")),
    ("ALBERT", ("query", "key", "value", "dense")),
    ("ViT", ("q_proj", "k_proj", "v_proj", "o_proj")),
    ("BART", ("q_proj", "k_proj", "v_proj", "out_proj")),
):
    renamed = {f"{end}.{kind}": state[f"{name}.{kind}"] for name, end in zip(names, ends, strict=True) for kind in ("weight", "bias")}
    assert torch.equal(to_paper(renamed, other, H).W_o, W_o)  # guard: other_names
    assert torch.equal(to_paper(renamed, other, H).W_k, W_k)  # guard: other_names_of_keys
    assert set(layouts()[other].tensors) == set(renamed)  # guard: no_other_tensors
assert layout.mask == "seen"  # guard: true_is_seen
show("asks", layout.asks)

# --8<-- [start:layer]
attention_mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def bert(x, state):
    """Up to output.dense, before residual and LayerNorm."""
    q, k, v = (
        linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
        .view(B, L, H, D).transpose(1, 2) for name in names[:3])
    seen = attention_mask.bool()[:, None, None]  # (B, 1, 1, L)
    z = scaled_dot_product_attention(q, k, v, attn_mask=seen)
    end = [state[f"output.dense.{kind}"] for kind in ("weight", "bias")]
    return linear(z.transpose(1, 2).flatten(2), *end)
# --8<-- [end:layer]


# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, batch_first=True)
right = {
    "in_proj_weight": torch.cat([*W_q, *W_k, *W_v], 1).T,
    "in_proj_bias": torch.cat([*b_q, *b_k, *b_v]),
    "out_proj.weight": back["output.dense.weight"],
    "out_proj.bias": b_o,
}
mha.load_state_dict(right)
hidden = attention_mask == 0
output, A = mha(x, x, x, hidden, average_attn_weights=False)
torch.testing.assert_close(output, bert(x, state))
# --8<-- [end:load]

# --8<-- [start:short]
short = torch.cat([state[f"{name}.weight"] for name in names[:3]])
assert torch.equal(short, mha.in_proj_weight)
# --8<-- [end:short]

# --8<-- [start:wrong]
wrong = nn.MultiheadAttention(E, H, batch_first=True)
by_alphabet = sorted(n for n in state if n.startswith("self."))
print(*(name for name in by_alphabet if name.endswith("weight")))
for kind in ("weight", "bias"):
    tensors = [state[n] for n in by_alphabet if n.endswith(kind)]
    wrong.get_parameter(f"in_proj_{kind}").data = torch.cat(tensors)
wrong.out_proj = mha.out_proj
swapped, A_swapped = wrong(x, x, x, average_attn_weights=False)
plain, A_plain = mha(x, x, x, average_attn_weights=False)
print(f"{(swapped - plain).abs().max():.1f}")
assert not torch.allclose(swapped, plain, atol=1)
# --8<-- [end:wrong]
# queries and keys have changed places: the scores are the right ones, turned over
queries, keys = (x[:, None] @ W + b[:, None] for W, b in ((paper.W_q, paper.b_q), (paper.W_k, paper.b_k)))
turned_over = (queries @ keys.mT / D**0.5).mT.softmax(-1)
torch.testing.assert_close(A_swapped, turned_over)  # guard: scores_turned_over
assert not torch.allclose(A_swapped, A_plain, atol=0.1)  # guard: other_weights

# --8<-- [start:kernels]
kernels = {name: tensor.T for name, tensor in state.items()
           if name.endswith("weight")}  # Google's file: (in, out)
as_it_is = bert(x, state | kernels)
print(f"{(as_it_is - output).abs().max():.1f}")
assert not torch.allclose(as_it_is, output, atol=1)
turned = {name: tensor.T for name, tensor in kernels.items()}
torch.testing.assert_close(bert(x, state | turned), output)
# --8<-- [end:kernels]

# --8<-- [start:answer]
without = state | {"self.key.bias": torch.zeros(E)}
torch.testing.assert_close(bert(x, without), output)
for name in ("self.query.bias", "self.value.bias"):
    off = bert(x, state | {name: torch.zeros(E)}) - output
    print(f"{name} {off.abs().max():.2f}")
    assert off.abs().max() > 0.1
# --8<-- [end:answer]
assert state["self.key.bias"].abs().min() > 0  # guard: there_is_a_key_bias
