# --8<-- [start:setup]
import torch
from torch import nn

torch.set_printoptions(precision=4, sci_mode=False)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
L, E, H = 4, 6, 2
D = E // H
X = torch.randn(L, E)
# (H, E, D): W_q[i] is one head's matrix
W_q = torch.randn(H, E, D) * 0.5
W_k = torch.randn(H, E, D) * 0.5
W_v = torch.randn(H, E, D) * 0.5
W_o = torch.randn(H * D, E) * 0.5
print(f"X {tuple(X.shape)}")
print(f"W_q[0] {tuple(W_q[0].shape)}")
print(f"W_o {tuple(W_o.shape)}")
# --8<-- [end:setup]

# --8<-- [start:one_projection]
# (L, E) @ (E, D): each of shape (L, D)
Q_0 = X @ W_q[0]
K_0 = X @ W_k[0]
V_0 = X @ W_v[0]
print(f"Q_0 {tuple(Q_0.shape)}\n{Q_0}")

# row 2 of Q_0 depends on row 2 of X alone
row = sum(X[2, e] * W_q[0, e] for e in range(E))
torch.testing.assert_close(Q_0[2], row)
# --8<-- [end:one_projection]
# every other row of X moved
moved = X + (torch.arange(L) != 2)[:, None]
torch.testing.assert_close((moved @ W_q[0])[2], Q_0[2])  # guard: one_row_from_one_row
assert not torch.allclose((moved @ W_q[0])[3], Q_0[3], atol=0.1)  # guard: the_other_rows_move

figure(  # guard: projection_blocks
    "projection",
    "matrix",
    {"X": X, "W_q[0]": W_q[0], "Q_0": Q_0},
    labels={
        "operators": ["@", "="],
        "groups": {
            "X": [{"role": "x"}],
            "W_q[0]": [{"role": "q", "head": 0, "text": "W_0^Q"}],
            "Q_0": [{"role": "q", "head": 0, "text": "Q_0", "of": torch.einsum("le,ed->ld", X, W_q[0])}],
        },
    },
)

# --8<-- [start:scores]
scores_0 = Q_0 @ K_0.T / D**0.5  # (L, L)
print(f"scores_0 {tuple(scores_0.shape)}\n{scores_0}")

# row 3, column 1: query 3 against key 1
entry = (Q_0[3] * K_0[1]).sum() / D**0.5
torch.testing.assert_close(scores_0[3, 1], entry)
# the other direction is another number
other = (Q_0[1] * K_0[3]).sum() / D**0.5
torch.testing.assert_close(scores_0[1, 3], other)
assert not torch.allclose(entry, other, atol=0.1)
# --8<-- [end:scores]

# --8<-- [start:softmax]
A_0 = scores_0.softmax(dim=-1)
print(f"A_0 {tuple(A_0.shape)}\n{A_0}")

exp = scores_0.exp()
by_hand = exp / exp.sum(dim=-1, keepdim=True)
torch.testing.assert_close(A_0, by_hand)
# each row sums to 1
torch.testing.assert_close(A_0.sum(dim=-1), torch.ones(L))
# --8<-- [end:softmax]
assert not torch.allclose(A_0.sum(dim=0), torch.ones(L), atol=0.1)  # guard: columns_need_not

# --8<-- [start:head]
head_0 = A_0 @ V_0  # (L, D)
print(f"head_0 {tuple(head_0.shape)}\n{head_0}")

# row 0: the values, weighted by row 0 of A_0
mean = sum(A_0[0, j] * V_0[j] for j in range(L))
torch.testing.assert_close(head_0[0], mean)
# --8<-- [end:head]

# --8<-- [start:multi_head]
def attention(Q, K, V):
    A = (Q @ K.mT / Q.shape[-1] ** 0.5).softmax(-1)
    return A @ V, A


def multi_head(Q, K, V):
    heads, maps = [], []
    for i in range(H):
        head, A = attention(Q @ W_q[i], K @ W_k[i], V @ W_v[i])
        heads.append(head)
        maps.append(A)
    concat = torch.cat(heads, dim=-1)  # (L, H * D)
    return concat @ W_o, torch.stack(maps)
# --8<-- [end:multi_head]


# --8<-- [start:concat_and_mix]
output, maps = multi_head(X, X, X)  # (1)!
print(f"maps {tuple(maps.shape)}")
print(f"output {tuple(output.shape)}\n{output}")
torch.testing.assert_close(maps[0], A_0)
assert not torch.allclose(maps[0], maps[1], atol=0.1)

# D rows of W_o belong to one head
head_1 = maps[1] @ X @ W_v[1]
by_heads = head_0 @ W_o[:D] + head_1 @ W_o[D:]
torch.testing.assert_close(output, by_heads)
# --8<-- [end:concat_and_mix]

figure("maps", "attention", {"maps": maps})

# --8<-- [start:one_step]
# W_i^Q, straight from X
W_i = W_q[0]  # (E, D)
one = X @ W_i
# --8<-- [end:one_step]

# --8<-- [start:two_steps]
# W^Q first, W_i^Q after it
W = torch.randn(E, E) * 0.5
two = (X @ W) @ W_i
# --8<-- [end:two_steps]

# --8<-- [start:collapse]
# two in a row are one, with another matrix
merged = W @ W_i  # (E, D)
torch.testing.assert_close(two, X @ merged)
print(f"merged {tuple(merged.shape)}")

# W after X is not what the formula says
assert not torch.allclose(one, two, atol=0.1)
# and any W_i^Q can be had through an invertible W
inner = torch.linalg.solve(W, W_i)
torch.testing.assert_close((X @ W) @ inner, one)

# a W of rank 1 takes something away
thin = torch.outer(W[:, 0], W[0])
rank = torch.linalg.matrix_rank
print(f"rank {rank(W_i)} {rank(thin @ W_i)}")
assert rank(thin @ W_i) < rank(W_i)
# --8<-- [end:collapse]

# --8<-- [start:paper]
# Q = K = V = X: the layer's input
mine, my_maps = multi_head(X, X, X)
# --8<-- [end:paper]

# --8<-- [start:pytorch]
mha = nn.MultiheadAttention(
    E, H, bias=False
)
parts = [W_q, W_k, W_v]  # (H, E, D) each
rows = [W.mT.reshape(E, E) for W in parts]
stacked = torch.cat(rows)  # (3E, E)
with torch.no_grad():
    mha.in_proj_weight.copy_(stacked)
    mha.out_proj.weight.copy_(W_o.T)
# the layer's input, and nothing before it
theirs, their_maps = mha(
    X, X, X, average_attn_weights=False
)
# --8<-- [end:pytorch]

# --8<-- [start:what_enters]
torch.testing.assert_close(mine, theirs)
torch.testing.assert_close(my_maps, their_maps)
print(f"their_maps {tuple(their_maps.shape)}")

# projected once more beforehand: another function
twice, _ = mha(X @ W, X @ W, X @ W)
assert twice.shape == theirs.shape
assert not torch.allclose(twice, theirs, atol=0.1)
# --8<-- [end:what_enters]
torch.testing.assert_close(twice, multi_head(X @ W, X @ W, X @ W)[0])  # guard: projected_twice

# --8<-- [start:split_first]
# wrong: head i gets columns iD to (i+1)D of X only
small = torch.randn(D, D) * 0.5
split = X.view(L, H, D) @ small  # (L, H, D)
right = torch.stack([X @ W_q[i] for i in range(H)], dim=1)
assert split.shape == right.shape

# it is one matrix, with zeros off the diagonal
block = torch.block_diag(*[small] * H)
torch.testing.assert_close(split.flatten(1), X @ block)

# change the other half of X: head 1 must notice
X_changed = X.clone()
X_changed[:, D:] += 1.0
assert not torch.allclose(X_changed @ W_q[0], Q_0, atol=0.1)
blind = X_changed.view(L, H, D) @ small
assert torch.equal(blind[:, 0], split[:, 0])
print(f"split {tuple(split.shape)}")
# --8<-- [end:split_first]

# --8<-- [start:question]
def between(x):
    return torch.relu(x @ W) @ W_i


# linear: f(-x) = -f(x), whatever the matrix
torch.testing.assert_close((-X @ W) @ W_i, -two)
assert not torch.allclose(between(-X), -between(X), atol=0.1)
print((between(-X) + between(X))[0])
# --8<-- [end:question]
