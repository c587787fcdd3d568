# --8<-- [start:setup]
import torch
import torch.nn.functional as F
from torch import nn

torch.set_printoptions(precision=4, sci_mode=False)
torch.manual_seed(55)
B, L, E, H = 1, 5, 4, 2
D = E // H
X = torch.randn(B, L, E)  # (1)!
mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
mha.eval().requires_grad_(False)
output, weights = mha(X, X, X, average_attn_weights=False)  # (2)!
print(f"X {tuple(X.shape)}")
print(f"output {tuple(output.shape)}")
print(f"weights {tuple(weights.shape)}")
# --8<-- [end:setup]
assert weights.shape == (B, H, L, L)  # guard: axis_of_heads

# --8<-- [start:one_multiplication]
W = mha.in_proj_weight  # (3E, E)
QKV = F.linear(X, W)  # X @ W.T, (B, L, 3E)
print(f"W {tuple(W.shape)}")
print(f"QKV {tuple(QKV.shape)}")

# rows 0-3, 4-7, 8-11
W_q, W_k, W_v = W.chunk(3)
# columns 0-3, 4-7, 8-11
Q, K, V = QKV.chunk(3, dim=-1)
torch.testing.assert_close(Q, X @ W_q.T)
torch.testing.assert_close(K, X @ W_k.T)
torch.testing.assert_close(V, X @ W_v.T)
for name, part in [("Q", Q), ("K", K), ("V", V)]:
    print(f"{name}\n{part[0]}")
# --8<-- [end:one_multiplication]

# --8<-- [start:cut_into_heads]
# (B, L, 3H, D), then (B, 3H, L, D)
slices = QKV.view(B, L, 3 * H, D).transpose(1, 2)
Q_0, Q_1, K_0, K_1, V_0, V_1 = slices.unbind(1)
print(f"slices {tuple(slices.shape)}")
print(f"Q_0 {tuple(Q_0.shape)}")

# X times D rows of W each, in the order of the rows
for n, part in enumerate([Q_0, Q_1, K_0, K_1, V_0, V_1]):
    rows = slice(n * D, (n + 1) * D)
    torch.testing.assert_close(part, X @ W[rows].T)
# a view: the same memory, nothing copied
assert Q_1.data_ptr() == QKV[..., 2:4].data_ptr()  # (1)!
# --8<-- [end:cut_into_heads]

# every block of the picture: whose it is, where it lies, and the matrix that the sections above cut out for it
by_role = {"q": (W_q, [Q_0, Q_1]), "k": (W_k, [K_0, K_1]), "v": (W_v, [V_0, V_1])}
row_blocks, slice_blocks = [], []
for n, (role, (rows, of_heads)) in enumerate(by_role.items()):
    for i in range(H):
        first, letter = n * E + i * D, role.upper()
        block = {"columns": [first, first + D], "role": role, "head": i}
        row_blocks.append({**block, "text": f"W_{i}^{letter}", "of": rows[i * D : (i + 1) * D]})
        slice_blocks.append({**block, "text": f"{letter}_{i}", "of": of_heads[i][0]})
figure(  # guard: projection_blocks
    "projection",
    "matrix",
    {"X": X[0], "in_proj_weight.T": W.T, "QKV": QKV[0]},
    labels={
        "operators": ["@", "="],
        "digits": 2,
        "groups": {"X": [{"role": "x"}], "in_proj_weight.T": row_blocks, "QKV": slice_blocks},
    },
)

# --8<-- [start:every_head]
scores_0 = Q_0 @ K_0.mT / D**0.5  # (B, L, L)
scores_1 = Q_1 @ K_1.mT / D**0.5
A_0 = scores_0.softmax(dim=-1)  # (1)!
A_1 = scores_1.softmax(dim=-1)

torch.testing.assert_close(A_0, weights[:, 0])
torch.testing.assert_close(A_1, weights[:, 1])
print(f"head 0\n{A_0[0]}")
print(f"head 1\n{A_1[0]}")
# --8<-- [end:every_head]
assert not torch.allclose(A_0, A_1, atol=0.1)  # guard: heads_apart
assert weights[0, :, 0].argmax(-1).tolist() == [2, 3]  # guard: largest_of_row_0

figure("heads", "attention", {"weights": weights[0]})

# --8<-- [start:output]
head_0 = A_0 @ V_0  # (B, L, D)
head_1 = A_1 @ V_1
# (B, L, E)
concat = torch.cat([head_0, head_1], dim=-1)
# concat @ out_proj.weight.T
by_hand = F.linear(concat, mha.out_proj.weight)

torch.testing.assert_close(by_hand, output, rtol=0, atol=1e-6)
print(f"concat {tuple(concat.shape)}")
print(f"by_hand\n{by_hand[0]}")
# --8<-- [end:output]

nodes = [
    ("X", X, 1, 0, "x"),
    ("F.linear", QKV, 1, 1, None),
    ("view, transpose", slices, 1, 2, None),
    ("Q_i", Q_0, 0, 3, "q"),
    ("K_i", K_0, 1, 3, "k"),
    ("V_i", V_0, 2, 3, "v"),
    ("softmax", A_0, 0.5, 4, None),
    ("A_i @ V_i", head_0, 1, 5, None),
    ("cat", concat, 1, 6, None),
    ("out_proj", by_hand, 1, 7, "o"),
]
edges = """X>F.linear F.linear>view,transpose view,transpose>Q_i view,transpose>K_i view,transpose>V_i
Q_i>softmax K_i>softmax softmax>A_i@V_i V_i>A_i@V_i A_i@V_i>cat cat>out_proj"""
figure(
    "shapes",
    "flow",
    {},
    labels={
        "nodes": [
            {"id": text.replace(" ", ""), "text": text, "shape": str(tuple(tensor.shape)), "column": column, "row": row}
            | ({"role": role} if role else {})
            for text, tensor, column, row, role in nodes
        ],
        "edges": [edge.split(">") for edge in edges.split()],
    },
)

# --8<-- [start:paper]
W_o = mha.out_proj.weight.T  # (E, E)
heads = []
for i in range(H):
    rows = slice(i * D, (i + 1) * D)
    # X @ W_i^Q, W_i^Q of shape (E, D)
    Q_i = X @ W_q[rows].T
    K_i = X @ W_k[rows].T
    V_i = X @ W_v[rows].T
    scores = Q_i @ K_i.mT / D**0.5
    heads.append(scores.softmax(-1) @ V_i)
paper = torch.cat(heads, dim=-1) @ W_o
# --8<-- [end:paper]

# --8<-- [start:pytorch]
qkv = F.linear(X, mha.in_proj_weight)
qkv = qkv.view(B, L, 3, H, D)
# three of (B, H, L, D)
q, k, v = qkv.permute(2, 0, 3, 1, 4)
scores = q @ k.mT / D**0.5
A = scores.softmax(-1)  # (B, H, L, L)
# (B, L, H, D)
merged = (A @ v).transpose(1, 2)
merged = merged.reshape(B, L, E)
packed = F.linear(
    merged, mha.out_proj.weight
)
# --8<-- [end:pytorch]

# --8<-- [start:same_function]
assert torch.allclose(paper, output, rtol=0, atol=1e-6)
assert torch.allclose(packed, output, rtol=0, atol=1e-6)
torch.testing.assert_close(A, weights)
print(f"paper {tuple(paper.shape)}")
print(f"packed {tuple(packed.shape)}")
# --8<-- [end:same_function]

# --8<-- [start:mean_over_heads]
same_output, mean = mha(X, X, X)  # (1)!
print(f"weights {tuple(weights.shape)}")
print(f"mean {tuple(mean.shape)}")
torch.testing.assert_close(mean, weights.mean(dim=1))
torch.testing.assert_close(same_output, output)

# the output again, every head with the mean
from_mean = (mean.unsqueeze(1) @ v).transpose(1, 2)
from_mean = from_mean.reshape(B, L, E) @ W_o
assert not torch.allclose(from_mean, output, atol=1e-2)
mean_error = (from_mean - output).abs().max()
print(f"mean_error {mean_error:.4f}")
# --8<-- [end:mean_over_heads]
# the same by hand, with the values of each head
with_mean = torch.cat([mean @ V_0, mean @ V_1], dim=-1) @ W_o
torch.testing.assert_close(from_mean, with_mean)  # guard: mean_in_every_head
largest = output.abs().max()
assert max(abs(number) for number in output.flatten().tolist()) == largest  # guard: largest_output
assert mean_error > largest / 20  # guard: not_rounding
show("mean_error", f"{mean_error:.3f}")
show("largest_output", f"{largest:.3f}")

# --8<-- [start:view_without_transpose]
right = Q.view(B, L, H, D).transpose(1, 2)
try:
    Q.view(B, H, L, D)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("view accepted a chunk")

advised = Q.reshape(B, H, L, D)  # (1)!
assert advised.shape == right.shape
assert not torch.allclose(advised, right, atol=0.1)
print(f"right {tuple(right.shape)}\n{right[0, 0]}")
print(f"advised {tuple(advised.shape)}\n{advised[0, 0]}")
# --8<-- [end:view_without_transpose]
# token by token, columns 0 and 1 of Q
torch.testing.assert_close(right[0, 0], X[0] @ W[0:2].T)  # guard: right_rows
# head 1's query of token 0 in the place of head 0's query of token 1
torch.testing.assert_close(advised[0, 0, 1], Q_1[0, 0])  # guard: posing_row

# --8<-- [start:merging]
per_head = A @ v  # (B, H, L, D)
try:
    per_head.transpose(1, 2).view(B, L, E)
except RuntimeError as error:
    print(type(error).__name__)
else:
    raise AssertionError("view accepted a transposed tensor")

right_merge = per_head.transpose(1, 2).reshape(B, L, E)
torch.testing.assert_close(right_merge, concat)
silent = per_head.view(B, L, E)  # (1)!
assert silent.shape == right_merge.shape
assert not torch.allclose(silent, right_merge, atol=0.1)
print(f"silent {tuple(silent.shape)}")
# --8<-- [end:merging]
assert per_head.is_contiguous()  # guard: fresh_product
# a row is two tokens of one head, not two heads of one token
torch.testing.assert_close(silent[0, 0], head_0[0, :2].flatten())  # guard: merged_tokens

# --8<-- [start:question]
def attend(X, transpose):
    shape = (B, L, H, D) if transpose else (B, H, L, D)
    parts = F.linear(X, W).chunk(3, dim=-1)
    parts = [part.reshape(shape) for part in parts]
    if transpose:
        parts = [part.transpose(1, 2) for part in parts]
    q, k, v = parts
    out = (q @ k.mT / D**0.5).softmax(-1) @ v
    out = out.transpose(1, 2) if transpose else out
    return out.reshape(B, L, E) @ W_o


order = torch.tensor([3, 0, 4, 1, 2])
right = attend(X, transpose=True)[:, order]
wrong = attend(X, transpose=False)[:, order]
X_moved = X[:, order]
torch.testing.assert_close(attend(X_moved, True), right)
assert not torch.allclose(attend(X_moved, False), wrong, atol=0.1)
print(attend(X_moved, False)[0, 0])
print(wrong[0, 0])
# --8<-- [end:question]

# --8<-- [start:order_of_drawing]
torch.manual_seed(55)
later = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
X_later = torch.randn(B, L, E)
assert not torch.allclose(X_later, X, atol=0.1)
assert not torch.allclose(later.in_proj_weight, W, atol=0.1)
print(X_later[0, 0])
print(X[0, 0])
# --8<-- [end:order_of_drawing]
