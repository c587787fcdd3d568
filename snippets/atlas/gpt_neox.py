# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

torch.manual_seed(4)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H
x = torch.randn(B, L, E)
shapes = {
    "query_key_value.weight": (3 * E, E),
    "query_key_value.bias": (3 * E,),
    "dense.weight": (E, E), "dense.bias": (E,),
}
state = {name: torch.randn(shape) / 2 for name, shape in shapes.items()}
weight, bias, dense, b_o = state.values()
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# (3E, E) -> (H, 3, D, E) -> three of (H, E, D)
W_q, W_k, W_v = weight.view(H, 3, D, E).permute(1, 0, 3, 2)
b_q, b_k, b_v = bias.view(H, 3, D).transpose(0, 1)
# (E, E) -> (H, D, E)
W_o = dense.view(E, H, D).permute(1, 2, 0)
for i in range(H):
    first = 3 * D * i
    starts = (first, first + D, first + 2 * D)
    print(i, *(f"{start:2}:{start + D}" for start in starts))
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
# three of (H, E, D) -> (H, 3, D, E) -> (3E, E)
packed = torch.stack([W_q, W_k, W_v], 1).mT
back = {
    "query_key_value.weight": packed.reshape(3 * E, E),
    "query_key_value.bias": torch.stack([b_q, b_k, b_v], 1).flatten(),
    "dense.weight": torch.cat([matrix.T for matrix in W_o], 1),
    "dense.bias": b_o.clone(),
}
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]

# The declarations of the atlas, and the picture that is drawn from the first.
from atlas import layouts, places
from convert import from_paper, to_paper

layout = layouts()["GPT-NeoX"]
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o, "b_q": b_q, "b_k": b_k, "b_v": b_v, "b_o": b_o}
for declared in ("GPT-NeoX", "BLOOM", "Falcon-RW", "Persimmon"):
    paper = to_paper(state, declared, H)
    for name, tensor in written.items():
        assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
    for name, tensor in from_paper(paper, declared).items():
        assert torch.equal(tensor, back[name])  # guard: as_declared_back
paper = to_paper(state, layout, H)
for i in range(H):
    for first, heads in ((0, paper.W_q), (D, paper.W_k), (2 * D, paper.W_v)):
        assert torch.equal(heads[i], weight[3 * D * i :][first : first + D].T)  # guard: rows
    assert torch.equal(paper.W_o[i], dense[:, i * D : (i + 1) * D].T)  # guard: columns
drawn = {"query_key_value.weight": weight, "dense.weight": dense}
figure("heads", "blocks", drawn, labels={"groups": {
    name: [
        block | {"of": written[f"W_{block['role']}"][block["head"]]}
        for block in places(layout, name, tensor.shape, H)
    ]
    for name, tensor in drawn.items()
}})  # fmt: skip
assert layout.mask == "seen"  # guard: true_is_seen
show("asks", layout.asks)


# --8<-- [start:layer]
def turn(x, n):
    """The first n numbers of a head (..., L, D), turned by halves."""
    angles = torch.arange(L)[:, None] * 10000 ** (
        -torch.arange(0, n, 2) / n)
    (a, b), rest = x[..., :n].chunk(2, -1), x[..., n:]
    cos, sin = angles.cos(), angles.sin()  # (L, n / 2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


def layer(x, mask, turned=0):
    """GPT-NeoX turns some numbers; BLOOM and Falcon-RW do not."""
    qkv = linear(x, weight, bias).view(B, L, H, 3, D)
    q, k, v = qkv.permute(3, 0, 2, 1, 4)  # (B, H, L, D)
    if turned:
        q, k = turn(q, turned), turn(k, turned)
    z = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return linear(z.transpose(1, 2).flatten(2), dense, b_o)
# --8<-- [end:layer]


# GPT-NeoX head by head, with the matrices that were cut out above; all numbers turned, it is the declaration's
torch.testing.assert_close(layer(x, None, D), paper.attend(x)[0])  # guard: all_turned_as_declared
some = layer(x, None, 4)
total = b_o
for i in range(H):
    query, key = (turn(x @ W[i] + b[i], 4) for W, b in ((W_q, b_q), (W_k, b_k)))
    total = total + (query @ key.mT / D**0.5).softmax(-1) @ (x @ W_v[i] + b_v[i]) @ W_o[i]
torch.testing.assert_close(some, total)  # guard: some_turned

# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, batch_first=True)
mha.load_state_dict({
    "in_proj_weight": torch.cat([*W_q, *W_k, *W_v], 1).T,
    "in_proj_bias": torch.cat([b_q, b_k, b_v]).flatten(),
    "out_proj.weight": dense, "out_proj.bias": b_o,
})
slopes = 2.0 ** (-8 * torch.arange(1, H + 1) / H)  # ALiBi
later = torch.full((L, L), -torch.inf).triu(1)
mask = slopes[:, None, None] * torch.arange(L) + later  # (H, L, L)
output, _ = mha(x, x, x, attn_mask=mask.repeat(B, 1, 1))
torch.testing.assert_close(output, layer(x, mask))
# --8<-- [end:load]

# --8<-- [start:falcon_rw]
rw = slopes[:, None, None] * torch.arange(L) / D**0.5 + later
divided, _ = mha(x, x, x, attn_mask=rw.repeat(B, 1, 1))
assert not torch.allclose(divided, output)
print(f"{(divided - output).abs().max():.2f}")
# --8<-- [end:falcon_rw]
# by the formula of modeling_falcon.py: scores and positions are added, then divided
scores = (x[:, None] @ W_q + b_q[:, None]) @ (x[:, None] @ W_k + b_k[:, None]).mT
added = (scores + slopes[:, None, None] * torch.arange(L)) / D**0.5 + later
summed = (added.softmax(-1) @ (x[:, None] @ W_v + b_v[:, None]) @ W_o).sum(1) + b_o
torch.testing.assert_close(divided, summed)  # guard: falcon_divides_both

# --8<-- [start:wrong]
wrong = nn.MultiheadAttention(E, H, batch_first=True)
wrong.load_state_dict({
    "in_proj_weight": weight, "in_proj_bias": bias,
    "out_proj.weight": dense, "out_proj.bias": b_o,
})
mixed, _ = wrong(x, x, x, attn_mask=mask.repeat(B, 1, 1))
print(f"{(mixed - output).abs().max():.1f}")
assert not torch.allclose(mixed, output, atol=1)
theirs, ours = weight.view(H, 3, D, E), weight.view(3, H, D, E)
same = (theirs.transpose(0, 1) == ours).flatten(2).all(-1)
print(*(f"{'qkv'[t]}{i}" for t, i in same.nonzero()))
# --8<-- [end:wrong]
assert torch.equal(ours[0, 1].T, paper.W_k[0])  # guard: key_for_query
assert torch.equal(ours[0, 2].T, paper.W_v[0])  # guard: value_for_query

# --8<-- [start:answer]
width, heads, i = 2048, 8, 3  # Pythia 1B
size = width // heads
first = 3 * size * i + size
print(f"query_key_value.weight[{first}:{first + size}]")
rows = torch.arange(3 * width).view(heads, 3, size)
assert torch.equal(rows[i, 1], torch.arange(first, first + size))
# --8<-- [end:answer]
show("first", first)
show("last", first + size - 1)
