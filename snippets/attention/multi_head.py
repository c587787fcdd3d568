from itertools import combinations

# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
L, S, E, H = 5, 7, 24, 4
d_k, d_v = 6, 8


def attention(q, k, v):
    """q (..., L, d_k), k (..., S, d_k), v (..., S, d_v)."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return weights @ v, weights


# what enters the layer: one sample, no batch axis
Q = 0.5 * torch.randn(L, E)
K, V = 0.5 * torch.randn(2, S, E)
# --8<-- [end:setup]

# --8<-- [start:identical]
# H heads without matrices of their own, then one mix
B_O = 0.5 * torch.randn(H * E, E)
heads = [attention(Q, K, V)[0] for i in range(H)]
many = torch.cat(heads, dim=-1) @ B_O
# one head, mixed by the sum of the H blocks of B_O
one = attention(Q, K, V)[0] @ B_O.unflatten(0, (H, E)).sum(0)
torch.testing.assert_close(many, one)
print("many.shape", tuple(many.shape), "one.shape", tuple(one.shape))
# --8<-- [end:identical]

# --8<-- [start:project]
# W_Q[i] is the matrix of head i
W_Q = 0.5 * torch.randn(H, E, d_k)
W_K = 0.5 * torch.randn(H, E, d_k)
W_V = 0.5 * torch.randn(H, E, d_v)
heads, weights = [], []
for i in range(H):
    head, A = attention(Q @ W_Q[i], K @ W_K[i], V @ W_V[i])
    heads.append(head)
    weights.append(A)
    print(i, "head", tuple(head.shape), "A", tuple(A.shape))
for i in range(1, H):
    assert not torch.allclose(weights[0], weights[i], atol=0.1)
# --8<-- [end:project]
by_head = {f"i = {i}": A for i, A in enumerate(weights)}
at_once = attention(Q @ W_Q, K @ W_K, V @ W_V)[1]
torch.testing.assert_close(torch.stack(list(by_head.values())), at_once)  # guard: heads_in_order
for one, other in combinations(by_head.values(), 2):
    assert not torch.equal(one.argmax(-1), other.argmax(-1))  # guard: dark_cells_differ
figure("heads", "attention", {"weights": torch.stack(list(by_head.values()))}, {"heads": list(by_head)})

# --8<-- [start:words]
import running_example as five

X = five.X
# (2, 5, 3) each: heads, words, numbers of a query
asked, offered, held = X @ five.W_Q, X @ five.W_K, X @ five.W_V
found, A = attention(asked, offered, held)
# (5, 6): both heads side by side, then back to E
result = torch.cat([*found], dim=-1) @ five.W_O
# rows 0-2 of W_O belong to head 0, rows 3-5 to head 1
by_head = [found[i] @ five.W_O[3 * i : 3 * i + 3] for i in (0, 1)]
torch.testing.assert_close(result, by_head[0] + by_head[1])
# the colour and the animal of each word
print(result[:, 2:4])
# --8<-- [end:words]
black, cat, _, white, dog = range(5)
assert A[0, [cat, dog]].argmax(-1).tolist() == [black, white]  # guard: nouns_find_adjectives
assert A[1, [black, white]].argmax(-1).tolist() == [cat, dog]  # guard: adjectives_find_nouns
zero = torch.zeros(5).double()
assert torch.equal(by_head[0][:, 3], zero)  # guard: head_0_writes_the_colour
assert torch.equal(by_head[1][:, 2], zero)  # guard: head_1_writes_the_animal
show("told_colour", f"{result[cat, 2]:.2f}".replace("-", "−"))
show("told_animal", f"{result[black, 3]:.2f}".replace("-", "−"))

# --8<-- [start:concat]
# (H d_v, E): rows i d_v to (i + 1) d_v belong to head i
W_O = 0.5 * torch.randn(H * d_v, E)
joined = torch.cat(heads, dim=-1)
out = joined @ W_O
blocks = W_O.unflatten(0, (H, d_v))
total = sum(heads[i] @ blocks[i] for i in range(H))
torch.testing.assert_close(out, total)
print("joined.shape", tuple(joined.shape))
print("out.shape", tuple(out.shape))
# --8<-- [end:concat]
show("sum_error", f"{(out - total).abs().max():.0e}")
show("joined_width", H * d_v)
show("heads", H)
show("d_v", d_v)
show("embed_dim", E)
parts = {"X": X, "concat": torch.cat([*found], dim=-1), "Y": result}
boxes = [("X", "X", 1.5, 0, "x", [])]
for i, (near, far) in enumerate([(0, 1), (3, 2)]):  # head 1 is drawn as in a mirror, so that no two ways cross
    parts |= {f"Q_{i}": asked[i], f"K_{i}": offered[i], f"V_{i}": held[i], f"A_{i}": A[i], f"head_{i}": found[i]}
    boxes += [
        (f"Q_{i}", f"Q_{i}", near, 1, "q", ["X"]),
        (f"K_{i}", f"K_{i}", far, 1, "k", ["X"]),
        (f"A_{i}", f"A_{i}", near, 2, "x", [f"Q_{i}", f"K_{i}"]),
        (f"V_{i}", f"V_{i}", far, 2, "v", ["X"]),
        (f"head_{i}", f"head_{i}", (near + far) / 2, 3, "v", [f"A_{i}", f"V_{i}"]),
    ]
boxes += [("concat", "concat", 1.5, 4, "v", ["head_0", "head_1"]), ("Y", "× W^O", 1.5, 5, "o", ["concat"])]
recap = [
    {"id": id, "text": text, "cells": id, "column": column, "row": row, "role": role}
    for id, text, column, row, role, _ in boxes
]
recap_edges = [[before, id] for id, *_, befores in boxes for before in befores]
figure("recap", "flow", parts, {"nodes": recap, "edges": recap_edges})

# --8<-- [start:order]
order = [2, 0, 3, 1]
shuffled = torch.cat([heads[i] for i in order], dim=-1)
# the blocks of W_O move with their heads: nothing changes
moved = torch.cat([blocks[i] for i in order])
torch.testing.assert_close(shuffled @ moved, out)
# they stay behind: another function
assert not torch.allclose(shuffled @ W_O, out, atol=0.1)
# --8<-- [end:order]

# --8<-- [start:together]
# (H, L, d_k), (H, S, d_k), (H, S, d_v): heads as a batch axis
q, k, v = Q @ W_Q, K @ W_K, V @ W_V
together = scaled_dot_product_attention(q, k, v)
torch.testing.assert_close(together, torch.stack(heads))
# (L, H d_v): first L, then the heads side by side
merged = together.transpose(0, 1).reshape(L, H * d_v)
torch.testing.assert_close(merged @ W_O, out)
# same shape without transpose, other tokens' rows
wrong = together.reshape(L, H * d_v)
assert not torch.allclose(wrong @ W_O, out, atol=0.1)
# --8<-- [end:together]
assert torch.equal(wrong[0], torch.cat([*together[0, :H]]))  # guard: head_0_of_four_tokens
show("wrong_merge", f"{(wrong @ W_O - out).abs().max():.1f}")

# --8<-- [start:layer]
def start(kind, R):
    """R draws of W_Q, W_K, W_V, W_O: each (R, H, rows, columns)."""
    sizes = (E, d_k), (E, d_k), (E, d_v), (d_v, E)
    W = [0.5 * torch.randn(R, H, *size) for size in sizes]
    # head 1 made equal to head 0: wholly, or all but W_O
    for w in {"apart": [], "mixed": W[:3]}.get(kind, W):
        w[:, 1] = w[:, 0]
        if kind == "nudged":
            w[:, 1] += 1e-3 * torch.randn(w[:, 1].shape)
    return [w.requires_grad_() for w in W]


def forward(W, x):
    """x (R, 1, L, E); returns (R, L, E) and (R, H, L, L)."""
    head, weights = attention(x @ W[0], x @ W[1], x @ W[2])
    return (head @ W[3]).sum(1), weights
# --8<-- [end:layer]


# --8<-- [start:train]
def apart_by(A, B):
    """The share of a row that A and B place differently, averaged."""
    return ((A - B).abs().sum(-1) / 2).mean(-1)


def distances(kind, R=20, steps=50):
    """Heads 0 and 1 of R draws, before each step and at the end."""
    torch.manual_seed(1)
    x = 0.5 * torch.randn(R, 1, 40, E)
    target = forward(start("apart", R), x)[0].detach()
    W, history = start(kind, R), []
    optimizer = torch.optim.Adam(W, lr=0.02)
    for _ in range(steps + 1):
        y, A = forward(W, x)
        history.append(apart_by(A[:, 0], A[:, 1]).detach())
        optimizer.zero_grad()
        (y - target).square().sum().backward()
        optimizer.step()
    # (steps + 1, R)
    return torch.stack(history)
# --8<-- [end:train]
with torch.random.fork_rng():
    W, x = start("apart", 2), torch.randn(2, 1, L, E)
summed = sum(attention(x[1, 0] @ W[0][1, i], x[1, 0] @ W[1][1, i], x[1, 0] @ W[2][1, i])[0] @ W[3][1, i] for i in range(H))
torch.testing.assert_close(forward(W, x)[0][1], summed)  # guard: a_layer_of_two_draws
here, there = torch.eye(2), torch.eye(2).flip(0)
assert apart_by(here, there) == 1  # guard: no_key_in_common
assert apart_by(there, there.clone()) == 0  # guard: equal_matrices


# --8<-- [start:measured]
kinds = "equal", "mixed", "nudged", "apart"
runs = {kind: distances(kind) for kind in kinds}
# equal for ever; the others never
assert runs["equal"].max() < 1e-12
assert runs["apart"].min() > 0.25
# the last step against the first, in every draw
assert (runs["mixed"][-1] > runs["mixed"][0] + 0.1).all()
assert (runs["nudged"][-1] > 2 * runs["nudged"][0]).all()
for kind, run in runs.items():
    first, last = run[0].quantile(0.5), run[-1].quantile(0.5)
    print(f"{kind:6} {first:.4f} {last:.4f}")
# --8<-- [end:measured]
mixed, nudged, apart = runs["mixed"], runs["nudged"], runs["apart"]
closer = apart[-1] < apart[0]
assert 5 <= closer.sum() <= 15  # guard: some_come_closer
assert mixed[10].median() > 5 * nudged[10].median()  # guard: quickly_and_slowly
with torch.random.fork_rng():
    twins = start("nudged", 20)
moved = torch.cat([(w[:, 1] - w[:, 0]).flatten() for w in twins]).std()
assert 0.0009 < moved < 0.0011  # guard: moved_by_a_thousandth
show("nudge", f"{moved:.3f}")
show("draws", apart.shape[1])
show("steps", len(apart) - 1)
show("closer", int(closer.sum()))
# at least: not rounded up
show("apart_least", f"{(100 * apart.min()).floor() / 100:.2f}")
show("mixed_least", f"{(100 * mixed[-1].min()).floor() / 100:.2f}")
show("nudged_least", f"{(10 * (nudged[-1] / nudged[0]).min()).floor() / 10:.1f}")
curves = {"x": torch.arange(len(apart))}
for name, run in runs.items():
    low, middle, high = run.quantile(torch.tensor([0.0, 0.5, 1.0]), dim=1)
    curves |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    ordered = run.sort(1).values
    torch.testing.assert_close(middle, (ordered[:, 9] + ordered[:, 10]) / 2)  # guard: medians_of_20
    torch.testing.assert_close(torch.stack([low, high]), ordered[:, [0, -1]].T)  # guard: bands_from_least_to_greatest
torch.testing.assert_close(last, curves["apart"][-1])  # guard: printed_last
torch.testing.assert_close(first, curves["apart"][0])  # guard: printed_first
figure("twins", "curves", curves, {"band": {name: [f"{name}_low", f"{name}_high"] for name in runs}})

# --8<-- [start:cost]
x = torch.randn(1, L, E)
print(" h parameters multiply_adds A.numel()")
for h in [1, 2, 3, 4, 6, 8, 12, 24]:
    layer = nn.MultiheadAttention(E, h, batch_first=True)
    with FlopCounterMode(display=False) as counter:
        _, A = layer(x, x, x, average_attn_weights=False)
    parameters = sum(p.numel() for p in layer.parameters())
    assert parameters == 4 * E * E + 4 * E
    # the counter takes a multiply-add for two operations
    multiply_adds = counter.get_total_flops() // 2
    assert multiply_adds == 4 * L * E * E + 2 * L * L * E
    assert A.shape == (1, h, L, L)
    print(f"{h:2} {parameters:10} {multiply_adds:13} {A.numel():9}")
# --8<-- [end:cost]
assert layer.head_dim * h == E  # guard: narrower_heads
show("parameters", parameters)
show("multiply_adds", multiply_adds)

# --8<-- [start:split_first]
# (H, L, D): cut the features, then project each cut
D = E // H
W = 0.5 * torch.randn(D, D)
split = Q.unflatten(-1, (H, D)).transpose(0, 1) @ W
# (L, E): one matrix, zero outside the blocks, H times the same
block_diagonal = torch.block_diag(*[W] * H)
rejoined = split.transpose(0, 1).flatten(1)
torch.testing.assert_close(rejoined, Q @ block_diagonal)
# features of the second cut change: head 0 is deaf to them
other = Q.clone()
other[:, D : 2 * D] += 1
split_other = other.unflatten(-1, (H, D)).transpose(0, 1) @ W
assert torch.equal(split_other[0], split[0])
assert not torch.allclose(other @ W_Q[0], Q @ W_Q[0], atol=0.1)
# --8<-- [end:split_first]

# --8<-- [start:question]
# one head as wide as all of them: (E, H d_k)
wide_Q, wide_K = torch.cat([*W_Q], -1), torch.cat([*W_K], -1)
dots = (Q @ wide_Q) @ (K @ wide_K).mT
torch.testing.assert_close(dots, (q @ k.mT).sum(0))
# one softmax of the sum, instead of H softmaxes
_, A_wide = attention(Q @ wide_Q, K @ wide_K, V)
A = torch.stack(weights)
for i in range(H):
    assert not torch.allclose(A_wide, A[i], atol=0.1)
assert not torch.allclose(A_wide, A.mean(0), atol=0.1)
print("A_wide.shape", tuple(A_wide.shape), "A.shape", tuple(A.shape))
# --8<-- [end:question]
assert wide_Q.numel() + wide_K.numel() == W_Q.numel() + W_K.numel()  # guard: as_many_parameters
