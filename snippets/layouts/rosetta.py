# --8<-- [start:setup]
import torch
from torch import nn

torch.manual_seed(0)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
mha = nn.MultiheadAttention(E, H, batch_first=True, dtype=torch.float64)
mha.requires_grad_(False)
for parameter in mha.parameters():
    parameter.normal_(std=0.5)
# (B, L, E)
x = torch.randn(B, L, E, dtype=torch.float64)
# --8<-- [end:setup]

# --8<-- [start:parameters]
for name, parameter in mha.named_parameters():
    print(f"{name:16} {tuple(parameter.shape)}")
# --8<-- [end:parameters]

# --8<-- [start:slices]
# rows of in_proj_weight; for O, columns of out_proj.weight
print("head  Q      K      V      O")
spans = []
for i in range(H):
    starts = i * D, E + i * D, 2 * E + i * D, i * D
    spans.append([f"{first}:{first + D}" for first in starts])
    row = "  ".join(f"{span:5}" for span in spans[i])
    print(f"{i:<6}{row}".rstrip())
# --8<-- [end:slices]

# --8<-- [start:to_paper]
w = mha.in_proj_weight
w_q, w_k, w_v, w_o = [], [], [], []
for i in range(H):
    # each (E, D)
    w_q.append(w[i * D : (i + 1) * D].T)
    w_k.append(w[E + i * D : E + (i + 1) * D].T)
    w_v.append(w[2 * E + i * D : 2 * E + (i + 1) * D].T)
    # (D, E)
    w_o.append(mha.out_proj.weight[:, i * D : (i + 1) * D].T)
# three of (H, D): one bias for each column of W_i
b_q, b_k, b_v = mha.in_proj_bias.view(3, H, D)
b_o = mha.out_proj.bias
# --8<-- [end:to_paper]
# a window on the parameter: row 2 and column 3 of head 1's matrices, each at the address of its entry there
for start, matrices in ((0, w_q), (E, w_k), (2 * E, w_v)):
    assert matrices[1][2, 3].data_ptr() == w[start + D + 3, 2].data_ptr()  # guard: nothing_copied
assert w_o[1][2, 3].data_ptr() == mha.out_proj.weight[3, D + 2].data_ptr()  # guard: nothing_copied_of_outputs
cut_out = sum(matrix.numel() for matrix in [*w_q, *w_k, *w_v, *w_o])
assert cut_out == mha.in_proj_weight.numel() + mha.out_proj.weight.numel()  # guard: nothing_left_over

# for each block of the picture: whose it is, where it lies, and the matrix that the section above cut out for it
cut = {"Q": w_q, "K": w_k, "V": w_v}
packed_groups, per_head_groups, code = [], {}, {}
for t, letter in enumerate(cut):
    per_head_groups[f"W^{letter}"] = []
    for i in range(H):
        first = t * E + i * D
        block = {"role": letter.lower(), "head": i, "text": f"W_{i}^{letter}", "of": cut[letter][i]}
        packed_groups.append({**block, "rows": [first, first + D]})
        per_head_groups[f"W^{letter}"].append({**block, "columns": [i * D, (i + 1) * D]})
        code[block["text"]] = f"in_proj_weight[{first}:{first + D}].T"
merged_groups, paper_merged_groups = [], []
for i in range(H):
    span, block = [i * D, (i + 1) * D], {"role": "o", "head": i, "text": f"W_{i}^O", "of": w_o[i]}
    merged_groups.append({**block, "columns": span})
    paper_merged_groups.append({**block, "rows": span})
    code[block["text"]] = f"out_proj.weight[:, {span[0]}:{span[1]}].T"
figure(  # guard: map_blocks
    "rosetta",
    "blocks",
    {
        "in_proj_weight": mha.in_proj_weight,
        **{f"W^{letter}": torch.cat(matrices, dim=1) for letter, matrices in cut.items()},
        "out_proj.weight": mha.out_proj.weight,
        "W^O": torch.cat(w_o),
    },
    labels={
        "groups": {
            "in_proj_weight": packed_groups,
            **per_head_groups,
            "out_proj.weight": merged_groups,
            "W^O": paper_merged_groups,
        },
        "code": code,
    },
)

# --8<-- [start:paper]
heads, weights = [], []
for i in range(H):
    q = x @ w_q[i] + b_q[i]
    k = x @ w_k[i] + b_k[i]
    v = x @ w_v[i] + b_v[i]
    a = (q @ k.mT / D**0.5).softmax(-1)
    weights.append(a)
    heads.append(a @ v)
# (B, L, E) @ (E, E)
out = torch.cat(heads, -1) @ torch.cat(w_o)
out = out + b_o
# --8<-- [end:paper]

# --8<-- [start:torch]
y, y_weights = mha(
    x, x, x, average_attn_weights=False
)
per_head = torch.stack(weights, 1)
shapes = out.shape, per_head.shape
print(*map(tuple, shapes))
torch.testing.assert_close(out, y)
torch.testing.assert_close(
    per_head, y_weights
)
# --8<-- [end:torch]
# every label of the picture, taken at its word: the block that it names, in the paper's formula, gives PyTorch's result
named = {block["text"]: mha.in_proj_weight[slice(*block["rows"])].T for block in packed_groups}
named |= {block["text"]: mha.out_proj.weight[:, slice(*block["columns"])].T for block in merged_groups}
total = b_o
for i in range(H):
    q, k, v = (x @ named[f"W_{i}^{letter}"] + bias[i] for letter, bias in zip("QKV", (b_q, b_k, b_v), strict=True))
    a = (q @ k.mT / D**0.5).softmax(-1)
    torch.testing.assert_close(a, y_weights[:, i])  # guard: labels_of_queries_and_keys
    total = total + a @ v @ named[f"W_{i}^O"]
torch.testing.assert_close(total, y)  # guard: labels_of_values_and_outputs
digit, power = f"{(out - y).abs().max():.0e}".split("e")
raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
show("max_error", f"{digit}×10{raised}")

# --8<-- [start:to_torch]
# (3E, E): rows of q head by head, then k, then v
packed = torch.cat([m.T for m in [*w_q, *w_k, *w_v]])
# (E, E): columns head by head
merged = torch.cat([m.T for m in w_o], dim=1)
# (3E,)
bias = torch.cat([b_q, b_k, b_v]).flatten()

assert torch.equal(packed, mha.in_proj_weight)
assert torch.equal(merged, mha.out_proj.weight)
assert torch.equal(bias, mha.in_proj_bias)
print(tuple(packed.shape), tuple(merged.shape), tuple(bias.shape))
# --8<-- [end:to_torch]
# the spans as they were printed, and those of the biases, each cut out of a copy
for i in range(H):
    *of_rows, of_columns = (slice(*map(int, span.split(":"))) for span in spans[i])
    for rows, matrix, vector in zip(of_rows, (w_q[i], w_k[i], w_v[i]), (b_q[i], b_k[i], b_v[i]), strict=True):
        assert torch.equal(packed[rows].T, matrix)  # guard: printed_rows
        assert torch.equal(bias[rows], vector)  # guard: bias_rows
    assert torch.equal(merged[:, of_columns].T, w_o[i])  # guard: printed_columns

# --8<-- [start:load]
other = nn.MultiheadAttention(
    E, H, batch_first=True, dtype=torch.float64
)
state = {
    "in_proj_weight": packed,
    "in_proj_bias": bias,
    "out_proj.weight": merged,
    "out_proj.bias": b_o,
}
print(other.load_state_dict(state))
torch.testing.assert_close(other(x, x, x)[0], y)
# --8<-- [end:load]

# --8<-- [start:bias_once]
# H of (B, L, E)
parts = [heads[i] @ w_o[i] for i in range(H)]
once = sum(parts) + b_o
each = sum(part + b_o for part in parts)
torch.testing.assert_close(once, y)
assert not torch.allclose(each, y)
torch.testing.assert_close(each - once, (H - 1) * b_o.expand_as(y))
# --8<-- [end:bias_once]

# --8<-- [start:kdim]
kdim, vdim = 10, 14
cross = nn.MultiheadAttention(
    E, H, kdim=kdim, vdim=vdim, batch_first=True, dtype=torch.float64
).requires_grad_(False)
for name, parameter in cross.named_parameters():
    parameter.normal_(std=0.5)
    print(f"{name:16} {tuple(parameter.shape)}")
print(f"in_proj_weight   {cross.in_proj_weight}")

only_vdim = nn.MultiheadAttention(E, H, vdim=vdim)
print(*(name for name in only_vdim.state_dict() if "_proj_" in name))
# --8<-- [end:kdim]
assert cross.in_proj_weight is None  # guard: no_packed_matrix
assert only_vdim.in_proj_weight is None  # guard: one_is_enough
assert "in_proj_weight" not in dict(only_vdim.named_parameters())  # guard: a_filter_finds_nothing
assert "q_proj_weight" not in dict(mha.named_parameters())  # guard: no_matrix_to_freeze
# a width that is embed_dim all the same changes nothing
assert nn.MultiheadAttention(E, H, kdim=E, vdim=E).in_proj_weight is not None  # guard: width_as_usual

# --8<-- [start:kdim_heads]
key = torch.randn(B, S, kdim, dtype=torch.float64)
value = torch.randn(B, S, vdim, dtype=torch.float64)
b_q, b_k, b_v = cross.in_proj_bias.view(3, H, D)
total = cross.out_proj.bias
for i in range(H):
    part = slice(i * D, (i + 1) * D)
    # (E, D), (kdim, D), (vdim, D), (D, E): no offset E or 2E
    q = x @ cross.q_proj_weight[part].T + b_q[i]
    k = key @ cross.k_proj_weight[part].T + b_k[i]
    v = value @ cross.v_proj_weight[part].T + b_v[i]
    a = (q @ k.mT / D**0.5).softmax(-1)
    total = total + a @ v @ cross.out_proj.weight[:, part].T
torch.testing.assert_close(total, cross(x, key, value)[0])
print(tuple(a.shape), tuple(total.shape))
# --8<-- [end:kdim_heads]

# --8<-- [start:kdim_round_trip]
# head by head, then back: (E, E), (E, kdim), (E, vdim)
for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
    matrix = getattr(cross, name)
    per_head = [rows.T for rows in matrix.split(D)]
    back = torch.cat([m.T for m in per_head])
    assert torch.equal(back, matrix)
    print(f"{name} {H} x {tuple(per_head[0].shape)}")
# --8<-- [end:kdim_round_trip]

# --8<-- [start:k_is_v]
# rows 2E:3E where E:2E belong
q_rows, k_rows, v_rows = packed.chunk(3)
wrong = torch.cat([q_rows, v_rows, v_rows])
print(other.load_state_dict({**state, "in_proj_weight": wrong}))
k_is_v = other(x, x, x)[0]
off = (k_is_v - y).abs().max()
print(tuple(k_is_v.shape), f"{off:.1f}")
assert not torch.allclose(k_is_v, y)
# --8<-- [end:k_is_v]
# the same by the paper's formula: keys through the values' matrices, with the keys' bias
b_q, b_k, b_v = mha.in_proj_bias.view(3, H, D)
total = b_o
for i in range(H):
    a = ((x @ w_q[i] + b_q[i]) @ (x @ w_v[i] + b_k[i]).mT / D**0.5).softmax(-1)
    total = total + a @ (x @ w_v[i] + b_v[i]) @ w_o[i]
torch.testing.assert_close(k_is_v, total)  # guard: keys_through_values
torch.testing.assert_close(torch.linalg.vector_norm(total - y, torch.inf), off)  # guard: k_is_v_off
show("k_is_v", f"{off:.1f}")

# --8<-- [start:wrong_slices]
i = 2
right = {"Q": w_q[i], "K": w_k[i], "O": w_o[i]}
q_block, o = packed[:E], merged
wrong_slices = {
    "Q": q_block.view(E, H, D)[:, i],  # (1)!
    "K": packed.view(H, 3, D, E)[i, 1].T,  # (2)!
    "O": o[i * D : (i + 1) * D],  # (3)!
}
for name, matrix in wrong_slices.items():
    assert matrix.shape == right[name].shape
    assert not torch.allclose(matrix, right[name])
    print(name, tuple(matrix.shape), tuple(right[name].shape))
# --8<-- [end:wrong_slices]
assert torch.equal(wrong_slices["Q"], w[:E, i * D : (i + 1) * D])  # guard: columns_for_rows
assert torch.equal(wrong_slices["K"], w_k[3])  # guard: key_of_another_head
assert torch.equal(wrong_slices["O"], torch.cat(w_o).T[i * D : (i + 1) * D])  # guard: rows_for_columns

# --8<-- [start:interleaved]
# q, k, v of head 0, then of head 1: (H, 3, D, E)
by_head = packed.view(3, H, D, E).transpose(0, 1)
bias_by_head = bias.view(3, H, D).transpose(0, 1)
theirs = {
    **state,
    "in_proj_weight": by_head.reshape(3 * E, E),
    "in_proj_bias": bias_by_head.flatten(),
}
print(other.load_state_dict(theirs))
mixed = other(x, x, x)[0]
assert not torch.allclose(mixed, y)
print(f"{(mixed - y).abs().max():.1f}")
# --8<-- [end:interleaved]
# read as if it were PyTorch's, the queries of heads 1 and 2 are the key and the value of head 0
read = other.in_proj_weight.unflatten(0, (3, H, D)).mT
assert torch.equal(read[0, 1], w_k[0])  # guard: key_for_query
assert torch.equal(read[0, 2], w_v[0])  # guard: value_for_query

# --8<-- [start:repaired]
weight, vector = theirs["in_proj_weight"], theirs["in_proj_bias"]
# (H, 3, D, E) -> (3, H, D, E), and the bias likewise
by_role = weight.view(H, 3, D, E).transpose(0, 1)
bias_by_role = vector.view(H, 3, D).transpose(0, 1)
repaired = by_role.reshape(3 * E, E)
repaired_bias = bias_by_role.flatten()
assert torch.equal(repaired, packed)
assert torch.equal(repaired_bias, bias)
# --8<-- [end:repaired]

# --8<-- [start:answer]
row = 41
block, rest = divmod(row, E)
head, column = divmod(rest, D)
print("row", row, "->", "qkv"[block], "head", head, "column", column)
assert torch.equal(packed[row], w_k[head][:, column])
# --8<-- [end:answer]
assert ("qkv"[block], head) == ("k", 2)  # guard: key_of_head_2

# --8<-- [start:answer_moved]
moved = packed.clone()
moved[row] += 0.5
other.load_state_dict({**state, "in_proj_weight": moved})
_, moved_weights = other(x, x, x, average_attn_weights=False)
# (H,): how far each head's attention weights moved
change = (moved_weights - y_weights).abs().amax((0, 2, 3))
print([f"{c:.2f}" for c in change.tolist()])
assert (change > 0.01).nonzero().flatten().tolist() == [head]
# --8<-- [end:answer_moved]
