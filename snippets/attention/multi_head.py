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
assert A[1, [cat, dog]].argmax(-1).tolist() == [dog, cat]  # guard: nouns_find_nouns
zero = torch.zeros(5).double()
assert torch.equal(by_head[0][:, 3], zero)  # guard: head_0_writes_the_colour
assert torch.equal(by_head[1][:, 2], zero)  # guard: head_1_writes_the_animal
show("told_colour", f"{result[cat, 2]:.2f}".replace("-", "−"))
show("told_animal", f"{result[cat, 3]:.2f}")

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
