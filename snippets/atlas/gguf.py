# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

torch.manual_seed(9)
torch.set_default_dtype(torch.float64)
B, L, E, H, K = 2, 5, 36, 6, 2  # K heads of keys and values
D = E // H
x = torch.randn(B, L, E)
file = {  # a layer of architecture llama; shapes as torch has them
    "attn_q.weight": torch.randn(H * D, E) / 3,
    "attn_k.weight": torch.randn(K * D, E) / 3,
    "attn_v.weight": torch.randn(K * D, E) / 3,
    "attn_output.weight": torch.randn(E, H * D) / 3,
}
# --8<-- [end:setup]

# --8<-- [start:dimensions]
for name, tensor in file.items():
    numbers = tensor.clone().flatten()  # in the order of the file
    dimensions = tensor.shape[::-1]  # what the header says
    assert torch.equal(numbers.view(*dimensions[::-1]), tensor)
    unturned = numbers.view(*dimensions)
    print(f"{name:18} {list(dimensions)}",
          unturned.shape == tensor.shape)
# --8<-- [end:dimensions]
assert not torch.equal(file["attn_k.weight"].flatten().view(E, K * D).T, file["attn_k.weight"])  # guard: other_numbers

# --8<-- [start:to_paper]
# (n D, E) -> (n, E, D), in the order that llama.cpp turns
W_q = file["attn_q.weight"].view(H, D, E).mT
W_k = file["attn_k.weight"].view(K, D, E).mT
W_v = file["attn_v.weight"].view(K, D, E).mT
# (E, H D) -> (H, D, E)
W_o = file["attn_output.weight"].view(E, H, D).permute(1, 2, 0)
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
back = {
    "attn_q.weight": torch.cat([W.T for W in W_q]),
    "attn_k.weight": torch.cat([W.T for W in W_k]),
    "attn_v.weight": torch.cat([W.T for W in W_v]),
    "attn_output.weight": torch.cat([W.T for W in W_o], 1),
}
for name, tensor in file.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]


# --8<-- [start:hugging_face]
def to_halves(rows):
    """Within each head neighbours -> halves: llama.cpp undone."""
    heads = rows.view(-1, D // 2, 2, E)
    return heads.transpose(1, 2).reshape(-1, E)


def to_neighbours(rows):
    """Halves -> neighbours, as llama.cpp's converter does."""
    heads = rows.view(-1, 2, D // 2, E)
    return heads.transpose(1, 2).reshape(-1, E)


state = {
    "q_proj.weight": to_halves(file["attn_q.weight"]),
    "k_proj.weight": to_halves(file["attn_k.weight"]),
    "v_proj.weight": file["attn_v.weight"],
    "o_proj.weight": file["attn_output.weight"],
}
for ours, theirs in (("q_proj.weight", "attn_q.weight"),
                     ("k_proj.weight", "attn_k.weight")):
    assert torch.equal(to_neighbours(state[ours]), file[theirs])
# --8<-- [end:hugging_face]

# The declarations of the atlas, and the picture that is drawn from the first.
from atlas import layouts, places
from convert import convert, from_paper, to_paper

layout = layouts()["GGUF, llama"]
paper = to_paper(file, layout, H, K)
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o}
for name, tensor in written.items():
    assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
made = from_paper(paper, layout)
for name, tensor in back.items():
    assert torch.equal(made[name], tensor)  # guard: as_declared_back
converted = convert(file, layout, "LLaMA", H, K)
for name, tensor in state.items():
    assert torch.equal(converted[name], tensor)  # guard: hugging_face_as_declared
for name, heads, n in (("attn_q.weight", paper.W_q, H), ("attn_k.weight", paper.W_k, K), ("attn_v.weight", paper.W_v, K)):
    for i in range(n):
        assert torch.equal(heads[i], file[name][i * D : (i + 1) * D].T)  # guard: rows
for i in range(H):
    assert torch.equal(paper.W_o[i], file["attn_output.weight"][:, i * D : (i + 1) * D].T)  # guard: columns
# an architecture whose rows are left as they are: to Hugging Face's names and nothing else
kept = convert(file, "GGUF", "LLaMA", H, K)
assert torch.equal(kept["k_proj.weight"], file["attn_k.weight"])  # guard: others_are_kept
figure("heads", "blocks", file, labels={"groups": {
    name: [
        block | {"of": written[f"W_{block['role']}"][block["head"]]}
        for block in places(layout, name, tensor.shape, H, K)
    ]
    for name, tensor in file.items()
}})  # fmt: skip


# --8<-- [start:layer]
def turn(x, neighbours):
    """x (..., L, D), pairs of its numbers turned by position."""
    angles = torch.arange(L)[:, None] * 10000 ** (
        -torch.arange(0, D, 2) / D)
    cos, sin = angles.cos(), angles.sin()
    a, b = (x[..., ::2], x[..., 1::2]) if neighbours else x.chunk(2, -1)
    turned = a * cos - b * sin, a * sin + b * cos
    if neighbours:
        return torch.stack(turned, -1).flatten(-2)
    return torch.cat(turned, -1)


def layer(tensors, neighbours=None):
    """llama.cpp: True; Hugging Face: False; None: not turned."""
    *qkv, o = tensors.values()
    q, k, v = (linear(x, w).unflatten(-1, (-1, D)).transpose(1, 2)
               for w in qkv)  # (B, n, L, D)
    if neighbours is not None:
        q, k = turn(q, neighbours), turn(k, neighbours)
    z = scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True)
    return linear(z.transpose(1, 2).flatten(2), o)
# --8<-- [end:layer]


# --8<-- [start:same]
output = layer(file, neighbours=True)
torch.testing.assert_close(layer(state, neighbours=False), output)
# --8<-- [end:same]

after = torch.ones(L, L, dtype=torch.bool).triu(1)
total = 0
for i in range(H):
    query, key = (turn(x @ W, True) for W in (W_q[i], W_k[i // (H // K)]))
    scores = (query @ key.mT / D**0.5).masked_fill(after, -torch.inf)
    total = total + scores.softmax(-1) @ (x @ W_v[i // (H // K)]) @ W_o[i]
torch.testing.assert_close(total, output)  # guard: head_by_head

# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
more_k, more_v = (W.repeat_interleave(H // K, 0) for W in (W_k, W_v))
mha.load_state_dict({
    "in_proj_weight": torch.cat([*W_q, *more_k, *more_v], 1).T,
    "out_proj.weight": file["attn_output.weight"],
})
later = torch.ones(L, L, dtype=torch.bool).triu(1)  # True is hidden
unturned, _ = mha(x, x, x, attn_mask=later)
torch.testing.assert_close(unturned, layer(file))
# --8<-- [end:load]

# --8<-- [start:wrong]
renamed = layer(file, neighbours=False)
print(f"{(renamed - output).abs().max():.1f}")
assert not torch.allclose(renamed, output, atol=1)
# keys cut into H / K heads, where there are K
cut = state["k_proj.weight"].view(H // K, 2, -1, E)
mistaken = file | {
    "attn_k.weight": cut.transpose(1, 2).reshape(-1, E)}
permuted = layer(mistaken, neighbours=True)
print(f"{(permuted - output).abs().max():.1f}")
assert not torch.allclose(permuted, output, atol=1)
# --8<-- [end:wrong]
assert cut.shape == (3, 2, 2, E)  # guard: other_heads
heads_of_70b, keys_of_70b = torch.tensor([64, 8])  # Llama 2 70B
assert heads_of_70b // keys_of_70b == keys_of_70b  # guard: hidden_at_64_and_8

# --8<-- [start:answer]
dimensions, heads_of_queries = [4096, 1024], 32
size = dimensions[0] // heads_of_queries
keys = dimensions[1] // size
print("heads of keys", keys, f"head 5 is rows {5 * size}:{6 * size}")
numbers = torch.arange(dimensions[1]).view(keys, size)[5]
assert torch.equal(numbers, torch.arange(5 * size, 6 * size))
# --8<-- [end:answer]
show("keys", keys)
