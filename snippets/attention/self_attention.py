from torch.utils._python_dispatch import TorchDispatchMode

# --8<-- [start:setup]
import torch
from torch import nn

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
L, S, E, H = 7, 5, 24, 4
D = E // H


def attend(q, k, v):
    """q (..., L, d), k (..., S, d), v (..., S, d_v)."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return weights @ v, weights


X = 0.5 * torch.randn(L, E)
layer = nn.MultiheadAttention(E, H, batch_first=True)
for parameter in layer.parameters():
    nn.init.normal_(parameter, std=0.5)
layer.requires_grad_(False)
# --8<-- [end:setup]
show("spread", f"{layer.in_proj_weight.std():.1f}")

# --8<-- [start:same_input]
# transposed and cut: (E, E) each, for X @ W
W_Q, W_K, W_V = layer.in_proj_weight.T.chunk(3, dim=-1)
b_Q, b_K, b_V = layer.in_proj_bias.chunk(3)
# the same X three times, then (H, L, D)
q, k, v = X @ W_Q + b_Q, X @ W_K + b_K, X @ W_V + b_V
q, k, v = (t.unflatten(-1, (H, D)).transpose(0, 1) for t in (q, k, v))
head, A = attend(q, k, v)
out = layer.out_proj(head.transpose(0, 1).flatten(1))
Y, A_layer = layer(X, X, X, average_attn_weights=False)
torch.testing.assert_close(A, A_layer)
torch.testing.assert_close(out, Y)
print("A.shape", tuple(A.shape), "Y.shape", tuple(Y.shape))
# --8<-- [end:same_input]


class Products(TorchDispatchMode):
    """Counts the matrix products that the layer takes for its projections."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function is torch.ops.aten.addmm.default
        return function(*arguments, **(keywords or {}))


alone = X[None]  # without a batch axis, PyTorch adds one to each of the three, and no longer sees that they are one
with Products() as one_tensor:
    layer(alone, alone, alone)
with Products() as three_tensors:
    apart = layer(alone, alone.clone(), alone.clone())[0]
assert three_tensors.count == one_tensor.count + 2  # guard: one_product_for_one_tensor
torch.testing.assert_close(apart[0], Y)  # guard: the_same_numbers
show("same_error", f"{(out - Y).abs().max():.0e}")

# --8<-- [start:plain]
# X itself as queries and keys: symmetric scores
scores = X @ X.mT / E**0.5
torch.testing.assert_close(scores, scores.mT)
_, A_plain = attend(X, X, X)
assert not torch.allclose(A_plain, A_plain.mT, atol=0.05)
# each row was divided by a sum of its own: undo that
sums = scores.exp().sum(-1, keepdim=True)
torch.testing.assert_close(A_plain * sums, (A_plain * sums).mT)
print(f"sums from {sums.min():.2f} to {sums.max():.2f}")
# --8<-- [end:plain]
show("plain_gap", f"{(A_plain - A_plain.mT).abs().max():.2f}")

# --8<-- [start:two_maps]
# with matrices of their own: neither, in no head
scores = q @ k.mT / D**0.5
for i in range(H):
    assert not torch.allclose(scores[i], scores[i].mT, atol=0.1)
    assert not torch.allclose(A[i], A[i].mT, atol=0.1)
print(f"{(A - A.mT).abs().amax((1, 2)).min():.2f}")
# --8<-- [end:two_maps]
torch.testing.assert_close(scores.softmax(-1), A)  # guard: scores_of_the_layer

# --8<-- [start:shared]
# one map for both, W_Q = W_K and b_Q = b_K: (E, D), (D,);
# dot products that are symmetric make symmetric scores
W, b = W_Q[:, :D], b_Q[:D]
r = X @ W + b
dots = r @ r.mT
torch.testing.assert_close(dots, dots.mT)
_, A_shared = attend(r, r, X)
assert not torch.allclose(A_shared, A_shared.mT, atol=0.1)
# equal matrices with unequal biases: not even these
dots = r @ (X @ W + b_K[:D]).mT
assert not torch.allclose(dots, dots.mT, atol=0.1)
# unequal matrices, W_K = W M with M = M^T: symmetric
M = torch.randn(D, D)
M = M + M.mT
dots = (X @ W) @ (X @ W @ M).mT
torch.testing.assert_close(dots, dots.mT)
# --8<-- [end:shared]
show("shared_gap", f"{(A_shared - A_shared.mT).abs().max():.2f}")
product = W @ (W @ M).mT
torch.testing.assert_close(product, product.mT)  # guard: symmetric_product
three = {"X Xᵀ": A_plain, "W_Q = W_K": A_shared, "W_Q ≠ W_K": A[0]}
leads = [(A.argmax(-1) == torch.arange(L)).double().mean() for A in three.values()]
assert min(leads[:2]) > 0.5 > 2 * leads[2]  # guard: the_diagonal_loses_its_lead
figure("three", "attention", {"weights": torch.stack(list(three.values()))}, {"heads": list(three)})

# --8<-- [start:itself]
def itself(q, k):
    """Share of the tokens that weigh themselves most, per draw."""
    winner = (q @ k.mT).argmax(-1)
    return (winner == torch.arange(L)).double().mean(-1)


def expected(d):
    """Given |x|, the L - 1 other products are normal of spread |x|."""
    length = torch.linspace(1e-3, 40, 100_001)
    density = ((d - 1) * length.log() - length**2 / 2).softmax(0)
    return density @ torch.special.ndtr(length) ** (L - 1)
# --8<-- [end:itself]


# --8<-- [start:count]
torch.manual_seed(2)
draws, widths, shares = 4000, [2, 4, 8, 16, 32], []
for d in widths:
    x = torch.randn(draws, L, d)
    W_q, W_k = 0.5 * torch.randn(2, draws, d, D)
    runs = (x, x), (x @ W_q, x @ W_q), (x @ W_q, x @ W_k)
    plain, same, own = [itself(*run).mean() for run in runs]
    assert abs(plain - expected(d)) < 0.02
    assert abs(own - 1 / L) < 0.02
    assert own + 0.02 < same < plain
    shares.append([plain, same, own])
    print(f"{d:2} {plain:.3f} {same:.3f} {own:.3f}")
# --8<-- [end:count]
points = torch.tensor(shares).T
assert points[0, 0] < 0.6 < 0.95 < points[0, -2]  # guard: nearly_always_when_wide
assert (points[:2].diff() > 0).all()  # guard: both_rise
sample = torch.randn(100_000, 4, generator=torch.Generator().manual_seed(3)).norm(dim=-1)
by_sampling = torch.special.ndtr(sample).pow(L - 1).mean()
torch.testing.assert_close(by_sampling, expected(4), rtol=0.0, atol=0.005)  # guard: chance_of_no_rival
# queries and keys that pick out any pairs: token i and token order[i]
order, picks = torch.arange(L).flip(0), torch.linalg.pinv(X)
favoured = (X @ picks) @ (X @ picks[:, order]).mT
assert torch.equal(favoured.argmax(-1), order)  # guard: any_pair
sixteen = dict(zip(widths, shares, strict=True))[16]
show("draws", draws)
show("tokens", L)
show("plain_share", f"{100 * sixteen[0]:.1f}")
show("plain_expected", f"{100 * expected(16):.1f}")
show("same_share", f"{100 * sixteen[1]:.0f}")
show("own_share", f"{100 * sixteen[2]:.1f}")
show("chance", f"{100 / L:.1f}")
grid = torch.arange(1, 33)
figure(
    "itself",
    "curves",
    {
        "x": grid,
        "expected": torch.stack([expected(int(d)) for d in grid]),
        "chance": torch.full((len(grid),), 1 / L),
        "width": torch.tensor(widths),
        "plain": points[0],
        "same": points[1],
        "own": points[2],
    },
    {"points": ["plain", "same", "own"], "x": {"plain": "width", "same": "width", "own": "width"}},
)

# --8<-- [start:order]
order = [3, 0, 6, 2, 5, 1, 4]
moved, A_moved = layer(X[order], X[order], X[order])
Y, A_mean = layer(X, X, X)
# the output's rows move along: f(P X) = P f(X)
torch.testing.assert_close(moved, Y[order])
# rows and columns of the weights: P A P^T
torch.testing.assert_close(A_moved, A_mean[order][:, order])
# their mean cannot tell the two sentences apart
torch.testing.assert_close(moved.mean(0), Y.mean(0))
# with positions added, row by row, it can
places = 0.5 * torch.randn(L, E)
first, second = X + places, X[order] + places
placed, _ = layer(first, first, first)
mixed, _ = layer(second, second, second)
assert not torch.allclose(mixed, placed[order], atol=0.1)
assert not torch.allclose(mixed.mean(0), placed.mean(0), atol=0.1)
# --8<-- [end:order]
show("order_error", f"{(moved - Y[order]).abs().max():.0e}")
show("position_gap", f"{(mixed.mean(0) - placed.mean(0)).abs().max():.2f}")

# --8<-- [start:broken]
def by_hand(x, transpose):
    """Joins the heads, with the token axis in front or without."""
    qkv = x @ layer.in_proj_weight.T + layer.in_proj_bias
    q, k, v = qkv.unflatten(-1, (3, H, D)).permute(1, 2, 0, 3)
    head, _ = attend(q, k, v)
    if transpose:
        head = head.transpose(0, 1)
    return layer.out_proj(head.reshape(L, E))


right, wrong = by_hand(X, True), by_hand(X, False)
torch.testing.assert_close(by_hand(X[order], True), right[order])
assert wrong.shape == right.shape
again = by_hand(X[order], False)
assert not torch.allclose(again, wrong[order], atol=0.1)
# --8<-- [end:broken]
torch.testing.assert_close(right, Y)  # guard: by_hand_is_the_layer
assert not torch.allclose(wrong, right, atol=0.1)  # guard: joined_wrong

# --8<-- [start:cross]
# queries from X, keys and values from Z: (S, E)
Z = 0.5 * torch.randn(S, E)
q, k, v = X @ W_Q + b_Q, Z @ W_K + b_K, Z @ W_V + b_V
q, k, v = (t.unflatten(-1, (H, D)).transpose(0, 1) for t in (q, k, v))
head, A_cross = attend(q, k, v)
out = layer.out_proj(head.transpose(0, 1).flatten(1))
C, A_layer = layer(X, Z, Z, average_attn_weights=False)
torch.testing.assert_close(A_cross, A_layer)
torch.testing.assert_close(out, C)
print("A_cross", tuple(A_cross.shape), "C", tuple(C.shape))
# the other input in another order: nothing changes
torch.testing.assert_close(layer(X, Z.flip(0), Z.flip(0))[0], C)
# the queries in another order: the rows move along
torch.testing.assert_close(layer(X[order], Z, Z)[0], C[order])
# --8<-- [end:cross]

_, A = layer(X, X, X)
torch.testing.assert_close(A.sum(-1), torch.ones(L))  # guard: rows_add_up_to_1
assert not torch.allclose(A.sum(-2), torch.ones(L), atol=0.1)  # guard: columns_need_not

# --8<-- [start:question]
# tokens 1 and 4 are the same word
twice = X.clone()
twice[4] = X[1]
Y, A = layer(twice, twice, twice)
torch.testing.assert_close(Y[4], Y[1])
torch.testing.assert_close(A[4], A[1])
torch.testing.assert_close(A[:, 4], A[:, 1])
print("row 1", *(f"{weight:.3f}" for weight in A[1]))
print("row 4", *(f"{weight:.3f}" for weight in A[4]))
# after positions are added
placed = twice + places
Y, A = layer(placed, placed, placed)
assert not torch.allclose(Y[4], Y[1], atol=0.1)
assert not torch.allclose(A[:, 4], A[:, 1], atol=0.05)
# --8<-- [end:question]
