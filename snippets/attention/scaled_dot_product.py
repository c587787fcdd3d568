"""Scaled dot-product attention: shapes, what it is indifferent to, and why it divides by sqrt(d_k)."""

from running_example import TOKENS

# --8<-- [start:setup]
import torch
import torch.nn.functional as F

torch.manual_seed(2)
torch.set_default_dtype(torch.float64)
L, S, d_k, d_v = 5, 7, 6, 4
Q, K, V = torch.randn(L, d_k), torch.randn(S, d_k), torch.randn(S, d_v)
# --8<-- [end:setup]


# --8<-- [start:formula]
def attention(Q, K, V):
    # (L, S): row i holds what query i makes of every key
    scores = Q @ K.T / K.shape[-1] ** 0.5
    weights = scores.softmax(dim=-1)
    # (L, d_v)
    return weights @ V, weights


output, weights = attention(Q, K, V)
torch.testing.assert_close(weights.sum(dim=-1), torch.ones(L))
assert output.shape == (L, d_v)
assert weights.shape == (L, S)
print(f"Q {tuple(Q.shape)}  K {tuple(K.shape)}  V {tuple(V.shape)}")
print(f"weights {tuple(weights.shape)}  output {tuple(output.shape)}")
# --8<-- [end:formula]
try:
    Q @ K  # guard: transposed_raises
except RuntimeError:
    pass
else:
    raise AssertionError("the keys need no transposing")
tensors = {"Q": Q, "K": K, "V": V, "scores": Q @ K.T, "output": output}
shape = {name: f"({tensor.shape[0]}, {tensor.shape[1]})" for name, tensor in tensors.items()}
figure(
    "sdpa",
    "flow",
    {},
    labels={
        "nodes": [
            {"id": "q", "text": "Q", "shape": shape["Q"], "column": 0, "row": 0, "role": "q"},
            {"id": "k", "text": "K", "shape": shape["K"], "column": 1, "row": 0, "role": "k"},
            {"id": "v", "text": "V", "shape": shape["V"], "column": 2, "row": 0, "role": "v"},
            {"id": "matmul", "text": "Q @ K.T", "shape": shape["scores"], "column": 0.5, "row": 1, "role": "x"},
            {"id": "scale", "text": "/ sqrt(d_k)", "shape": shape["scores"], "column": 0.5, "row": 2, "role": "x"},
            {"id": "mask", "text": "+ mask", "shape": shape["scores"], "column": 0.5, "row": 3, "role": "x"},
            {"id": "softmax", "text": "softmax", "shape": shape["scores"], "column": 0.5, "row": 4, "role": "x"},
            {"id": "weighted", "text": "weights @ V", "shape": shape["output"], "column": 1, "row": 5, "role": "o"},
        ],
        "edges": [
            ["q", "matmul"],
            ["k", "matmul"],
            ["matmul", "scale"],
            ["scale", "mask"],
            ["mask", "softmax"],
            ["softmax", "weighted"],
            ["v", "weighted"],
        ],
    },
)
show("seed", torch.initial_seed())
show("queries", L)
show("keys", S)
show("d_k", d_k)
show("d_v", d_v)

# --8<-- [start:pytorch]
fused = F.scaled_dot_product_attention(Q[None], K[None], V[None])[0]
torch.testing.assert_close(fused, output)

wrong_scale = (Q @ K.T / S**0.5).softmax(-1) @ V
assert not torch.allclose(wrong_scale, fused)
named = {"ours": output, "torch": fused, "/√S": wrong_scale}
for name, x in named.items():
    print(f"{name:6}", *(f"{number:+.4f}" for number in x[0]))

try:
    attention(torch.randn(L, d_k + 1), K, V)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("queries and keys of different widths")
# --8<-- [end:pytorch]
by_keys = F.scaled_dot_product_attention(Q[None], K[None], V[None], scale=S**-0.5)[0]
torch.testing.assert_close(wrong_scale, by_keys)  # guard: divided_by_the_number_of_keys
show("wrong_scale", f"{(wrong_scale - fused).abs().max():.2f}")

# --8<-- [start:words]
from running_example import W_K, W_Q, W_V, X

# (5, 3) each: five words, and what each asks, offers, holds
asks, offers, holds = X @ W_Q[0], X @ W_K[0], X @ W_V[0]
found, divided = attention(asks, offers, holds)
not_divided = (asks @ offers.T).softmax(dim=-1)
print("divided    ", *(f"{w:.2f}" for w in divided[1]))
print("not divided", *(f"{w:.2f}" for w in not_divided[1]))
print("value of 0 ", *(f"{v:5.2f}" for v in holds[0]))
print("output of 1", *(f"{o:5.2f}" for o in found[1]))
assert (not_divided.amax(-1) > divided.amax(-1)).all()
# --8<-- [end:words]
black, cat, _, white, dog = range(5)
assert divided[[cat, dog]].argmax(-1).tolist() == [black, white]  # guard: each_noun_its_adjective
show("black_divided", f"{divided[cat, black]:.2f}")
show("black_not_divided", f"{not_divided[cat, black]:.2f}")
show("told_colour", f"{found[cat, 2]:.2f}".replace("-", "−"))
figure(
    "words",
    "attention",
    {"weights": torch.stack([divided, not_divided])},
    {"queries": TOKENS, "keys": TOKENS, "heads": ["/ sqrt(D)", "plain"]},
)


# --8<-- [start:parameters]
class Attention(torch.nn.Module):
    def forward(self, Q, K, V):
        return attention(Q, K, V)[0]


def count(module):
    return sum(p.numel() for p in module.parameters())


module = Attention()
torch.testing.assert_close(module(Q, K, V), fused)
assert count(module) == 0
linear = torch.nn.Linear(d_k, d_k)
assert count(linear) == d_k * d_k + d_k
print(f"Attention {count(module)}  Linear {count(linear)}")
# --8<-- [end:parameters]
show("linear", count(linear))

# --8<-- [start:permute]
order = torch.randperm(S)
both, _ = attention(Q, K[order], V[order])
torch.testing.assert_close(both, output)
keys_only, _ = attention(Q, K[order], V)
assert not torch.allclose(keys_only, output)

rows = torch.randperm(L)
permuted, _ = attention(Q[rows], K, V)
torch.testing.assert_close(permuted, output[rows])
assert not torch.allclose(permuted, output)
for x in output, both, keys_only:
    print(*(f"{number:+.4f}" for number in x[0]))
# --8<-- [end:permute]

# --8<-- [start:variance]
draws = 8000
widths = [4, 16, 64, 256, 1024]
for d in widths:
    q, k = torch.randn(2, draws, d)
    variance = (q * k).sum(-1).var()
    assert 0.9 < variance / d < 1.1
    print(f"d {d:4d}  variance {variance:7.2f}  / d {variance / d:.3f}")
# --8<-- [end:variance]
show("draws", f"{draws:,}")
show("first_width", widths[0])
show("last_width", widths[-1])


# --8<-- [start:saturation]
def gradient_size(scores):
    # norm of the softmax Jacobian, diag(w) - w w^T
    w = scores.softmax(-1)
    jacobian = torch.diag_embed(w) - w[..., None] * w[..., None, :]
    return jacobian.flatten(-2).norm(dim=-1)


plain, scaled, rows, keys = [], [], 2000, 8
for d in widths:
    q, k = torch.randn(rows, 1, d), torch.randn(rows, keys, d)
    dots = (q * k).sum(-1)
    plain.append(gradient_size(dots))
    scaled.append(gradient_size(dots / d**0.5))
    medians = plain[-1].median(), scaled[-1].median()
    print(f"d {d:4d}  plain {medians[0]:.1e}  scaled {medians[1]:.3f}")
# --8<-- [end:saturation]
row = torch.linspace(-1, 1, keys)
jacobian = torch.autograd.functional.jacobian(lambda scores: scores.softmax(0), row)
torch.testing.assert_close(gradient_size(row), jacobian.norm())  # guard: norm_of_the_jacobian
assert (gradient_size(torch.eye(keys).log()) == 0).all()  # guard: one_weight_takes_all
plain_medians, scaled_medians = (torch.stack([run.median() for run in runs]) for runs in (plain, scaled))
torch.testing.assert_close(torch.stack(medians), torch.stack([plain_medians[-1], scaled_medians[-1]]))  # guard: last_printed
torch.testing.assert_close(scaled[-1], gradient_size(dots / dots.new_tensor(widths[-1]).sqrt()))  # guard: divided_by_the_root
assert plain_medians[-1] < plain_medians[0] / 100  # guard: plain_dies
assert (plain_medians.diff() < 0).all()  # guard: plain_falls
assert scaled_medians.min() > 0.9 * scaled_medians.max()  # guard: scaled_stays
*_, widest = plain
few = widest.topk(rows // 5).values
assert few.sum() > 0.9 * widest.sum()  # guard: few_rows_make_the_mean
# queries and keys with entries `times` as large
times = 3
large = gradient_size(times**2 * dots / d**0.5)
torch.testing.assert_close((times * q[:9] * times * k[:9]).sum(-1), times**2 * dots[:9])  # guard: times_squared
assert large.median() < scaled_medians[-1] / 5  # guard: not_of_variance_1
show("rows", f"{rows:,}")
show("saturation_keys", keys)
show("plain_first", f"{plain_medians[0]:.3f}")
show("plain_last", f"{plain_medians[-1]:.0e}")
show("scaled_first", f"{scaled_medians[0]:.3f}")
show("scaled_last", f"{scaled_medians[-1]:.3f}")
show("times", times)
show("times_squared", times**2)
show("large_median", f"{large.median():.3f}")
figure(
    "saturation",
    "curves",
    {"x": torch.tensor(widths, dtype=torch.float64), "plain": plain_medians, "scaled": scaled_medians},
    labels={"log": ["x", "y"]},
)

# --8<-- [start:mask]
allowed = torch.tensor([True, True, False, True, False, True, True])
scores = Q @ K.T / d_k**0.5
masked = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
assert (masked[:, ~allowed] == 0).all()
# the same as if those keys had never been there
alone, _ = attention(Q, K[allowed], V[allowed])
torch.testing.assert_close(masked @ V, alone)
fused = F.scaled_dot_product_attention(
    Q[None], K[None], V[None], attn_mask=allowed[None]
)[0]
torch.testing.assert_close(fused, alone)
late = weights.masked_fill(~allowed, 0.0)
assert (late.sum(-1) < 1).all()
print(masked[0])
print(f"zeroed after the softmax, row sums {late.sum(-1)}")
# --8<-- [end:mask]
torch.testing.assert_close(late.sum(-1), 1 - weights[:, ~allowed].sum(-1))  # guard: what_was_zeroed_is_missing

# --8<-- [start:axis]
# a softmax keeps the shape, so the wrong axis raises nothing
wrong = (Q @ K.T / d_k**0.5).softmax(dim=0)
assert wrong.shape == weights.shape
assert not torch.allclose(wrong @ V, output)
torch.testing.assert_close(wrong.sum(dim=0), torch.ones(S))
assert not torch.allclose(wrong.sum(dim=-1), torch.ones(L))
print(f"row sums, dim=-1 {weights.sum(-1)}")
print(f"row sums, dim=0  {wrong.sum(-1)}")
# --8<-- [end:axis]

# --8<-- [start:identity]
seen = F.scaled_dot_product_attention(
    Q[None], K[None], torch.eye(S)[None]
)[0]
torch.testing.assert_close(seen, weights)
torch.testing.assert_close(seen @ V, output)
print(f"seen {tuple(seen.shape)}")
print(*(f"{w:.4f}" for w in seen[0]))
print(*(f"{w:.4f}" for w in weights[0]))
# --8<-- [end:identity]
assert seen.shape == (L, S)  # guard: as_large_as_the_weights
