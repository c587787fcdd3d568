# --8<-- [start:setup]
import torch
import torch.nn.functional as F
from torch import nn
from paper_module import PaperMultiheadAttention

torch.manual_seed(21)
B, L, E, H = 2, 5, 24, 4
D = E // H
mha = nn.MultiheadAttention(E, H, batch_first=True).double()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
x = 0.5 * torch.randn(B, L, E, dtype=torch.float64)
# --8<-- [end:setup]

# --8<-- [start:round_trip]
layer = PaperMultiheadAttention.from_torch(mha)
for name, parameter in layer.named_parameters():
    print(f"{name:4}{tuple(parameter.shape)}")
output, weights = layer(x, x, x, average_attn_weights=False)
expected, _ = mha(x, x, x)
torch.testing.assert_close(output, expected)
back = layer.to_torch().state_dict()
for name, values in mha.state_dict().items():
    assert torch.equal(back[name], values)
# --8<-- [end:round_trip]
assert {len(p) for name, p in layer.named_parameters() if name != "b_o"} == {H}  # guard: heads_are_the_first_axis

# --8<-- [start:run]
matrices = {name: p.detach() for name, p in layer.named_parameters()}


def run(changed):
    """Output (B, L, E) and weights (B, H, L, L) with other matrices."""
    return torch.func.functional_call(
        layer, matrices | changed, (x, x, x),
        {"average_attn_weights": False})
# --8<-- [end:run]

# --8<-- [start:heads]
order = [2, 0, 3, 1]
permuted = {name: m if name == "b_o" else m[order]
            for name, m in matrices.items()}
other, other_weights = run(permuted)
torch.testing.assert_close(other, output)
torch.testing.assert_close(other_weights, weights[:, order])
assert not torch.allclose(other_weights, weights)
# the heads of W^O have to move along
alone, _ = run(permuted | {"W_o": matrices["W_o"]})
assert not torch.allclose(alone, output)
print(f"{(alone - output).abs().max():.2f}")
# --8<-- [end:heads]

# --8<-- [start:query_key]
M = torch.randn(H, D, D, dtype=torch.float64)  # any, if invertible
print([f"{d:.1f}" for d in torch.linalg.det(M)])
inverse_T = torch.linalg.inv(M).mT
turned = {
    "W_q": matrices["W_q"] @ M,
    "W_k": matrices["W_k"] @ inverse_T,
    "b_q": (matrices["b_q"][:, None] @ M)[:, 0],  # (H, 1, D) -> (H, D)
    "b_k": (matrices["b_k"][:, None] @ inverse_T)[:, 0],
}
other, other_weights = run(turned)
torch.testing.assert_close(other, output)
torch.testing.assert_close(other_weights, weights)
# without the bias it is another function
forgot, _ = run({name: turned[name] for name in ("W_q", "W_k")})
assert not torch.allclose(forgot, output)
print(f"{(forgot - output).abs().max():.2f}")
# --8<-- [end:query_key]
rows = 4
hidden = {
    "W_q": matrices["W_q"][0, :rows], "W_q M": turned["W_q"][0, :rows],
    "W_q W_kᵀ": (matrices["W_q"] @ matrices["W_k"].mT)[0, :rows, :rows],
    "W_q M (W_k M⁻ᵀ)ᵀ": (turned["W_q"] @ turned["W_k"].mT)[0, :rows, :rows],
}
figure("hidden", "matrix", hidden, {"digits": 1, "groups": {
    "W_q": [{"role": "q", "head": 0}], "W_q M": [{"role": "q", "head": 0}],
}})
assert (hidden["W_q"] - hidden["W_q M"]).abs().min() > 0.01  # guard: no_number_agrees
torch.testing.assert_close(hidden["W_q W_kᵀ"], hidden["W_q M (W_k M⁻ᵀ)ᵀ"])  # guard: the_same_product
torch.testing.assert_close(hidden["W_q"] @ M[0], hidden["W_q M"])  # guard: one_times_m_is_the_other

# --8<-- [start:value_output]
N = torch.randn(H, D, D, dtype=torch.float64)
mixed = {
    "W_v": matrices["W_v"] @ N,
    "b_v": (matrices["b_v"][:, None] @ N)[:, 0],
    "W_o": torch.linalg.inv(N) @ matrices["W_o"],
}
torch.testing.assert_close(run(mixed)[0], output)
# N may be a number: scale V up and O down
scaled = {"W_v": 10 * matrices["W_v"], "b_v": 10 * matrices["b_v"],
          "W_o": matrices["W_o"] / 10}
torch.testing.assert_close(run(scaled)[0], output)
for name in ("W_v", "W_o"):
    print(f"{name} {scaled[name].norm() / matrices[name].norm():.1f}")
# --8<-- [end:value_output]
grows, shrinks = (scaled[name].norm() / matrices[name].norm() for name in ("W_v", "W_o"))
torch.testing.assert_close(torch.stack([grows, 1 / shrinks]), torch.full((2,), 10.0).double())  # guard: norms_tell_nothing

# --8<-- [start:biases]
free = {"b_k": torch.randn(H, D, dtype=torch.float64)}
torch.testing.assert_close(run(free)[0], output)
# b_v moves through W_o into b_o: (H, 1, D) @ (H, D, E) -> (E,)
constant = (matrices["b_v"][:, None] @ matrices["W_o"]).sum((0, 1))
folded = {"b_v": torch.zeros(H, D, dtype=torch.float64),
          "b_o": matrices["b_o"] + constant}
torch.testing.assert_close(run(folded)[0], output)
assert not torch.allclose(run({"b_v": folded["b_v"]})[0], output)
print(f"b_k {(free['b_k'] - matrices['b_k']).abs().max():.2f}")
# --8<-- [end:biases]

# --8<-- [start:counted]
def directions(E, H):
    """Parameters in all, and directions that change no output."""
    D = E // H
    hidden = H * (D * D + D * D + D + D)  # M, N, b_k, b_v
    return 4 * E * E + 4 * E, hidden


small = PaperMultiheadAttention(6, 2).double()
point = {n: torch.randn_like(p) for n, p in small.named_parameters()}
many = torch.randn(30, 3, 6, dtype=torch.float64)  # (L, B, E)
jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(
    small, p, (many, many, many))[0])(point)
columns = [j.reshape(many.numel(), -1) for j in jacobian.values()]
rank = torch.linalg.matrix_rank(torch.cat(columns, 1))
total, hidden = directions(6, 2)
print(f"total {total} rank {rank} hidden {hidden}")
assert rank == total - hidden
for sizes in ((24, 4), (512, 8), (768, 12)):
    total, hidden = directions(*sizes)
    print(sizes, total, hidden, f"{hidden / total:.3f}")
# --8<-- [end:counted]
total, hidden = directions(512, 8)
show("share", f"{1000 * hidden // total / 10:.1f}")  # at least: not rounded up
wide = PaperMultiheadAttention(512, 8, device="meta")
assert total == sum(p.numel() for p in wide.parameters())  # guard: all_the_parameters
free_of_head = 2 * wide.W_q.shape[2] * (wide.W_q.shape[2] + 1)  # M and N, b_k and b_v
assert abs(8 * free_of_head / total - 0.063) < 0.0005  # guard: share_of_the_dimensions
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    for sizes in ((6, 1), (6, 3), (8, 2)):
        other = PaperMultiheadAttention(*sizes).double()
        at = {n: torch.randn_like(p) for n, p in other.named_parameters()}
        tokens = torch.randn(5 * sizes[0], 3, sizes[0], dtype=torch.float64)
        slopes = torch.func.jacrev(lambda p, f=other, t=tokens: torch.func.functional_call(f, p, (t, t, t))[0])(at)
        found = torch.linalg.matrix_rank(torch.cat([j.reshape(tokens.numel(), -1) for j in slopes.values()], 1))
        total, hidden = directions(*sizes)
        assert found == total - hidden  # guard: at_other_sizes_too

# --8<-- [start:variants]
angle = torch.arange(L)[:, None] / 10 ** torch.arange(D // 2)
turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex128)
bias_k, bias_v = torch.randn(2, H, D, dtype=torch.float64)


def rope(a):
    """(B, H, L, D): pairs of columns turned by the position."""
    pairs = torch.view_as_complex(a.unflatten(-1, (D // 2, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)


def variant(m, kind):
    """Self-attention with something put in; (B, L, E)."""
    q, k, v = (torch.einsum("ble,hed->bhld", x, m[f"W_{c}"])
               + m[f"b_{c}"][:, None] for c in "qkv")
    if kind == "RoPE":
        q, k = rope(q), rope(k)
    if kind == "QK-norm":
        q, k = (F.rms_norm(a, (D,)) for a in (q, k))
    if kind == "bias_kv":
        one = (B, H, 1, D)
        k = torch.cat([k, m["bias_k"][:, None].expand(one)], 2)
        v = torch.cat([v, m["bias_v"][:, None].expand(one)], 2)
    heads = (q @ k.mT / D**0.5).softmax(-1) @ v  # (B, H, L, D)
    return torch.einsum("bhld,hde->ble", heads, m["W_o"]) + m["b_o"]
# --8<-- [end:variants]

# --8<-- [start:moves]
start = matrices | {"bias_k": bias_k, "bias_v": bias_v}


def between(M):
    """M on the side of the queries, M^-T on that of the keys."""
    sides = dict.fromkeys(("W_q", "b_q"), M)
    sides |= dict.fromkeys(("W_k", "b_k", "bias_k"), M.inverse().mT)
    return {name: torch.einsum("h...d,hde->h...e", start[name], side)
            for name, side in sides.items()}


Q, _ = torch.linalg.qr(M)  # orthogonal
a, b = torch.randn(2, H, D // 2, dtype=torch.float64)
turns = torch.stack([a, b, -b, a], -1).unflatten(-1, (2, 2))
pairs = torch.stack([torch.block_diag(*one) for one in turns])
moves = {
    "heads": permuted | {
        "bias_k": bias_k[order], "bias_v": bias_v[order]},
    "M": between(M), "rotation": between(Q), "pairs": between(pairs),
    "N": mixed | {"bias_v": (bias_v[:, None] @ N)[:, 0]},
    "b_k": free, "b_v": folded,
}
# --8<-- [end:moves]

# --8<-- [start:broken]
kinds = ("plain", "RoPE", "QK-norm", "bias_kv")
print(f"{'':10}" + "".join(f"{kind:>9}" for kind in kinds))
moved = {}
for name, change in moves.items():
    errors = [(variant(start | change, kind) - variant(start, kind))
              .abs().max().item() for kind in kinds]
    moved[name] = [kind for kind, e in zip(kinds, errors, strict=True)
                   if e > 1e-9]
    print(f"{name:10}" + "".join(f"{error:9.2f}" for error in errors))
# --8<-- [end:broken]

# --8<-- [start:which]
torch.testing.assert_close(variant(matrices, "plain"), output)
assert moved["heads"] == moved["N"]
assert moved["heads"] == []
assert moved["M"] == ["RoPE", "QK-norm"]
assert moved["rotation"] == ["RoPE"]
assert moved["pairs"] == ["QK-norm"]
assert moved["b_k"] == ["RoPE", "QK-norm", "bias_kv"]
assert moved["b_v"] == ["bias_kv"]
# --8<-- [end:which]

# what is left where a condition is dropped
torch.testing.assert_close(variant(start | between(M), "bias_kv"), variant(start, "bias_kv"))  # guard: hidden_with_bias_k
half = between(M)
del half["bias_k"]
assert not torch.allclose(variant(start | half, "bias_kv"), variant(start, "bias_kv"))  # guard: seen_without_bias_k
assert not torch.allclose(variant(start | mixed, "bias_kv"), variant(start, "bias_kv"))  # guard: seen_without_bias_v


def scored(m, gain):
    """Scores where q and k are made equally long, and multiplied by a learned scale; (B, H, L, L)."""
    q, k = (F.rms_norm(torch.einsum("ble,hed->bhld", x, m[f"W_{c}"]) + m[f"b_{c}"][:, None], (D,), gain) for c in "qk")
    return q @ k.mT


gain = torch.arange(1, D + 1).double()
one = torch.ones(D, dtype=torch.float64)
torch.testing.assert_close(scored(start | between(Q), one), scored(start, one))  # guard: rotations_without_a_learned_scale
assert not torch.allclose(scored(start | between(Q), gain), scored(start, gain))  # guard: not_with_one
assert nn.RMSNorm(D).weight.requires_grad  # guard: rms_norm_has_one

# rows of q and k reordered within each head, as conversions of LLaMA do: halves of pairs in place of pairs
halves = torch.eye(D, dtype=torch.float64)[torch.arange(D).view(2, -1).T.flatten()].expand(H, D, D)
swapped = start | between(halves)
torch.testing.assert_close(variant(swapped, "plain"), output)  # guard: a_permutation_without_rope
assert not torch.allclose(variant(swapped, "RoPE"), variant(start, "RoPE"))  # guard: a_permutation_with_rope

# --8<-- [start:compare]
# one function twice: other entries, other order of heads
twin = {name: m if name == "b_o" else m[order]
        for name, m in (matrices | turned | mixed).items()}
torch.testing.assert_close(run(twin)[0], output)
for name in ("W_q", "W_k", "W_v", "W_o"):
    a, b = matrices[name].flatten(), twin[name].flatten()
    cosine = F.cosine_similarity(a, b, dim=0)
    print(f"{name} cosine {cosine:5.2f}")
    # random numbers would stay within 3 / sqrt(how many)
    assert abs(cosine) < 3 / a.numel() ** 0.5
# --8<-- [end:compare]

# --8<-- [start:seen]
def seen(m):
    """(H, E + 1, E), (H, E, E), (E,): all that the function sees."""
    queries = torch.cat([m["W_q"], m["b_q"][:, None]], 1)
    constant = (m["b_v"][:, None] @ m["W_o"]).sum((0, 1)) + m["b_o"]
    return queries @ m["W_k"].mT, m["W_v"] @ m["W_o"], constant


scores, values, constant = seen(matrices)
twin_scores, twin_values, twin_constant = seen(twin)
# which head is which: the one with the nearest product
match = torch.cdist(twin_scores.flatten(1), scores.flatten(1)).argmin(1)
print(f"match {match.tolist()}")
assert match.tolist() == order
torch.testing.assert_close(scores[match], twin_scores)
torch.testing.assert_close(values[match], twin_values)
torch.testing.assert_close(constant, twin_constant)
# --8<-- [end:seen]
# it is all: the output from the products alone. What scores lack here is the same for every key of a row
ones = torch.cat([x, x.new_ones(B, L, 1)], -1)[:, None]  # (B, 1, L, E + 1)
by_products = (ones @ scores @ x[:, None].mT / D**0.5).softmax(-1)  # (B, H, L, L)
torch.testing.assert_close(by_products, weights)  # guard: the_weights_from_the_products
from_products = (by_products @ (x[:, None] @ values)).sum(1) + constant
torch.testing.assert_close(from_products, output)  # guard: the_output_from_the_products

# --8<-- [start:question]
# the mean of two checkpoints that are one function
mean = {name: (matrices[name] + twin[name]) / 2 for name in matrices}
apart = run(mean)[0]
same = {name: (m + m) / 2 for name, m in matrices.items()}
torch.testing.assert_close(run(same)[0], output)
assert not torch.allclose(apart, output)
print(f"{(apart - output).norm() / output.norm():.2f}")
# --8<-- [end:question]
error = torch.dist(apart, output) / output.square().sum().sqrt()
show("mean_error", f"{error:.2f}")
squares = ((apart - output) ** 2).sum() / (output**2).sum()
assert abs(error - squares**0.5) < 1e-9  # guard: size_of_the_error
