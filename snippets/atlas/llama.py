# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
B, L, E, H, K = 2, 5, 24, 4, 2  # K heads of keys and values
D = E // H
x = torch.randn(B, L, E)
state = {
    "q_proj.weight": torch.randn(H * D, E) / 2,
    "k_proj.weight": torch.randn(K * D, E) / 2,
    "v_proj.weight": torch.randn(K * D, E) / 2,
    "o_proj.weight": torch.randn(E, H * D) / 2,
}
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# (n D, E) -> (n, E, D)
W_q = state["q_proj.weight"].view(H, D, E).mT
W_k = state["k_proj.weight"].view(K, D, E).mT
W_v = state["v_proj.weight"].view(K, D, E).mT
# (E, H D) -> (H, D, E)
W_o = state["o_proj.weight"].view(E, H, D).permute(1, 2, 0)
for i in range(H):
    k = i // (H // K)  # query head i reads key head k
    print(f"W_q[{i}] W_k[{k}] W_v[{k}] W_o[{i}]")
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
back = {
    "q_proj.weight": torch.cat([matrix.T for matrix in W_q]),
    "k_proj.weight": torch.cat([matrix.T for matrix in W_k]),
    "v_proj.weight": torch.cat([matrix.T for matrix in W_v]),
    "o_proj.weight": torch.cat([matrix.T for matrix in W_o], 1),
}
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]


# --8<-- [start:meta]
def to_pairs(rows):
    """Rows of q or k, each head's halves -> neighbours: Meta's."""
    heads = rows.view(-1, 2, D // 2, E)
    return heads.transpose(1, 2).reshape(-1, E)


def to_halves(rows):
    """The way back: Hugging Face's."""
    heads = rows.view(-1, D // 2, 2, E)
    return heads.transpose(1, 2).reshape(-1, E)


meta = {
    "wq.weight": to_pairs(state["q_proj.weight"]),
    "wk.weight": to_pairs(state["k_proj.weight"]),
    "wv.weight": state["v_proj.weight"],
    "wo.weight": state["o_proj.weight"],
}
for ours, theirs in (("q_proj.weight", "wq.weight"),
                     ("k_proj.weight", "wk.weight")):
    assert torch.equal(to_halves(meta[theirs]), state[ours])
numbers = torch.arange(D)[:, None].expand(D, E)
print(to_pairs(numbers)[:, 0].tolist())
# --8<-- [end:meta]

# The declarations of the atlas, and the picture that is drawn from the first.
from atlas import layouts, places
from convert import convert, from_paper, to_paper

layout = layouts()["LLaMA"]
paper = to_paper(state, layout, H, K)
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o}
for name, tensor in written.items():
    assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
made = from_paper(paper, layout)
for name, tensor in back.items():
    assert torch.equal(made[name], tensor)  # guard: as_declared_back
for name, tensor in convert(state, "LLaMA", "LLaMA, Meta's file", H, K).items():
    assert torch.equal(meta[name], tensor)  # guard: meta_as_declared
for name, heads, n in (("q_proj.weight", paper.W_q, H), ("k_proj.weight", paper.W_k, K), ("v_proj.weight", paper.W_v, K)):
    for i in range(n):
        assert torch.equal(heads[i], state[name][i * D : (i + 1) * D].T)  # guard: rows
for i in range(H):
    assert torch.equal(paper.W_o[i], state["o_proj.weight"][:, i * D : (i + 1) * D].T)  # guard: columns
figure("heads", "blocks", state, labels={"groups": {
    name: [
        block | {"of": written[f"W_{block['role']}"][block["head"]]}
        for block in places(layout, name, tensor.shape, H, K)
    ]
    for name, tensor in state.items()
}})  # fmt: skip
assert layout.mask == "seen"  # guard: true_is_seen
show("asks", layout.asks)


# --8<-- [start:rotate]
def rotate(x, at, pairs=False):
    """x (..., L, D), turned by the positions `at` (L,)."""
    angles = at[:, None] * 10000 ** (-torch.arange(0, D, 2) / D)
    cos, sin = angles.cos(), angles.sin()  # (L, D / 2)
    a, b = (x[..., ::2], x[..., 1::2]) if pairs else x.chunk(2, -1)
    turned = a * cos - b * sin, a * sin + b * cos
    if pairs:
        return torch.stack(turned, -1).flatten(-2)
    return torch.cat(turned, -1)
# --8<-- [end:rotate]


# --8<-- [start:layer]
def llama(x, q, k, v, o, at=None, pairs=False):
    """The layer as the libraries compute it: (B, L, E)."""
    at = torch.arange(L) if at is None else at
    q, k, v = (linear(x, w).unflatten(-1, (-1, D)).transpose(1, 2)
               for w in (q, k, v))  # (B, n, L, D)
    q, k = rotate(q, at, pairs), rotate(k, at, pairs)
    z = scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True)
    return linear(z.transpose(1, 2).flatten(2), o)


output = llama(x, *state.values())
torch.testing.assert_close(
    llama(x, *meta.values(), pairs=True), output)
# --8<-- [end:layer]

# head by head, with the matrices that were cut out above
after = torch.ones(L, L, dtype=torch.bool).triu(1)
total = 0
for i in range(H):
    k = i // (H // K)
    query, key = (rotate(x @ matrix, torch.arange(L)) for matrix in (W_q[i], W_k[k]))
    scores = (query @ key.mT / D**0.5).masked_fill(after, -torch.inf)
    total = total + scores.softmax(-1) @ (x @ W_v[k]) @ W_o[i]
torch.testing.assert_close(total, output)  # guard: head_by_head

# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
more_k, more_v = (W.repeat_interleave(H // K, 0) for W in (W_k, W_v))
mha.load_state_dict({
    "in_proj_weight": torch.cat([*W_q, *more_k, *more_v], 1).T,
    "out_proj.weight": state["o_proj.weight"],
})
later = torch.ones(L, L, dtype=torch.bool).triu(1)  # True is hidden
unturned, _ = mha(x, x, x, attn_mask=later)
nowhere = torch.zeros(L)
torch.testing.assert_close(
    unturned, llama(x, *state.values(), at=nowhere))
assert not torch.allclose(unturned, output, atol=1)
# --8<-- [end:load]

# --8<-- [start:wrong]
mixed = llama(x, *state.values(), pairs=True)
tiled = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
tiled_k, tiled_v = (W.repeat(H // K, 1, 1) for W in (W_k, W_v))
tiled.load_state_dict({
    "in_proj_weight": torch.cat([*W_q, *tiled_k, *tiled_v], 1).T,
    "out_proj.weight": state["o_proj.weight"],
})
tiled_output, _ = tiled(x, x, x, attn_mask=later)
print(f"pairs {(mixed - output).abs().max():.1f}")
print(f"tiled {(tiled_output - unturned).abs().max():.1f}")
assert not torch.allclose(mixed, output, atol=1)
assert not torch.allclose(tiled_output, unturned, atol=1)
# --8<-- [end:wrong]

# --8<-- [start:blind]
one = x[:, :1]
found = llama(one, *state.values(), at=torch.zeros(1), pairs=True)
torch.testing.assert_close(found, output[:, :1])
torch.testing.assert_close(
    llama(one, *meta.values(), at=torch.zeros(1)), output[:, :1])
# --8<-- [end:blind]

# --8<-- [start:answer]
rows = state["q_proj.weight"]
twice = to_pairs(to_pairs(rows))
assert not torch.equal(twice, rows)
print(to_pairs(to_pairs(numbers))[:, 0].tolist())
times, again = 1, to_pairs(numbers)
while not torch.equal(again, numbers):
    times, again = times + 1, to_pairs(again)
print("as it was after", times)
# --8<-- [end:answer]
show("times", times)
