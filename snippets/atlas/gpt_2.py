# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(2)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H
x = torch.randn(B, L, E)
shapes = {
    "c_attn.weight": (E, 3 * E), "c_attn.bias": (3 * E,),
    "c_proj.weight": (E, E), "c_proj.bias": (E,),
}
state = {name: torch.randn(shape) / 2 for name, shape in shapes.items()}
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# (E, 3E) -> (E, 3, H, D) -> three of (H, E, D)
weight, bias = state["c_attn.weight"], state["c_attn.bias"]
W_q, W_k, W_v = weight.view(E, 3, H, D).permute(1, 2, 0, 3)
b_q, b_k, b_v = bias.view(3, H, D)
# (E, E) -> (H, D, E)
W_o, b_o = state["c_proj.weight"].view(H, D, E), state["c_proj.bias"]
for name, matrix in (("W_q", W_q), ("b_q", b_q), ("W_o", W_o)):
    print(f"{name} {tuple(matrix.shape)}")
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
# three of (H, E, D) -> (3, H, E, D) -> (E, 3E)
packed = torch.stack([W_q, W_k, W_v]).permute(2, 0, 1, 3)
back = {
    "c_attn.weight": packed.reshape(E, 3 * E),
    "c_attn.bias": torch.cat([b_q, b_k, b_v]).flatten(),
    "c_proj.weight": torch.cat(list(W_o)),
    "c_proj.bias": b_o.clone(),
}
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]

# The declaration of the atlas, and the picture that is drawn from it.
from atlas import layouts, places
from convert import from_paper, to_paper

layout = layouts()["GPT-2"]
paper = to_paper(state, layout, H)
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o, "b_q": b_q, "b_k": b_k, "b_v": b_v, "b_o": b_o}
for name, tensor in written.items():
    assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
for name, tensor in from_paper(paper, layout).items():
    assert torch.equal(tensor, back[name])  # guard: as_declared_back
for i in range(H):
    span = slice(i * D, (i + 1) * D)
    for first, matrix in ((0, paper.W_q), (E, paper.W_k), (2 * E, paper.W_v)):
        assert torch.equal(matrix[i], weight[:, first:][:, span])  # guard: columns
    assert torch.equal(paper.W_o[i], state["c_proj.weight"][span])  # guard: rows
drawn = {name: state[name] for name in ("c_attn.weight", "c_proj.weight")}
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
def gpt2(x):
    """The layer as the library computes it: (B, L, E)."""
    qkv = x @ state["c_attn.weight"] + state["c_attn.bias"]
    q, k, v = (part.view(B, L, H, D).transpose(1, 2)
               for part in qkv.split(E, dim=2))
    z = scaled_dot_product_attention(q, k, v, is_causal=True)
    z = z.transpose(1, 2).reshape(B, L, E)
    return z @ state["c_proj.weight"] + state["c_proj.bias"]


# --8<-- [end:layer]


# --8<-- [start:load]
later = torch.ones(L, L, dtype=torch.bool).triu(1)  # True is hidden
mha = nn.MultiheadAttention(E, H, batch_first=True)
mha.load_state_dict({
    "in_proj_weight": torch.cat([*W_q, *W_k, *W_v], 1).T,
    "in_proj_bias": back["c_attn.bias"],
    "out_proj.weight": back["c_proj.weight"].T,
    "out_proj.bias": b_o,
})
output, _ = mha(x, x, x, attn_mask=later)
torch.testing.assert_close(output, gpt2(x))
# --8<-- [end:load]

# --8<-- [start:short]
assert torch.equal(mha.in_proj_weight, state["c_attn.weight"].T)
assert torch.equal(mha.out_proj.weight, state["c_proj.weight"].T)
# --8<-- [end:short]

# --8<-- [start:wrong]
wrong = nn.MultiheadAttention(E, H, batch_first=True)
right = mha.state_dict()
try:
    wrong.load_state_dict(
        right | {"in_proj_weight": state["c_attn.weight"]})
except RuntimeError as error:
    print(str(error).splitlines()[1].split(":")[0].strip())
else:
    raise AssertionError("c_attn.weight was taken as it is")
wrong.load_state_dict(
    right | {"out_proj.weight": state["c_proj.weight"]})
fitted, _ = wrong(x, x, x, attn_mask=later)
print(f"{(fitted - output).abs().max():.1f}")
assert not torch.allclose(fitted, output, atol=1)
# --8<-- [end:wrong]
digits = torch.linalg.vector_norm(fitted - output, torch.inf)
assert digits > output.std()  # guard: more_than_the_output
show("off", f"{digits:.1f}")

# --8<-- [start:alike]
# (3E, E), as nanoGPT keeps it: three of (H, D, E)
rows = state["c_attn.weight"].T.contiguous()
nano_gpt = rows.view(3, H, D, E)
# the same shape in GPT-BigCode: H of (3, D, E)
big_code = rows.view(H, 3, D, E).transpose(0, 1)
same = (nano_gpt == big_code).flatten(2).all(-1)  # (3, H)
print(*(f"{'qkv'[t]}{i}" for t, i in same.nonzero()))
wrong.load_state_dict(
    right | {"in_proj_weight": big_code.reshape(3 * E, E)})
mixed, _ = wrong(x, x, x, attn_mask=later)
print(f"{(mixed - output).abs().max():.1f}")
assert not torch.allclose(mixed, output, atol=1)
# --8<-- [end:alike]
one = {"c_attn.weight": rows, "c_attn.bias": bias, "c_proj.weight": state["c_proj.weight"].T, "c_proj.bias": b_o}
for name, heads in (("nanoGPT", nano_gpt), ("GPT-BigCode", big_code)):
    read = to_paper(one, name, H)
    assert torch.equal(torch.stack([read.W_q, read.W_k, read.W_v]).mT, heads)  # guard: alike_as_declared
    assert torch.equal(read.W_o, W_o)  # guard: both_transposed
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    few = {"c_attn.weight": torch.randn((H + 2) * D, E), "c_proj.weight": one["c_proj.weight"]}
few_heads = to_paper(few, "GPT-BigCode, one head of keys", H, 1)
assert torch.equal(few_heads.W_q, few["c_attn.weight"][: H * D].view(H, D, E).mT)  # guard: queries_first
assert torch.equal(few_heads.W_v[0], few["c_attn.weight"][-D:].T)  # guard: one_head_of_values_last

# --8<-- [start:answer]
width, heads, i = 1024, 16, 5
size = width // heads
first = 2 * width + i * size
print(f"c_attn.weight[:, {first}:{first + size}]")
columns = torch.arange(3 * width).view(3, heads, size)
assert torch.equal(columns[2, i], torch.arange(first, first + size))
# --8<-- [end:answer]
show("first", first)
show("last", first + size - 1)
