# --8<-- [start:setup]
import torch
from torch import nn

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H  # Keras' key_dim
x, y, z = torch.randn(B, L, E), *torch.randn(2, B, S, E)
state = {}
for name in ("query", "key", "value"):
    state[f"{name}/kernel"] = torch.randn(E, H, D) / 2
    state[f"{name}/bias"] = torch.randn(H, D) / 2
state["attention_output/kernel"] = torch.randn(H, D, E) / 2
state["attention_output/bias"] = torch.randn(E) / 2
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# three of (E, H, D) -> (H, E, D); the rest is the paper's as it is
W_q = state["query/kernel"].transpose(0, 1)
W_k = state["key/kernel"].transpose(0, 1)
W_v = state["value/kernel"].transpose(0, 1)
W_o = state["attention_output/kernel"]
b_q, b_k, b_v = (
    state[f"{name}/bias"] for name in ("query", "key", "value"))
b_o = state["attention_output/bias"]
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
back = {
    "attention_output/kernel": W_o.clone(),
    "attention_output/bias": b_o.clone(),
}
for name, W, b in (("query", W_q, b_q), ("key", W_k, b_k),
                   ("value", W_v, b_v)):
    back[f"{name}/kernel"] = torch.stack(list(W), 1)
    back[f"{name}/bias"] = b.clone()
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]

# The declarations of the atlas, and the picture that is drawn from the first: each kernel with its last two axes joined.
from atlas import layouts, places
from convert import from_paper, to_paper

layout = layouts()["Keras"]
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o, "b_q": b_q, "b_k": b_k, "b_v": b_v, "b_o": b_o}
for declared in ("Keras", "tf_keras", "Flax linen"):
    given = {name.replace("attention_output", "out"): tensor for name, tensor in state.items()} if "Flax" in declared else state
    paper = to_paper(given, declared, H)
    for name, tensor in written.items():
        assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
for name, tensor in from_paper(paper, "Keras").items():
    assert torch.equal(tensor, back[name])  # guard: as_declared_back
for i in range(H):
    for name, heads in (("query", paper.W_q), ("key", paper.W_k), ("value", paper.W_v)):
        assert torch.equal(heads[i], state[f"{name}/kernel"][:, i])  # guard: slices
    assert torch.equal(paper.W_o[i], state["attention_output/kernel"][i])  # guard: output_slices
drawn, groups = {}, {}
for name, tensor in state.items():
    if name.endswith("kernel"):
        joined = tensor.flatten(0, 1) if name.startswith("attention_output") else tensor.flatten(1)
        drawn[name] = joined
        groups[name] = [
            block | {"of": written[f"W_{block['role']}"][block["head"]]}
            for block in places(layout, name, tensor.shape, H)
        ]
figure("heads", "blocks", drawn, labels={"groups": groups})
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    few = {f"{name}/kernel": torch.randn(E, n, D) for name, n in (("query", H), ("key", 2), ("value", 2))}
few["attention_output/kernel"] = state["attention_output/kernel"]
grouped = to_paper(few, "Keras, grouped", H, 2)
assert torch.equal(grouped.W_k[1], few["key/kernel"][:, 1])  # guard: groups_alike
assert layout.mask == "seen"  # guard: true_is_seen
show("asks", layout.asks)


# --8<-- [start:layer]
def keras(query, value, key=None, seen=None):
    """The layer as Keras computes it; mind the order. (B, L, E)"""
    key = value if key is None else key
    q, k, v = (
        torch.einsum("ble,ehd->blhd", tokens, state[f"{name}/kernel"])
        + state[f"{name}/bias"] for tokens, name in
        ((query, "query"), (key, "key"), (value, "value")))
    scores = torch.einsum("bshd,blhd->bhls", k, q * D**-0.5)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    heads = torch.einsum("bhls,bshd->blhd", scores.softmax(-1), v)
    return torch.einsum(
        "blhd,hde->ble", heads, state["attention_output/kernel"]
    ) + state["attention_output/bias"]
# --8<-- [end:layer]


# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, batch_first=True)
rows = [state[f"{n}/kernel"].flatten(1).T for n in
        ("query", "key", "value")]  # (E, H, D) -> (H D, E)
mha.load_state_dict({
    "in_proj_weight": torch.cat(rows),
    "in_proj_bias": torch.cat([*b_q, *b_k, *b_v]),
    "out_proj.weight": W_o.flatten(0, 1).T,
    "out_proj.bias": b_o,
})
output, _ = mha(x, y, z)  # query, key, value
torch.testing.assert_close(output, keras(x, z, y))
seen = torch.rand(L, S) > 0.3
masked, _ = mha(x, y, z, attn_mask=~seen)
torch.testing.assert_close(masked, keras(x, z, y, seen))
# --8<-- [end:load]

# --8<-- [start:order]
in_torchs_order = keras(x, y, z)
print(f"{(in_torchs_order - output).abs().max():.1f}")
assert not torch.allclose(in_torchs_order, output, atol=1)
torch.testing.assert_close(in_torchs_order, mha(x, z, y)[0])
# what hides it: one and the same tensor
torch.testing.assert_close(keras(x, y, y), mha(x, y, y)[0])
# --8<-- [end:order]

# --8<-- [start:wrong]
wrong = nn.MultiheadAttention(E, H, batch_first=True)
wrong.load_state_dict(mha.state_dict() | {
    "in_proj_weight": torch.cat([
        state[f"{name}/kernel"].reshape(E, E)  # without .T
        for name in ("query", "key", "value")]),
})
fitted, _ = wrong(x, y, z)
print(f"{(fitted - output).abs().max():.1f}")
assert not torch.allclose(fitted, output, atol=1)
# --8<-- [end:wrong]

# --8<-- [start:answer]
wide = torch.randn(E, H, E)  # key_dim=E: every head as wide as all
try:
    mha.load_state_dict(mha.state_dict() | {
        "in_proj_weight": torch.cat([wide.flatten(1).T] * 3)})
except RuntimeError as error:
    print(str(error).splitlines()[1].split(":")[0].strip())
else:
    raise AssertionError("heads of width E were taken")
print(wide.numel() // state["query/kernel"].numel(), "times as many")
assert wide.numel() == H * state["query/kernel"].numel()
# --8<-- [end:answer]
show("times", wide.numel() // rows[0].numel())
