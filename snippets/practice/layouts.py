from exercises import exercise, outcomes

# --8<-- [start:setup]
import torch
from exercises import check
from torch import nn

torch.manual_seed(23)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
mha = nn.MultiheadAttention(E, H, batch_first=True).double().eval()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
mha.requires_grad_(False)
packed, bias = mha.in_proj_weight, mha.in_proj_bias
x = torch.randn(B, L, E, dtype=torch.float64) / 2
out, weights = mha(x, x, x, average_attn_weights=False)
for name, parameter in mha.named_parameters():
    print(f"{name:16}{tuple(parameter.shape)}")
# --8<-- [end:setup]

# --8<-- [start:query_try]
W_1_Q = None  # (E, D)
check("query", W_1_Q)
# --8<-- [end:query_try]

# --8<-- [start:query]
# (E, D): rows D to 2D, on their side
W_1_Q = packed[D : 2 * D].T
q = x @ W_1_Q + bias[D : 2 * D]
k = x @ packed[E + D : E + 2 * D].T + bias[E + D : E + 2 * D]
scores = q @ k.mT / D**0.5
torch.testing.assert_close(scores.softmax(-1), weights[:, 1])
print(tuple(W_1_Q.shape))
# --8<-- [end:query]

# --8<-- [start:query_wrong]
# columns, because the shape is right without a transpose
columns = packed[:E, D : 2 * D]
assert columns.shape == W_1_Q.shape
assert not torch.allclose(columns, W_1_Q)
# every H-th row, as if the heads came in turn
in_turn = packed[1:E:H].T
assert in_turn.shape == W_1_Q.shape
assert not torch.allclose(in_turn, W_1_Q)
# --8<-- [end:query_wrong]
by_head = packed.view(H, 3, D, E)
exercise(
    "query",
    W_1_Q,
    columns=columns,
    in_turn=in_turn,
    key=packed[E + D : E + 2 * D].T,
    by_head=by_head[1, 0].T,
    counted_from_1=packed[:D].T,
)

# --8<-- [start:bias_try]
b_1_V = None  # (D,)
check("bias", b_1_V)
# --8<-- [end:bias_try]

# --8<-- [start:bias]
# (D,): the values' third, there head 1
b_1_V = bias[2 * E + D : 2 * E + 2 * D]
v = x @ packed[2 * E + D : 2 * E + 2 * D].T + b_1_V
# each row of weights sums to 1: the bias comes out as it went in
without = weights[:, 1] @ (v - b_1_V)
torch.testing.assert_close(weights[:, 1] @ v, without + b_1_V)
print(tuple(b_1_V.shape))
# --8<-- [end:bias]
full = packed.new_zeros(3 * E)
full[2 * E + D : 2 * E + 2 * D] = b_1_V
moved = nn.functional.multi_head_attention_forward(
    *[x.transpose(0, 1)] * 3, E, H, packed, bias - full, None, None, False, 0.0, mha.out_proj.weight, mha.out_proj.bias,
    training=False,
)[0].transpose(0, 1)
torch.testing.assert_close(out - moved, (mha.out_proj.weight[:, D : 2 * D] @ b_1_V).expand(B, L, E))  # guard: out_as_it_went_in

# --8<-- [start:bias_wrong]
# the first third belongs to the queries
of_query = bias[D : 2 * D]
assert not torch.allclose(of_query, b_1_V)
# out_proj.bias has no heads: it comes after their sum
of_output = mha.out_proj.bias[D : 2 * D]
assert not torch.allclose(of_output, b_1_V)
# --8<-- [end:bias_wrong]
exercise(
    "bias",
    b_1_V,
    query=of_query,
    key=bias[E + D : E + 2 * D],
    output=of_output,
    counted_from_1=bias[2 * E : 2 * E + D],
)

# --8<-- [start:output_try]
W_3_O = None  # (D, E)
check("output", W_3_O)
# --8<-- [end:output_try]

# --8<-- [start:output]
# (D, E): columns 3D to 4D, on their side
W_3_O = mha.out_proj.weight[:, 3 * D : 4 * D].T
v = x @ packed[2 * E :].T + bias[2 * E :]
parts = [
    weights[:, i] @ v[..., i * D : (i + 1) * D]
    @ mha.out_proj.weight[:, i * D : (i + 1) * D].T
    for i in range(H - 1)
]
last = weights[:, 3] @ v[..., 3 * D :] @ W_3_O
torch.testing.assert_close(sum(parts) + last + mha.out_proj.bias, out)
print(tuple(W_3_O.shape))
# --8<-- [end:output]

# --8<-- [start:output_wrong]
# rows have the paper's shape without a transpose
rows = mha.out_proj.weight[3 * D : 4 * D]
assert rows.shape == W_3_O.shape
assert not torch.allclose(rows, W_3_O)
# --8<-- [end:output_wrong]
exercise(
    "output",
    W_3_O,
    rows=rows,
    in_turn=mha.out_proj.weight[:, 3::H].T,
    value=packed[2 * E + 3 * D :],
    counted_from_1=mha.out_proj.weight[:, 2 * D : 3 * D].T,
)

# --8<-- [start:packed_try]
torch.manual_seed(1)
# the paper's matrices, (H, E, D) each
W_Q, W_K, W_V = torch.randn(3, H, E, D, dtype=torch.float64) / 4
in_proj_weight = None  # (3E, E)
check("packed", in_proj_weight)
# --8<-- [end:packed_try]

# --8<-- [start:packed]
# (H, E, D) -> (H, D, E) -> (E, E), three times
blocks = [W.mT.reshape(E, E) for W in (W_Q, W_K, W_V)]
in_proj_weight = torch.cat(blocks)
for part, W in enumerate((W_Q, W_K, W_V)):
    for i in range(H):
        start = part * E + i * D
        rows = in_proj_weight[start : start + D]
        torch.testing.assert_close(x @ rows.T, x @ W[i])
print(tuple(in_proj_weight.shape))
# --8<-- [end:packed]

# --8<-- [start:packed_wrong]
# head by head: q, k, v of head 0, then of head 1
heads = torch.stack([W_Q, W_K, W_V], dim=1).mT  # (H, 3, D, E)
assert heads.reshape(3 * E, E).shape == in_proj_weight.shape
assert not torch.allclose(heads.reshape(3 * E, E), in_proj_weight)
# no transpose: the numbers fit, in another order
poured = torch.cat([W.reshape(E, E) for W in (W_Q, W_K, W_V)])
assert not torch.allclose(poured, in_proj_weight)
# --8<-- [end:packed_wrong]
# the layer with the rows head by head: the query that it takes for head 1's is the key of head 0
assert torch.equal(heads.reshape(3 * E, E)[D : 2 * D].T, W_K[0])  # guard: key_for_query
exercise(
    "packed",
    in_proj_weight,
    by_head=heads.reshape(3 * E, E),
    poured=poured,
    in_turn=torch.cat([W.permute(2, 0, 1).reshape(E, E) for W in (W_Q, W_K, W_V)]),
    keys_first=torch.cat([blocks[1], blocks[0], blocks[2]]),
    values_first=torch.cat([blocks[2], blocks[1], blocks[0]]),
    transposed=torch.cat([block.T for block in blocks]),
)

# --8<-- [start:order_try]
order = [2, 0, 3, 1]
shuffled = packed.view(3, H, D, E)[:, order].reshape(3 * E, E)
out_proj_weight = None  # (E, E)
check("order", out_proj_weight)
# --8<-- [end:order_try]

# --8<-- [start:order]
def layer(in_proj, in_bias, out_proj):
    """The module with these parameters, as a function of x."""
    other = nn.MultiheadAttention(E, H, batch_first=True).double()
    other.load_state_dict({
        "in_proj_weight": in_proj,
        "in_proj_bias": in_bias,
        "out_proj.weight": out_proj,
        "out_proj.bias": mha.out_proj.bias,
    })
    return lambda x: other(x, x, x)[0]


shuffled_bias = bias.view(3, H, D)[:, order].flatten()
# what head i puts out is read by columns: they move alike
columns = mha.out_proj.weight.view(E, H, D)[:, order]
out_proj_weight = columns.reshape(E, E)
mended = layer(shuffled, shuffled_bias, out_proj_weight)
torch.testing.assert_close(mended(x), out)
# --8<-- [end:order]

# --8<-- [start:order_wrong]
forgotten = layer(shuffled, shuffled_bias, mha.out_proj.weight)(x)
assert not torch.allclose(forgotten, out)
# rows of out_proj.weight are outputs, and no head's
rows = mha.out_proj.weight.view(H, D, E)[order].reshape(E, E)
by_rows = layer(shuffled, shuffled_bias, rows)(x)
assert not torch.allclose(by_rows, out)
# the way back instead of the way there
back = [order.index(i) for i in range(H)]
way_back = mha.out_proj.weight.view(E, H, D)[:, back].reshape(E, E)
undone = layer(shuffled, shuffled_bias, way_back)(x)
assert not torch.allclose(undone, out)
print(order, back)
# --8<-- [end:order_wrong]
swapped = torch.tensor([1, 0, 3, 2])
assert torch.equal(swapped.argsort(), swapped)  # guard: an_order_that_undoes_itself
exercise("order", out_proj_weight, forgotten=mha.out_proj.weight, rows=rows, way_back=way_back)

# --8<-- [start:batch_try]
# the same parameters, without batch_first
late = nn.MultiheadAttention(E, H).double().eval()
late.load_state_dict(mha.state_dict())
y = None  # (B, L, E), what late makes of x
check("batch", y)
# --8<-- [end:batch_try]

# --8<-- [start:batch]
# (B, L, E) -> (L, B, E), and back
t = x.transpose(0, 1)
y = late(t, t, t)[0].transpose(0, 1)
torch.testing.assert_close(y, out)
print(tuple(t.shape), tuple(y.shape))
# --8<-- [end:batch]

# --8<-- [start:batch_wrong]
# nothing raises: B tokens, and L samples
as_it_is, seen = late(x, x, x)
assert as_it_is.shape == out.shape
assert not torch.allclose(as_it_is, out)
print("weights", tuple(seen.shape))
# reshape has the right shape, and mixes the samples
t = x.reshape(L, B, E)
poured = late(t, t, t)[0].reshape(B, L, E)
assert not torch.allclose(poured, out)
# --8<-- [end:batch_wrong]
# token j of all samples attends to token j of all samples: the batch as a sequence
across = mha(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1)
torch.testing.assert_close(as_it_is, across)  # guard: samples_attend_to_one_another
exercise("batch", y, as_it_is=as_it_is, poured=poured, not_back=y.transpose(0, 1))

# --8<-- [start:widths_try]
torch.manual_seed(2)
cross = nn.MultiheadAttention(E, H, kdim=10, vdim=14, batch_first=True)
cross = cross.double().eval().requires_grad_(False)
nn.init.normal_(cross.in_proj_bias, std=0.5)
keys = torch.randn(B, S, 10, dtype=torch.float64)
print(tuple(cross.k_proj_weight.shape), tuple(cross.in_proj_bias.shape))
K_1 = None  # (B, S, D), the keys of head 1
check("widths", K_1)
# --8<-- [end:widths_try]

# --8<-- [start:widths]
# weights apart, (E, kdim); the bias is packed as ever, (3E,)
W_1_K = cross.k_proj_weight[D : 2 * D].T
K_1 = keys @ W_1_K + cross.in_proj_bias[E + D : E + 2 * D]
values = torch.randn(B, S, 14, dtype=torch.float64)
_, maps = cross(x, keys, values, average_attn_weights=False)
b_1_Q = cross.in_proj_bias[D : 2 * D]
q = x @ cross.q_proj_weight[D : 2 * D].T + b_1_Q
A_1 = (q @ K_1.mT / D**0.5).softmax(-1)
torch.testing.assert_close(A_1, maps[:, 1])
print(tuple(W_1_K.shape), tuple(K_1.shape))
# --8<-- [end:widths]

# --8<-- [start:widths_wrong]
# the bias of the queries: the first E of 3E
of_query = keys @ W_1_K + b_1_Q
assert not torch.allclose(of_query, K_1)
# --8<-- [end:widths_wrong]
assert cross.in_proj_weight is None  # guard: no_packed_matrix
exercise(
    "widths",
    K_1,
    query_bias=of_query,
    no_bias=keys @ W_1_K,
    in_turn=keys @ cross.k_proj_weight[1::H].T + cross.in_proj_bias[E + 1 : 2 * E : H],
    head_0=keys @ cross.k_proj_weight[:D].T + cross.in_proj_bias[E : E + D],
)

# --8<-- [start:scale_try]
# (3E, E) and (3E,), for a kernel that divides by nothing
folded = None  # a pair: weight, bias
check("scale", folded)
# --8<-- [end:scale_try]

# --8<-- [start:scale]
# 1 / sqrt(D) goes into the queries: weight and bias
factor = torch.ones(3 * E, dtype=torch.float64)
factor[:E] = D**-0.5
folded = packed * factor[:, None], bias * factor
q, k, v = (
    (x @ folded[0].T + folded[1])
    .unflatten(-1, (3, H, D))
    .permute(2, 0, 3, 1, 4)
)  # (B, H, L, D) each
torch.testing.assert_close((q @ k.mT).softmax(-1), weights)
# --8<-- [end:scale]

# --8<-- [start:scale_wrong]
# the weight alone: what the bias adds is sqrt(D) times too large
q = (x @ folded[0].T + bias)[..., :E].unflatten(-1, (H, D))
forgotten = (q.transpose(1, 2) @ k.mT).softmax(-1)
assert not torch.allclose(forgotten, weights)
print(f"off by {(forgotten - weights).abs().max():.2f}")
# --8<-- [end:scale_wrong]
both = torch.cat([factor[:E], factor[:E], factor[2 * E :]])
exercise(
    "scale",
    folded,
    bias_forgotten=(folded[0], bias),
    both=(packed * both[:, None], bias * both),
    width=(packed * torch.where(factor < 1, E**-0.5, 1.0)[:, None], bias * torch.where(factor < 1, E**-0.5, 1.0)),
    everything=(packed * D**-0.5, bias * D**-0.5),
    no_root=(packed * factor[:, None] ** 2, bias * factor**2),
)

for expected, told in outcomes():
    assert told == expected  # guard: every_answer_is_told
