# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn import functional as F


def module(dtype, E, H):
    """A module whose parameters, biases too, are drawn anew."""
    mha = nn.MultiheadAttention(E, H, batch_first=True, dtype=dtype)
    with torch.no_grad():
        for parameter in mha.parameters():
            parameter.normal_(std=1.5 * E**-0.5)
    return mha


torch.manual_seed(0)
B, L, E, H = 2, 5, 24, 4
D = E // H
mha = module(torch.float64, E, H)
x = torch.randn(B, L, E, dtype=torch.float64)
# --8<-- [end:setup]

# --8<-- [start:cut]
def cut(mha):
    """The paper's matrices of a module, in memory of their own."""
    E, H, D = mha.embed_dim, mha.num_heads, mha.head_dim
    # three of (H, E, D)
    w_q, w_k, w_v = mha.in_proj_weight.view(3, H, D, E).mT
    # (H, D, E)
    w_o = mha.out_proj.weight.view(E, H, D).permute(1, 2, 0)
    # three of (H, D)
    b_q, b_k, b_v = mha.in_proj_bias.view(3, H, D)
    b_o = mha.out_proj.bias
    parts = w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o
    return [part.detach().clone().requires_grad_() for part in parts]
# --8<-- [end:cut]


# --8<-- [start:pack]
def pack(w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o):
    """The paper's matrices, or gradients, as PyTorch lays them."""
    return {
        "in_proj_weight": torch.cat([w_q, w_k, w_v]).mT.flatten(0, 1),
        "in_proj_bias": torch.cat([b_q, b_k, b_v]).flatten(),
        "out_proj.weight": w_o.flatten(0, 1).T,
        "out_proj.bias": b_o,
    }


packed = pack(*cut(mha))
for name, parameter in mha.named_parameters():
    assert torch.equal(packed[name], parameter)
    print(f"{name:16} {tuple(parameter.shape)}")
# --8<-- [end:pack]
pairs = [(part, parameter) for part in cut(mha) for parameter in mha.parameters()]
assert all(a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr() for a, b in pairs)  # guard: memory_of_its_own

# --8<-- [start:columns_paper]
w_q, w_k, w_v, w_o, *biases = cut(mha)
b_q, b_k, b_v, b_o = biases
# H products, each (B, L, D)
q_i = [x @ w_q[i] for i in range(H)]
q = torch.cat(q_i, dim=-1)
# --8<-- [end:columns_paper]

# --8<-- [start:columns_torch]
# one product, (B, L, E)
w = mha.in_proj_weight[:E]
q_packed = F.linear(x, w)
torch.testing.assert_close(q, q_packed)
print(tuple(q_i[0].shape), tuple(q.shape))
# --8<-- [end:columns_torch]

# --8<-- [start:paper]
def paper(x, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o):
    """(B, L, E) -> H outputs (B, L, D), weights (B, H, L, L)."""
    heads, weights = [], []
    for i in range(len(w_q)):
        q = x @ w_q[i] + b_q[i]
        k = x @ w_k[i] + b_k[i]
        v = x @ w_v[i] + b_v[i]
        a = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        weights.append(a)
        heads.append(a @ v)
    return heads, torch.stack(weights, dim=1)


heads, weights = paper(x, *cut(mha))
# --8<-- [end:paper]

# --8<-- [start:concat]
# (B, L, E) @ (E, E)
w_square = w_o.flatten(0, 1)
out = torch.cat(heads, -1) @ w_square
out = out + b_o
# --8<-- [end:concat]

# --8<-- [start:sum]
# H times (B, L, D) @ (D, E)
parts = [
    heads[i] @ w_o[i] for i in range(H)
]
total = sum(parts) + b_o
torch.testing.assert_close(out, total)
# --8<-- [end:sum]

# --8<-- [start:module]
y, y_weights = mha(x, x, x, average_attn_weights=False)
torch.testing.assert_close(out, y)
torch.testing.assert_close(weights, y_weights)
print("output", tuple(y.shape), "weights", tuple(y_weights.shape))
# --8<-- [end:module]

# --8<-- [start:without_head]
i = 1
less = module(torch.float64, E, H)
less.load_state_dict(mha.state_dict())
with torch.no_grad():
    # the columns of W_i^O
    less.out_proj.weight[:, i * D : (i + 1) * D] = 0
y_less = less(x, x, x)[0]
torch.testing.assert_close(y - y_less, parts[i])
print([f"{part.norm():.2f}" for part in parts])
# --8<-- [end:without_head]

# --8<-- [start:gradients]
def gradients(x, loss, leaves):
    """Gradients of `loss` for the input and for every leaf."""
    return torch.autograd.grad(loss, [x, *leaves])


x.requires_grad_()
# how much each number of the output and of the weights counts
g, g_weights = torch.randn_like(y), torch.randn_like(y_weights)

y, y_weights = mha(x, x, x, average_attn_weights=False)
loss = (y * g).sum() + (y_weights * g_weights).sum()
x_grad, *grads = gradients(x, loss, mha.parameters())
names = [name for name, _ in mha.named_parameters()]
theirs = {"x": x_grad, **dict(zip(names, grads, strict=True))}
# --8<-- [end:gradients]

# --8<-- [start:gradients_paper]
leaves = cut(mha)
heads, weights = paper(x, *leaves)
w_o, b_o = leaves[3], leaves[-1]
out = sum(heads[i] @ w_o[i] for i in range(H)) + b_o
loss = (out * g).sum() + (weights * g_weights).sum()
x_grad, *grads = gradients(x, loss, leaves)
ours = {"x": x_grad, **pack(*grads)}
for name, gradient in theirs.items():
    torch.testing.assert_close(ours[name], gradient)
    print(f"{name:16} {tuple(gradient.shape)} {gradient.norm():.3f}")
# --8<-- [end:gradients_paper]

# --8<-- [start:both]
def both(dtype, B, L, E, H):
    """Results of both layouts, each over its largest value."""
    torch.manual_seed(E + H)
    mha = module(dtype, E, H)
    x = torch.randn(B, L, E, dtype=dtype, requires_grad=True)
    y, weights = mha(x, x, x, average_attn_weights=False)
    g = torch.randn_like(y)
    x_grad, *grads = gradients(x, (y * g).sum(), mha.parameters())
    names = [name for name, _ in mha.named_parameters()]
    theirs = {"y": y, "weights": weights, "x": x_grad}
    theirs |= dict(zip(names, grads, strict=True))

    leaves = cut(mha)
    heads, weights = paper(x, *leaves)
    w_o, b_o = leaves[3], leaves[-1]
    y = torch.cat(heads, -1) @ w_o.flatten(0, 1) + b_o
    x_grad, *grads = gradients(x, (y * g).sum(), leaves)
    ours = {"y": y, "weights": weights, "x": x_grad, **pack(*grads)}

    size = {n: max(1, t.abs().max().item()) for n, t in theirs.items()}
    pair = ours, theirs
    return [{n: r[n].detach() / size[n] for n in size} for r in pair]
# --8<-- [end:both]

# --8<-- [start:float64]
# B, L, E, H
sizes = [(1, 3, 6, 2), (2, 5, 24, 4), (3, 7, 30, 5)]
sizes += [(1, 64, 96, 12), (2, 33, 128, 8), (1, 17, 512, 8)]


def greatest(ours, theirs):
    """The greatest difference of any two results."""
    return max((ours[n] - theirs[n]).abs().max().item() for n in ours)


errors = {"float64": [], "float32": [], "bfloat16": []}
for size in sizes:
    ours, theirs = both(torch.float64, *size)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    errors["float64"].append(greatest(ours, theirs))
# --8<-- [end:float64]

# --8<-- [start:float32]
for size in sizes:
    ours, theirs = both(torch.float32, *size)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    errors["float32"].append(greatest(ours, theirs))
# --8<-- [end:float32]

# --8<-- [start:bfloat16]
for size in sizes:
    ours, theirs = both(torch.bfloat16, *size)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2**-4)
    errors["bfloat16"].append(greatest(ours, theirs))
# --8<-- [end:bfloat16]
# at the level of rounding, whatever the size
steps = {dtype: torch.finfo(getattr(torch, dtype)).eps for dtype in errors}
assert all(step / 10 < error < 40 * step for dtype, step in steps.items() for error in errors[dtype])  # guard: rounding
assert max(errors["float64"]) < 1e-14  # guard: bars_of_float64
assert max(errors["float32"]) < 1e-5  # guard: bars_of_float32
assert steps["bfloat16"] / 2 == 2**-8  # guard: one_rounding
for dtype, values in errors.items():
    worst = max(values)
    assert all(error <= worst for error in values)  # guard: greatest_error
    digit, power = f"{worst:.0e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    show(f"rounding_{dtype}", f"{digit}×10{raised}")
show("sizes", len(sizes))
columns = [{"columns": [i * D, (i + 1) * D], "head": i} for i in range(H)]
figure(  # guard: column_blocks
    "columns",
    "blocks",
    {"X": x[0], "W^Q": mha.in_proj_weight[:E].T, "X W^Q": q_packed[0]},
    labels={
        "groups": {
            "X": [{"rows": [0, L], "role": "x", "text": "X"}],
            "W^Q": [{**part, "role": "q", "text": f"W_{i}^Q", "of": w_q[i]} for i, part in enumerate(columns)],
            "X W^Q": [{**part, "role": "q", "text": f"Q_{i}", "of": q_i[i][0]} for i, part in enumerate(columns)],
        }
    },
)
figure(  # guard: row_blocks
    "sum",
    "blocks",
    {"concat": torch.cat(heads, -1)[0], "W^O": mha.out_proj.weight.T, "Y": y[0]},
    labels={
        "groups": {
            "concat": [
                {**part, "role": "v", "text": f"head_{i}", "of": heads[i][0]} for i, part in enumerate(columns)
            ],
            "W^O": [
                {"rows": part["columns"], "head": i, "role": "o", "text": f"W_{i}^O", "of": w_o[i]}
                for i, part in enumerate(columns)
            ],
            "Y": [{"rows": [0, L], "role": "x", "text": "Y"}],
        }
    },
)
figure(
    "errors",
    "bars",
    {dtype: torch.tensor(values) for dtype, values in errors.items()},
    labels={"categories": [f"{E} / {H}" for _, _, E, H in sizes], "log": True, "rounding": True},
)

# --8<-- [start:refused]
def refused(actual, expected):
    """Fail unless assert_close refuses; print what it counted."""
    try:
        torch.testing.assert_close(actual, expected)
    except AssertionError as error:
        print(str(error).splitlines()[2])
    else:
        raise AssertionError("the wrong version passes")
    print(f"greatest difference {(actual - expected).abs().max():.2f}")
# --8<-- [end:refused]


# --8<-- [start:wrong_scale]
y, y_weights = mha(x, x, x, average_attn_weights=False)
w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o = cut(mha)
# sqrt(E) instead of sqrt(D) under the scores: queries too small
shrink = (D / E) ** 0.5
heads, weights = paper(
    x, w_q * shrink, w_k, w_v, w_o, b_q * shrink, b_k, b_v, b_o
)
scaled = sum(heads[i] @ w_o[i] for i in range(H)) + b_o
assert not torch.allclose(scaled, y)
refused(weights, y_weights)
refused(scaled, y)
# --8<-- [end:wrong_scale]
# the same by the definition: the module's own queries and keys over the root of E
q, k, _ = F.linear(x, mha.in_proj_weight, mha.in_proj_bias).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
torch.testing.assert_close(weights, (q @ k.mT / E**0.5).softmax(-1))  # guard: root_of_the_width
assert weights.amax(-1).mean() < y_weights.amax(-1).mean() - 0.1  # guard: flatter
# small queries and keys make attention flat, and the wrong scale hard to see
b_q, b_k = b_q / 10, b_k / 10
flat = paper(x, w_q / 10, w_k / 10, w_v, w_o, b_q, b_k, b_v, b_o)[1]
flat_wrong = paper(x, w_q / 10 * shrink, w_k / 10, w_v, w_o, b_q * shrink, b_k, b_v, b_o)[1]
assert (flat_wrong - flat).abs().max() < 0.02 < 0.2 < (weights - y_weights).abs().max()  # guard: flat_hides

# --8<-- [start:wrong_order]
heads, weights = paper(x, *cut(mha))
# the last head's output meets the first rows of W^O
reordered = torch.cat(heads[::-1], -1) @ w_o.flatten(0, 1) + b_o
assert not torch.allclose(reordered, y)
refused(reordered, y)
# both sides in the new order: nothing changes
w_square = w_o.flip(0).flatten(0, 1)
both_sides = torch.cat(heads[::-1], -1) @ w_square + b_o
torch.testing.assert_close(both_sides, y)
# --8<-- [end:wrong_order]
crossed = sum(heads[H - 1 - i] @ w_o[i] for i in range(H)) + b_o
torch.testing.assert_close(reordered, crossed)  # guard: another_heads_matrix

# --8<-- [start:wrong_transpose]
# (E, E) either way round, so nothing complains
transposed = torch.cat(heads, -1) @ mha.out_proj.weight + b_o
assert not torch.allclose(transposed, y)
refused(transposed, y)
# --8<-- [end:wrong_transpose]
# W^O (E, E) from W_i^O, used the wrong way round
by_columns = F.linear(torch.cat(heads, -1), w_o.flatten(0, 1), b_o)
torch.testing.assert_close(transposed, by_columns)  # guard: transposed_matrix

import copy

from torch.utils._python_dispatch import TorchDispatchMode


class Kernels(TorchDispatchMode):
    """Keeps the names of the kernels of attention that run."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "attention" in function.name() or "softmax" in function.name():
            names.add(function.name())
        return function(*args, **(kwargs or {}))


frozen, fixed = copy.deepcopy(mha).eval().requires_grad_(False), x.detach()
taken = []
for layer, given, options in ((mha, x, {}), (mha, x, {"need_weights": False}), (frozen, fixed, {})):
    names = set()
    with Kernels():
        torch.testing.assert_close(layer(given, given, given, **options)[0], y)  # guard: last_digits
    taken.append(names)
asked, not_asked, nothing_requires_grad = taken
assert asked.isdisjoint(not_asked)  # guard: kernels_without_weights
assert nothing_requires_grad.isdisjoint(asked | not_asked)  # guard: kernels_in_evaluation

# --8<-- [start:answer]
H = 1
D = E // H
mha = module(torch.float64, E, H)
y, y_weights = mha(x, x, x)
w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o = cut(mha)
shrink = (D / E) ** 0.5
heads, weights = paper(
    x, w_q * shrink, w_k, w_v, w_o, b_q * shrink, b_k, b_v, b_o
)
# wrong scale, wrong order: nothing to see
torch.testing.assert_close(weights[:, 0], y_weights)
reordered = torch.cat(heads[::-1], -1) @ w_o.flatten(0, 1) + b_o
torch.testing.assert_close(reordered, y)
transposed = torch.cat(heads, -1) @ mha.out_proj.weight + b_o
assert not torch.allclose(transposed, y)
refused(transposed, y)
# --8<-- [end:answer]
