# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

torch.manual_seed(6)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 7, 24, 4  # a class token and six patches
D = E // H
x = torch.randn(B, L, E)
shapes = {
    "qkv.weight": (3 * E, E), "qkv.bias": (3 * E,),
    "proj.weight": (E, E), "proj.bias": (E,),
}
state = {name: torch.randn(shape) / 2 for name, shape in shapes.items()}
weight, bias, proj, b_o = state.values()
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# (3E, E) -> (3, H, D, E) -> three of (H, E, D)
W_q, W_k, W_v = weight.view(3, H, D, E).mT
b_q, b_k, b_v = bias.view(3, H, D)
# (E, E) -> (H, D, E)
W_o = proj.view(E, H, D).permute(1, 2, 0)
for i in range(H):
    starts = (i * D, E + i * D, 2 * E + i * D)
    print(i, *(f"{start:2}:{start + D}" for start in starts))
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
back = {
    "qkv.weight": torch.cat([W.T for W in (*W_q, *W_k, *W_v)]),
    "qkv.bias": torch.cat([*b_q, *b_k, *b_v]),
    "proj.weight": torch.cat([W.T for W in W_o], 1),
    "proj.bias": b_o.clone(),
}
for name, tensor in state.items():
    assert torch.equal(back[name], tensor)
# --8<-- [end:from_paper]

# The declarations of the atlas, and the picture that is drawn from the first.
from atlas import layouts, places
from convert import from_paper, to_paper

layout = layouts()["timm"]
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o, "b_q": b_q, "b_k": b_k, "b_v": b_v, "b_o": b_o}
for declared in ("timm", "timm, norms", "SAM, image"):
    paper = to_paper(state, declared, H)
    for name, tensor in written.items():
        assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
    for name, tensor in from_paper(paper, declared).items():
        assert torch.equal(tensor, back[name])  # guard: as_declared_back
for i in range(H):
    for first, heads in ((0, paper.W_q), (E, paper.W_k), (2 * E, paper.W_v)):
        assert torch.equal(heads[i], weight[first:][i * D : (i + 1) * D].T)  # guard: rows
    assert torch.equal(paper.W_o[i], proj[:, i * D : (i + 1) * D].T)  # guard: columns
drawn = {"qkv.weight": weight, "proj.weight": proj}
figure("heads", "blocks", drawn, labels={"groups": {
    name: [
        block | {"of": written[f"W_{block['role']}"][block["head"]]}
        for block in places(layout, name, tensor.shape, H)
    ]
    for name, tensor in drawn.items()
}})  # fmt: skip
assert layout.mask == "seen"  # guard: true_is_seen
# the look-alikes: the same rows under other names
clip = {"in_proj_weight": weight, "in_proj_bias": bias, "out_proj.weight": proj, "out_proj.bias": b_o}
assert torch.equal(to_paper(clip, "open_clip", H).W_v, W_v)  # guard: open_clip_is_torch
assert set(layouts()["open_clip"].tensors) == set(layouts()["torch"].tensors)  # guard: open_clip_has_its_names
phil = {"to_qkv.weight": weight, "to_out.0.weight": proj, "to_out.0.bias": b_o}
assert torch.equal(to_paper(phil, "vit-pytorch", H).W_v, W_v)  # guard: vit_pytorch_alike
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    half = {f"{name}.weight": torch.randn(E // 2, E) for name in ("q_proj", "k_proj", "v_proj")}
    half["out_proj.weight"] = torch.randn(E, E // 2)
assert to_paper(half, "SAM, decoder", H).W_q.shape == (H, E, D // 2)  # guard: narrower_heads


# --8<-- [start:layer]
def timm(x, mask=None):
    """The layer as timm computes it: (B, L, E)."""
    qkv = linear(x, weight, bias).reshape(B, L, 3, H, D)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, D)
    z = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return linear(z.transpose(1, 2).reshape(B, L, E), proj, b_o)
# --8<-- [end:layer]


# --8<-- [start:load]
mha = nn.MultiheadAttention(E, H, batch_first=True)
mha.load_state_dict({
    "in_proj_weight": weight, "in_proj_bias": bias,
    "out_proj.weight": proj, "out_proj.bias": b_o,
})
output, A = mha(x, x, x, average_attn_weights=False)
torch.testing.assert_close(output, timm(x))
seen = torch.rand(L, L) > 0.3
seen |= torch.eye(L, dtype=torch.bool)
masked, _ = mha(x, x, x, attn_mask=~seen)
torch.testing.assert_close(masked, timm(x, seen))
# --8<-- [end:load]

# --8<-- [start:wrong]
wrong = nn.MultiheadAttention(E, H, batch_first=True)
by_head = weight.view(H, 3, D, E).transpose(0, 1)
bias_by_head = bias.view(H, 3, D).transpose(0, 1)
wrong.load_state_dict(mha.state_dict() | {
    "in_proj_weight": by_head.reshape(3 * E, E),
    "in_proj_bias": bias_by_head.flatten(),
})
mixed, _ = wrong(x, x, x)
print(f"{(mixed - output).abs().max():.1f}")
assert not torch.allclose(mixed, output, atol=1)
# --8<-- [end:wrong]
assert torch.equal(wrong.in_proj_weight[D : 2 * D].T, to_paper(state, layout, H).W_q[3])  # guard: another_heads_query

# --8<-- [start:others]
# BEiT: no bias of the keys
q_bias, v_bias = torch.randn(2, E)
mha.in_proj_bias.data = torch.cat([q_bias, torch.zeros(E), v_bias])
beit, _ = mha(x, x, x)
# vit-pytorch: a LayerNorm stands inside the module, before to_qkv
norm = nn.LayerNorm(E)
y = norm(x)
inside, _ = mha(y, y, y)
print(f"without its norm {(inside - beit).abs().max():.1f}")
assert not torch.allclose(inside, beit, atol=0.5)
# --8<-- [end:others]
given = {"qkv.weight": weight, "q_bias": q_bias, "v_bias": v_bias, "proj.weight": proj, "proj.bias": b_o}
torch.testing.assert_close(to_paper(given, "timm BEiT", H).attend(x)[0], beit)  # guard: beit_as_declared

# --8<-- [start:answer]
gone = 2
keep = [i for i in range(H) if i != gone]
rows = torch.arange(3 * E).view(3, H, D)[:, keep].flatten()
columns = torch.arange(E).view(H, D)[keep].flatten()
qkv = linear(x, weight[rows], bias[rows]).view(B, L, 3, H - 1, D)
q, k, v = qkv.permute(2, 0, 3, 1, 4)
z = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
smaller = linear(z, proj[:, columns], b_o)
head = A[:, gone] @ (x @ W_v[gone] + b_v[gone]) @ W_o[gone]
torch.testing.assert_close(smaller, output - head)
print(tuple(weight[rows].shape), tuple(proj[:, columns].shape))
# --8<-- [end:answer]
