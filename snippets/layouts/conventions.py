# --8<-- [start:setup]
import torch
import torch.nn.functional as F
from torch import nn

torch.set_printoptions(precision=4, sci_mode=False)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
x = torch.randn(L, E)
query = 0.4 * torch.randn(B, L, E)
# keys and values
context = 0.4 * torch.randn(B, S, E)
mha = nn.MultiheadAttention(E, H, batch_first=True)
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
mha.requires_grad_(False)
# --8<-- [end:setup]

# --8<-- [start:paper_map]
# the paper: y = x W
W = torch.randn(E, D) * 0.5
y_paper = x @ W
# (in, out)
print(f"W {tuple(W.shape)}")
# --8<-- [end:paper_map]

# --8<-- [start:torch_map]
# torch.nn.Linear: y = x W^T
linear = nn.Linear(E, D, bias=False)
linear.weight.data = W.T
y_torch = linear(x)
# (out, in)
shape = tuple(linear.weight.shape)
print(f"weight {shape}")
# --8<-- [end:torch_map]

figure(  # guard: transpose_blocks
    "transpose",
    "blocks",
    {"W": W, "weight": linear.weight},
    labels={
        "groups": {
            "W": [{"role": "q", "head": 0, "text": "(in, out)", "gives": y_torch}],
            "weight": [{"role": "q", "head": 0, "text": "(out, in)", "gives": y_paper}],
        },
        "code": {"(in, out)": "x @ W", "(out, in)": "F.linear(x, weight)"},
    },
)

# --8<-- [start:same_map]
torch.testing.assert_close(y_torch, y_paper)
torch.testing.assert_close(F.linear(x, W.T), x @ W)
# one token as a column: weight on the left
column = linear.weight @ x[3]
torch.testing.assert_close(column, y_paper[3])

# a weight that is not square refuses the other reading
try:
    F.linear(x, W)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("(in, out) passed for (out, in)")
# --8<-- [end:same_map]

# --8<-- [start:square]
W_o = torch.randn(E, E) * 0.5  # (in, out), square
right = nn.Linear(E, E, bias=False)
right.load_state_dict({"weight": W_o.T})
wrong = nn.Linear(E, E, bias=False)
print(wrong.load_state_dict({"weight": W_o}))

torch.testing.assert_close(right(x), x @ W_o)
assert wrong(x).shape == right(x).shape
assert not torch.allclose(wrong(x), right(x), atol=1.0)
# --8<-- [end:square]
torch.testing.assert_close(wrong(x), x @ W_o.T)  # guard: transposed_twice
assert mha.out_proj.weight.shape == W_o.shape  # guard: square_in_the_layer
assert {part.shape for part in mha.in_proj_weight.chunk(3)} == {W_o.shape}  # guard: square_thirds

# --8<-- [start:rows]
_, weights = mha(
    query, context, context, average_attn_weights=False
)
# (B, H, L, S)
print(f"weights {tuple(weights.shape)}")
row_sums, column_sums = weights.sum(-1), weights.sum(-2)
torch.testing.assert_close(row_sums, torch.ones(B, H, L))
assert not torch.allclose(
    column_sums, torch.ones(B, H, S), atol=0.5
)
print(f"rows {tuple(row_sums.shape)} {row_sums[0, 0, 0]:.4f}")
print(f"columns {tuple(column_sums.shape)}")
print(column_sums[0, 0])
# --8<-- [end:rows]
first, *rest = column_sums[0, 0]
assert first > 2 * max(rest)  # guard: first_column_largest

figure("map", "attention", {"weights": weights[0, 0]})

# --8<-- [start:direction]
_, weights = mha(
    query, query, query, average_attn_weights=False
)
A = weights[0, 0]  # (L, L): self-attention
a, b = 3, 1  # query a, key b
V = torch.randn(L, D)

# the value of b moves: a follows with A[a, b]
step = torch.randn(D)
V_moved = V.clone()
V_moved[b] += step
change = A @ V_moved - A @ V
torch.testing.assert_close(change[a], A[a, b] * step)
assert not torch.allclose(change[a], A[b, a] * step, atol=0.1)
print(f"A[a, b] {A[a, b]:.4f}")
print(f"A[b, a] {A[b, a]:.4f}")
# --8<-- [end:direction]
assert A[b, a] < 0.1 < 0.8 < A[a, b]  # guard: not_symmetric

figure("direction", "attention", {"A": A})
show("a_to_b", f"{A[a, b]:.2f}")
show("b_to_a", f"{A[b, a]:.2f}")

# --8<-- [start:letters]
output, weights = mha(
    query, context, context, average_attn_weights=False
)
assert output.shape == (B, L, E)
assert weights.shape == (B, H, L, S)
assert mha.in_proj_weight.shape == (3 * E, E)
assert mha.head_dim == D
assert H * D == E
print(f"B {B}  L {L}  S {S}  E {E}  H {H}  D {D}")
# --8<-- [end:letters]
assert len({B, L, S, E, H, D}) == len((B, L, S, E, H, D))  # guard: all_different
# (L, B, E) is what a module expects that is not told otherwise
usual = nn.MultiheadAttention(E, H)
usual.load_state_dict(mha.state_dict())
try:
    usual(query, context, context)  # guard: two_lengths_raise
except RuntimeError as error:
    assert "shape" in str(error)  # guard: about_shapes
else:
    raise AssertionError("queries and keys of two lengths went through")

# --8<-- [start:two_meanings]
other = 0.4 * torch.randn(B, L, E)
parameter = mha.in_proj_weight.clone()
_, first = mha(query, context, context)
_, second = mha(other, context, context)

# weight matrices: the same for every input
assert torch.equal(mha.in_proj_weight, parameter)
# attention weights: computed anew for every input
assert not torch.allclose(first, second, atol=0.1)
assert first.min() >= 0
assert mha.in_proj_weight.min() < 0
print(f"in_proj_weight {tuple(parameter.shape)}")
print(f"weights {tuple(first.shape)}")
# --8<-- [end:two_meanings]

# --8<-- [start:question]
# tokens as columns: (D, L) and (D, S)
Q_columns, K_columns = torch.randn(D, L), torch.randn(D, S)
# (S, L)
A_columns = (K_columns.T @ Q_columns / D**0.5).softmax(0)

Q, K = Q_columns.T, K_columns.T
A_rows = (Q @ K.T / D**0.5).softmax(-1)
torch.testing.assert_close(A_columns, A_rows.T)
torch.testing.assert_close(A_columns.sum(0), torch.ones(L))
print(f"A_columns {tuple(A_columns.shape)}")
print(f"A_rows {tuple(A_rows.shape)}")
# --8<-- [end:question]
