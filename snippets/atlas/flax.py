# --8<-- [start:setup]
import torch
from torch import nn

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H
x = torch.randn(B, L, E)
state = {}
for name in ("query", "key", "value"):
    state[f"{name}/kernel"] = torch.randn(E, H, D) / 2
    state[f"{name}/bias"] = torch.randn(H, D) / 2
state["out/kernel"] = torch.randn(H, D, E) / 2
state["out/bias"] = torch.randn(E) / 2
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# three of (E, H, D) -> (H, E, D); the rest is the paper's as it is
W_q, W_k, W_v = (state[f"{name}/kernel"].transpose(0, 1)
                 for name in ("query", "key", "value"))
b_q, b_k, b_v = (state[f"{name}/bias"]
                 for name in ("query", "key", "value"))
W_o, b_o = state["out/kernel"], state["out/bias"]
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
back = {"out/kernel": W_o.clone(), "out/bias": b_o.clone()}
for name, W, b in (("query", W_q, b_q), ("key", W_k, b_k),
                   ("value", W_v, b_v)):
    back[f"{name}/kernel"] = torch.stack(list(W), 1)
    back[f"{name}/bias"] = b.clone()
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]

# --8<-- [start:others]
haiku, equinox = {}, {}
for name in ("query", "key", "value"):
    wide = state[f"{name}/kernel"].flatten(1)  # (E, H D)
    haiku[f"{name}/w"] = wide  # (in, out)
    equinox[f"{name}_proj.weight"] = wide.T  # (out, in)
    haiku[f"{name}/b"] = state[f"{name}/bias"].flatten()
    equinox[f"{name}_proj.bias"] = state[f"{name}/bias"].flatten()
wide = state["out/kernel"].flatten(0, 1)  # (H D, E)
haiku["linear/w"], equinox["output_proj.weight"] = wide, wide.T
haiku["linear/b"] = equinox["output_proj.bias"] = state["out/bias"]
# --8<-- [end:others]

# The declarations of the atlas, and the picture that is drawn from the first: each kernel with its last two axes joined.
from atlas import layouts, places
from convert import convert, from_paper, to_paper

layout = layouts()["Flax linen"]
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o, "b_q": b_q, "b_k": b_k, "b_v": b_v, "b_o": b_o}
nnx = {name.replace("/", "."): tensor for name, tensor in state.items()}
for given, declared in ((state, "Flax linen"), (nnx, "Flax nnx"), (haiku, "Haiku"), (equinox, "Equinox")):
    paper = to_paper(given, declared, H)
    for name, tensor in written.items():
        assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
for name, tensor in from_paper(paper, layout).items():
    assert torch.equal(tensor, back[name])  # guard: as_declared_back
for name, tensor in convert(state, layout, "Haiku", H).items():
    assert torch.equal(haiku[name], tensor)  # guard: haiku_as_declared
for name, tensor in convert(state, layout, "Equinox", H).items():
    assert torch.equal(equinox[name], tensor)  # guard: equinox_as_declared
for i in range(H):
    for name, heads in (("query", paper.W_q), ("key", paper.W_k), ("value", paper.W_v)):
        assert torch.equal(heads[i], state[f"{name}/kernel"][:, i])  # guard: slices
        assert torch.equal(heads[i], haiku[f"{name}/w"][:, i * D : (i + 1) * D])  # guard: haiku_columns
        assert torch.equal(heads[i], equinox[f"{name}_proj.weight"][i * D : (i + 1) * D].T)  # guard: equinox_rows
    assert torch.equal(paper.W_o[i], state["out/kernel"][i])  # guard: output_slices
    assert torch.equal(paper.W_o[i], haiku["linear/w"][i * D : (i + 1) * D])  # guard: haiku_rows
    assert torch.equal(paper.W_o[i], equinox["output_proj.weight"][:, i * D : (i + 1) * D].T)  # guard: equinox_columns
drawn, groups = {}, {}
for name, tensor in state.items():
    if name.endswith("kernel"):
        drawn[name] = tensor.flatten(0, 1) if name.startswith("out") else tensor.flatten(1)
        groups[name] = [
            block | {"of": written[f"W_{block['role']}"][block["head"]]}
            for block in places(layout, name, tensor.shape, H)
        ]
figure("heads", "blocks", drawn, labels={"groups": groups})
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    few = {f"{name}.kernel": torch.randn(E, n, D) for name, n in (("query", H), ("key", 2), ("value", 2))}
grouped = to_paper(few | {"out.kernel": W_o}, "Flax nnx", H, 2)
assert torch.equal(grouped.W_v[1], few["value.kernel"][:, 1])  # guard: groups_alike
for declared in ("Flax linen", "Flax nnx", "Equinox", "Haiku"):
    assert layouts()[declared].mask == "seen"  # guard: true_is_seen
show("asks", layout.asks)


# --8<-- [start:layer]
def flax(x, mask=None):
    """The layer as Flax computes it: (B, L, E)."""
    q, k, v = (
        torch.einsum("ble,ehd->blhd", x, state[f"{name}/kernel"])
        + state[f"{name}/bias"] for name in ("query", "key", "value"))
    scores = torch.einsum("blhd,bshd->bhls", q / D**0.5, k)
    if mask is not None:  # True is seen
        scores = scores.masked_fill(~mask, -torch.inf)
    heads = torch.einsum("bhls,bshd->blhd", scores.softmax(-1), v)
    output = torch.einsum("blhd,hde->ble", heads, state["out/kernel"])
    return output + state["out/bias"]
# --8<-- [end:layer]


# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, batch_first=True)
mha.load_state_dict({
    "in_proj_weight": torch.cat([*W_q, *W_k, *W_v], 1).T,
    "in_proj_bias": torch.cat([*b_q, *b_k, *b_v]),
    "out_proj.weight": torch.cat(list(W_o)).T,
    "out_proj.bias": b_o,
})
seen = torch.ones(L, L, dtype=torch.bool).tril()
output, _ = mha(x, x, x, attn_mask=~seen)
torch.testing.assert_close(output, flax(x, seen))
# --8<-- [end:load]

# --8<-- [start:wrong]
leaves = [state[name] for name in sorted(state)
          if name.endswith("kernel")]  # the order of a tree in JAX
print(*(name for name in sorted(state) if name.endswith("kernel")))
first, second, third, last = (leaf.reshape(E, E).T for leaf in leaves)
wrong = nn.MultiheadAttention(E, H, batch_first=True)
wrong.load_state_dict(mha.state_dict() | {
    "in_proj_weight": torch.cat([first, second, third]),
    "out_proj.weight": last,
})
mixed, _ = wrong(x, x, x, attn_mask=~seen)
print(f"{(mixed - output).abs().max():.1f}")
assert not torch.allclose(mixed, output, atol=1)
# --8<-- [end:wrong]
for took, name in ((first, "key"), (second, "out"), (third, "query"), (last, "value")):
    kernel = state[f"{name}/kernel"].clone()
    assert torch.equal(took, (kernel.flatten(0, 1) if name == "out" else kernel.flatten(1)).T)  # guard: taken_by_the_alphabet

# --8<-- [start:square]
as_linear = {name: haiku[f"{name}/w"] for name in
             ("query", "key", "value")}  # (in, out), not turned
wrong.load_state_dict(mha.state_dict() | {
    "in_proj_weight": torch.cat(list(as_linear.values()))})
unturned, _ = wrong(x, x, x, attn_mask=~seen)
print(f"{(unturned - output).abs().max():.1f}")
assert not torch.allclose(unturned, output, atol=1)
# --8<-- [end:square]

# --8<-- [start:answer]
qkv = torch.cat([state[f"{name}/kernel"].flatten(1).T
                 for name in ("query", "key", "value")])
proj = state["out/kernel"].flatten(0, 1).T
assert torch.equal(qkv, mha.in_proj_weight)
assert torch.equal(proj, mha.out_proj.weight)
print(f"qkv.weight {tuple(qkv.shape)} proj.weight {tuple(proj.shape)}")
# --8<-- [end:answer]
timm = {"qkv.weight": qkv, "qkv.bias": mha.in_proj_bias, "proj.weight": proj, "proj.bias": b_o}
assert torch.equal(to_paper(timm, "timm", H).W_v, W_v)  # guard: timm_has_the_heads
