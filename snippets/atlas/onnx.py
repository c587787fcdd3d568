# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(10)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H
x = torch.randn(B, L, E)
weights = torch.randn(E, 3 * E) / 2  # second and third input of
bias = torch.randn(3 * E) / 2  # com.microsoft.Attention
out_weight = torch.randn(E, E) / 2  # of a MatMul behind it: (in, out)
out_bias = torch.randn(E) / 2  # of an Add behind that
# --8<-- [end:setup]

# --8<-- [start:to_paper]
# (E, 3E) -> (E, 3, H, D) -> three of (H, E, D)
W_q, W_k, W_v = weights.view(E, 3, H, D).permute(1, 2, 0, 3)
b_q, b_k, b_v = bias.view(3, H, D)
# (E, E) -> (H, D, E)
W_o = out_weight.view(H, D, E)
# --8<-- [end:to_paper]

# --8<-- [start:from_paper]
packed = torch.stack([W_q, W_k, W_v]).permute(2, 0, 1, 3)
assert torch.equal(packed.reshape(E, 3 * E), weights)
assert torch.equal(torch.cat([*b_q, *b_k, *b_v]), bias)
assert torch.equal(torch.cat(list(W_o)), out_weight)
# --8<-- [end:from_paper]

# The declaration of the atlas, which takes the projection behind it as an nn.Linear, (out, in); and the picture.
from atlas import layouts, places
from convert import from_paper, to_paper

layout = layouts()["ONNX Runtime Attention"]
state = {"weights": weights, "bias": bias, "out.weight": out_weight.T, "out.bias": out_bias}
paper = to_paper(state, layout, H)
written = {"W_q": W_q, "W_k": W_k, "W_v": W_v, "W_o": W_o, "b_q": b_q, "b_k": b_k, "b_v": b_v}
for name, tensor in written.items():
    assert torch.equal(getattr(paper, name), tensor)  # guard: as_declared
assert torch.equal(from_paper(paper, layout)["weights"], packed.reshape(E, 3 * E))  # guard: as_declared_back
for i in range(H):
    span = slice(i * D, (i + 1) * D)
    for first, matrix in ((0, paper.W_q), (E, paper.W_k), (2 * E, paper.W_v)):
        assert torch.equal(matrix[i], weights[:, first:][:, span])  # guard: columns
    assert torch.equal(paper.W_o[i], out_weight[span])  # guard: rows
blocks_of_weights = [
    block | {"of": written[f"W_{block['role']}"][block["head"]]} for block in places(layout, "weights", weights.shape, H)
]
blocks_of_out = [
    {"rows": block["columns"], "role": "o", "head": block["head"], "text": block["text"], "of": W_o[block["head"]]}
    for block in places(layout, "out.weight", out_weight.T.shape, H)
]
figure(
    "heads", "blocks", {"weights": weights, "MatMul": out_weight},
    labels={"groups": {"weights": blocks_of_weights, "MatMul": blocks_of_out}},
)  # fmt: skip
assert layout.mask == "seen"  # guard: true_is_seen


# --8<-- [start:layer]
def attention(x, weights, bias, num_heads, mask=None):
    """com.microsoft.Attention: (B, L, E), without a projection."""
    q, k, v = (x @ weights + bias).chunk(3, -1)
    q, k, v = (part.view(B, L, num_heads, -1).transpose(1, 2)
               for part in (q, k, v))  # (B, num_heads, L, D)
    if mask is not None:  # (B, L): 1 is seen
        mask = mask.bool()[:, None, None]
    z = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return z.transpose(1, 2).flatten(2)
# --8<-- [end:layer]


# --8<-- [start:load]
mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
theirs = attention(x, weights, bias, H, mask) @ out_weight + out_bias
mha = nn.MultiheadAttention(E, H, batch_first=True)
mha.load_state_dict({
    "in_proj_weight": weights.T, "in_proj_bias": bias,
    "out_proj.weight": out_weight.T, "out_proj.bias": out_bias,
})
output, _ = mha(x, x, x, key_padding_mask=mask == 0)
torch.testing.assert_close(output, theirs)
# --8<-- [end:load]


# --8<-- [start:packed]
def multi_head_attention(packed):
    """com.microsoft.MultiHeadAttention on packed (B, L, H, 3, D)."""
    q, k, v = packed.permute(3, 0, 2, 1, 4)  # (B, H, L, D)
    z = scaled_dot_product_attention(q, k, v)
    return z.transpose(1, 2).flatten(2)


by_head = weights.view(E, 3, H, D).transpose(1, 2).reshape(E, 3 * E)
bias_by_head = bias.view(3, H, D).transpose(0, 1).flatten()
before = x @ by_head + bias_by_head  # a MatMul and an Add
expected = attention(x, weights, bias, H)
found = multi_head_attention(before.view(B, L, H, 3, D))
torch.testing.assert_close(found, expected)
# --8<-- [end:packed]

# --8<-- [start:wrong]
as_it_is = (x @ weights + bias).view(B, L, H, 3, D)
mixed = multi_head_attention(as_it_is)
print(f"{(mixed - expected).abs().max():.1f}")
assert not torch.allclose(mixed, expected, atol=1)
# four axes to three, without the transpose: (B, H, L, D)
z = expected.view(B, L, H, D).transpose(1, 2).contiguous()
torn = z.view(B, L, E)
print(f"{(torn - expected).abs().max():.1f}")
assert not torch.allclose(torn, expected, atol=1)
# --8<-- [end:wrong]

# --8<-- [start:answer]
fits = [n for n in range(1, E + 1) if E % n == 0]
for n in fits:
    other = attention(x, weights, bias, n)
    print(f"{n:2} heads of {E // n:2}",
          f"{(other - expected).abs().max():4.1f}")
    assert (n == H) == torch.allclose(other, expected)
# --8<-- [end:answer]
show("fits", len(fits))
