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
output, weights = mha(X, X, X, average_attn_weights=False)
print(f"X {tuple(X.shape)}")
print(f"output {tuple(output.shape)}")
print(f"weights {tuple(weights.shape)}")
# --8<-- [end:setup]

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
Q_1, Q_2, K_1, K_2, V_1, V_2 = slices.unbind(1)
print(f"slices {tuple(slices.shape)}")
print(f"Q_1 {tuple(Q_1.shape)}")

# head 1: the first D rows of a block
torch.testing.assert_close(Q_1, X @ W[0:2].T)
torch.testing.assert_close(K_1, X @ W[4:6].T)
torch.testing.assert_close(V_1, X @ W[8:10].T)
# head 2: the next D rows
torch.testing.assert_close(Q_2, X @ W[2:4].T)
torch.testing.assert_close(K_2, X @ W[6:8].T)
torch.testing.assert_close(V_2, X @ W[10:12].T)
# a view: the same memory, nothing copied
assert Q_2.data_ptr() == QKV[..., 2:4].data_ptr()  # (1)!
# --8<-- [end:cut_into_heads]

by_name = {"Q": (W_q, Q_1, Q_2), "K": (W_k, K_1, K_2), "V": (W_v, V_1, V_2)}
columns = [
    {"columns": [n * E + i * D, n * E + (i + 1) * D], "role": name.lower(), "head": i, "name": name}
    for n, name in enumerate(by_name)
    for i in range(H)
]


def labelled(group, template, of):
    """A block of columns with its text and the matrix that it is said to be."""
    name, i = group["name"], group["head"]
    kept = {key: value for key, value in group.items() if key != "name"}
    return {**kept, "text": template.format(name=name, i=i + 1), "of": of(by_name[name], i)}


figure(
    "projection",
    "matrix",
    {"X": X[0], "in_proj_weight.T": W.T, "QKV": QKV[0]},
    labels={
        "operators": ["@", "="],
        "digits": 2,
        "groups": {
            "X": [{"role": "x"}],
            "in_proj_weight.T": [
                labelled(group, "W_{i}^{name}", lambda of, i: of[0][i * D : (i + 1) * D].T) for group in columns
            ],
            "QKV": [labelled(group, "{name}_{i}", lambda of, i: of[1 + i][0]) for group in columns],
        },
    },
)

# --8<-- [start:every_head]
scores_1 = Q_1 @ K_1.mT / D**0.5  # (B, L, L)
scores_2 = Q_2 @ K_2.mT / D**0.5
A_1 = scores_1.softmax(dim=-1)  # (1)!
A_2 = scores_2.softmax(dim=-1)

torch.testing.assert_close(A_1, weights[:, 0])
torch.testing.assert_close(A_2, weights[:, 1])
assert not torch.allclose(A_1, A_2)
print(f"head 1\n{A_1[0]}")
print(f"head 2\n{A_2[0]}")
# --8<-- [end:every_head]

figure("heads", "attention", {"weights": weights[0]})

# --8<-- [start:output]
head_1 = A_1 @ V_1  # (B, L, D)
head_2 = A_2 @ V_2
# (B, L, E)
concat = torch.cat([head_1, head_2], dim=-1)
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
    ("Q_i", Q_1, 0, 3, "q"),
    ("K_i", K_1, 1, 3, "k"),
    ("V_i", V_1, 2, 3, "v"),
    ("softmax", A_1, 0.5, 4, None),
    ("A_i @ V_i", head_1, 1, 5, None),
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
    A_i = Q_i @ K_i.mT / D**0.5
    heads.append(A_i.softmax(-1) @ V_i)
paper = torch.cat(heads, dim=-1) @ W_o
# --8<-- [end:paper]

# --8<-- [start:pytorch]
qkv = F.linear(X, mha.in_proj_weight)
qkv = qkv.view(B, L, 3, H, D)
# three of (B, H, L, D)
q, k, v = qkv.permute(2, 0, 3, 1, 4)
A = q @ k.mT / D**0.5  # (B, H, L, L)
A = A.softmax(-1)
# (B, L, H, D)
merged = (A @ v).transpose(1, 2)
merged = merged.reshape(B, L, E)
packed = F.linear(merged, mha.out_proj.weight)
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

show("mean_error", f"{mean_error:.3f}")
show("largest_output", f"{output.abs().max():.3f}")

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
