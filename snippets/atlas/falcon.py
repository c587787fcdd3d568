# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

torch.manual_seed(8)
torch.set_default_dtype(torch.float64)
B, L, E, H, K = 2, 5, 24, 4, 2  # K heads of keys and values
D, r = E // H, H // K  # r heads of queries read one head of keys
x = torch.randn(B, L, E)
state = {
    "query_key_value.weight": torch.randn((H + 2 * K) * D, E) / 2,
    "dense.weight": torch.randn(E, E) / 2,
}
weight, dense = state.values()
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# ((H + 2K) D, E) -> K groups of r queries, a key, a value
groups = weight.view(K, r + 2, D, E)
W_q = groups[:, :r].flatten(0, 1).mT  # (H, E, D)
W_k = groups[:, r].mT  # (K, E, D)
W_v = groups[:, r + 1].mT
# (E, E) -> (H, D, E)
W_o = dense.view(E, H, D).permute(1, 2, 0)
for i in range(H):
    k = i // r
    starts = (i + 2 * k, k * (r + 2) + r, k * (r + 2) + r + 1)
    rows = (f"{s * D:2}:{s * D + D}" for s in starts)
    print(f"q{i} k{k} v{k}", *rows)
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
parts = W_q.view(K, r, E, D), W_k[:, None], W_v[:, None]
back = {
    "query_key_value.weight": torch.cat(parts, 1).mT.reshape(-1, E),
    "dense.weight": torch.cat([W.T for W in W_o], 1),
}
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]

# The declarations of the atlas, and the picture that is drawn from the first.
from atlas import layouts, places
from convert import from_paper, to_paper

layout = layouts()["Falcon-40B"]
paper = to_paper(state, layout, H, K)
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o}
for name, tensor in written.items():
    assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
made = from_paper(paper, layout)
for name, tensor in back.items():
    assert torch.equal(made[name], tensor)  # guard: as_declared_back
megatron = {"linear_qkv.weight": weight, "linear_proj.weight": dense}
for name, tensor in written.items():
    assert torch.equal(getattr(to_paper(megatron, "Megatron-Core", H, K), name), tensor)  # guard: megatron_alike
for i in range(H):
    first = (i + 2 * (i // r)) * D
    assert torch.equal(paper.W_q[i], weight[first : first + D].T)  # guard: rows_of_queries
    assert torch.equal(paper.W_o[i], dense[:, i * D : (i + 1) * D].T)  # guard: columns
for k in range(K):
    first = (k * (r + 2) + r) * D
    assert torch.equal(paper.W_k[k], weight[first : first + D].T)  # guard: rows_of_keys
    assert torch.equal(paper.W_v[k], weight[first + D : first + 2 * D].T)  # guard: rows_of_values
figure("heads", "blocks", state, labels={"groups": {
    name: [
        block | {"of": written[f"W_{block['role']}"][block["head"]]}
        for block in places(layout, name, tensor.shape, H, K)
    ]
    for name, tensor in state.items()
}})  # fmt: skip
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    one = {"query_key_value.weight": torch.randn((H + 2) * D, E), "dense.weight": dense}
small = to_paper(one, "Falcon-7B", H, 1)
assert torch.equal(small.W_q, to_paper(one, layout, H, 1).W_q)  # guard: one_group_is_blocks
assert torch.equal(small.W_k[0], one["query_key_value.weight"][H * D : H * D + D].T)  # guard: key_behind_all_queries
assert layout.mask == "seen"  # guard: true_is_seen
assert layouts()["Megatron-Core"].mask == "hidden"  # guard: megatron_hides
show("asks", layout.asks)


# --8<-- [start:layer]
def turn(x):
    """x (..., L, D), turned by its position, halves in pairs."""
    angles = torch.arange(L)[:, None] * 10000 ** (
        -torch.arange(0, D, 2) / D)
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def falcon(x, weight, dense, turn=turn):
    """The layer as the library computes it: (B, L, E)."""
    groups = linear(x, weight).view(B, L, -1, r + 2, D)
    q = groups[..., :r, :].flatten(2, 3).transpose(1, 2)
    k, v = groups[..., r:, :].permute(3, 0, 2, 1, 4)  # (B, K, L, D)
    z = scaled_dot_product_attention(
        turn(q), turn(k), v, is_causal=True, enable_gqa=True)
    return linear(z.transpose(1, 2).flatten(2), dense)
# --8<-- [end:layer]


output = falcon(x, weight, dense)
after = torch.ones(L, L, dtype=torch.bool).triu(1)
total = 0
for i in range(H):
    scores = turn(x @ W_q[i]) @ turn(x @ W_k[i // r]).mT / D**0.5
    total = total + scores.masked_fill(after, -torch.inf).softmax(-1) @ (x @ W_v[i // r]) @ W_o[i]
torch.testing.assert_close(output, total)  # guard: head_by_head

# --8<-- [start:apart]
output = falcon(x, weight, dense)
pieces = zip(weight.chunk(K), dense.chunk(K, 1), strict=True)
torch.testing.assert_close(
    sum(falcon(x, rows, columns) for rows, columns in pieces), output)
# --8<-- [end:apart]

# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
more_k, more_v = (W.repeat_interleave(r, 0) for W in (W_k, W_v))
mha.load_state_dict({
    "in_proj_weight": torch.cat([*W_q, *more_k, *more_v], 1).T,
    "out_proj.weight": dense,
})
later = torch.ones(L, L, dtype=torch.bool).triu(1)  # True is hidden
unturned, _ = mha(x, x, x, attn_mask=later)
torch.testing.assert_close(
    unturned, falcon(x, weight, dense, turn=lambda part: part))
# --8<-- [end:load]

# --8<-- [start:wrong]
q, k, v = weight.split([H * D, K * D, K * D])  # blocks
as_blocks = torch.cat(
    [q.view(K, r, D, E), k.view(K, 1, D, E), v.view(K, 1, D, E)], 1)
mixed = falcon(x, as_blocks.reshape(-1, E), dense)
print(f"{(mixed - output).abs().max():.1f}")
assert not torch.allclose(mixed, output, atol=1)
same = (as_blocks == groups).flatten(2).all(-1)  # (K, r + 2)
names = [[f"q{k * r + j}" for j in range(r)] + [f"k{k}", f"v{k}"]
         for k in range(K)]
print(*(names[k][j] for k, j in same.nonzero()))
# --8<-- [end:wrong]
assert torch.equal(as_blocks[0, r].T, paper.W_q[2])  # guard: a_query_for_a_key

# --8<-- [start:answer]
width, heads, keys = 8192, 128, 8  # Falcon-40B
size, each = width // heads, heads // keys
i = 50
k = i // each
query = (i + 2 * k) * size
key = (k * (each + 2) + each) * size
print(f"q{i} {query}:{query + size} k{k} {key}:{key + size}")
rows = torch.arange((heads + 2 * keys) * size)
rows = rows.view(keys, each + 2, size)
assert torch.equal(rows[k, i % each], torch.arange(query, query + size))
assert torch.equal(rows[k, each], torch.arange(key, key + size))
# --8<-- [end:answer]
show("query", query)
show("key", key)
show("k", k)
