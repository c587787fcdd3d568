"""Scaled dot-product attention: shapes, what it is indifferent to, and why it divides by sqrt(d_k)."""

# --8<-- [start:setup]
import torch
import torch.nn.functional as F

torch.manual_seed(2)
torch.set_default_dtype(torch.float64)
N, M, d_k, d_v = 5, 7, 6, 4
Q, K, V = torch.randn(N, d_k), torch.randn(M, d_k), torch.randn(M, d_v)
# --8<-- [end:setup]


# --8<-- [start:formula]
def attention(Q, K, V):
    # (N, M): row i holds what query i makes of every key
    scores = Q @ K.T / K.shape[-1] ** 0.5
    weights = scores.softmax(dim=-1)
    # (N, d_v)
    return weights @ V, weights


output, weights = attention(Q, K, V)
torch.testing.assert_close(weights.sum(dim=-1), torch.ones(N))
assert output.shape == (N, d_v)
assert weights.shape == (N, M)
print(f"Q {tuple(Q.shape)}  K {tuple(K.shape)}  V {tuple(V.shape)}")
print(f"weights {tuple(weights.shape)}  output {tuple(output.shape)}")
# --8<-- [end:formula]
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
show("queries", N)
show("keys", M)
show("d_k", d_k)
show("d_v", d_v)

# --8<-- [start:pytorch]
fused = F.scaled_dot_product_attention(Q[None], K[None], V[None])[0]
torch.testing.assert_close(fused, output)

wrong_scale = (Q @ K.T / M**0.5).softmax(-1) @ V
assert not torch.allclose(wrong_scale, fused)
named = {"ours": output, "torch": fused, "/√M": wrong_scale}
for name, x in named.items():
    print(f"{name:6}", *(f"{number:+.4f}" for number in x[0]))

try:
    attention(torch.randn(N, d_k + 1), K, V)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("queries and keys of different widths")
# --8<-- [end:pytorch]
show("wrong_scale", f"{(wrong_scale - fused).abs().max():.2f}")


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
order = torch.randperm(M)
both, _ = attention(Q, K[order], V[order])
torch.testing.assert_close(both, output)
keys_only, _ = attention(Q, K[order], V)
assert not torch.allclose(keys_only, output)

rows = torch.randperm(N)
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
    dots = (q * k).sum(-1)
    # 5 standard errors; a sum of d such products has kurtosis 3 + 6/d
    bound = 5 * ((2 + 6 / d) / draws) ** 0.5
    assert (dots.var() / d - 1).abs() < bound
    assert ((dots * d**-0.5).var() - 1).abs() < bound
    variance = dots.var()
    print(f"d {d:4d}  variance {variance:7.2f}  / d {variance / d:.3f}")
# --8<-- [end:variance]
show("draws", f"{draws:,}")
show("first_width", widths[0])
show("last_width", widths[-1])
show("widest_bound", f"{5 * ((2 + 6 / widths[0]) / draws) ** 0.5:.3f}")


# --8<-- [start:saturation]
def gradient_size(scores):
    # norm of the softmax Jacobian, diag(w) - w w^T
    w = scores.softmax(-1)
    jacobian = torch.diag_embed(w) - w[..., None] * w[..., None, :]
    return jacobian.flatten(-2).norm(dim=-1)


plain, scaled, rows, keys = [], [], 2000, 8
for d in widths:
    q, k = torch.randn(rows, 1, d), torch.randn(rows, keys, d)
    scores = (q * k).sum(-1)
    plain.append(gradient_size(scores))
    scaled.append(gradient_size(scores / d**0.5))
    medians = plain[-1].median(), scaled[-1].median()
    print(f"d {d:4d}  plain {medians[0]:.1e}  scaled {medians[1]:.3f}")
row, softmax = scores[0] / d**0.5, torch.nn.Softmax(dim=-1)
jacobian = torch.autograd.functional.jacobian(softmax, row)
torch.testing.assert_close(gradient_size(row), jacobian.norm())
# --8<-- [end:saturation]
show("rows", f"{rows:,}")
show("saturation_keys", keys)
show("plain_first", f"{plain[0].median():.3f}")
show("plain_last", f"{plain[-1].median():.0e}")
show("scaled_first", f"{scaled[0].median():.3f}")
show("scaled_last", f"{scaled[-1].median():.3f}")

# --8<-- [start:dies]
# 60 % of the draws lie below: 9 standard deviations from one half
assert plain[-1].quantile(0.6) < plain[0].quantile(0.4) / 100
lowest = torch.stack([s.quantile(0.4) for s in scaled])
highest = torch.stack([s.quantile(0.6) for s in scaled])
least_ratio = 0.9
assert lowest.min() > least_ratio * highest.max()
at_least, at_most = plain[0].quantile(0.4), plain[-1].quantile(0.6)
print(f"plain   {at_least:.3f} -> {at_most:.1e}")
print(f"scaled  {lowest.min():.3f} .. {highest.max():.3f}")
# --8<-- [end:dies]
show("least_ratio", least_ratio)
show("lowest", f"{lowest.min():.3f}")
show("highest", f"{highest.max():.3f}")
show("deviations", f"{0.1 * rows / (rows * 0.25) ** 0.5:.0f}")
figure(
    "saturation",
    "curves",
    {
        "x": torch.tensor(widths, dtype=torch.float64),
        "plain": torch.stack([p.median() for p in plain]),
        "scaled": torch.stack([s.median() for s in scaled]),
    },
    labels={"log": ["x", "y"]},
)

# --8<-- [start:mask]
allowed = torch.tensor([1, 1, 0, 1, 0, 1, 1]).bool()
scores = Q @ K.T / d_k**0.5
masked = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
assert masked[:, ~allowed].abs().max() == scores.new_zeros(())
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

# --8<-- [start:axis]
# a softmax keeps the shape, so the wrong axis raises nothing
wrong = (Q @ K.T / d_k**0.5).softmax(dim=0)
assert wrong.shape == weights.shape
assert not torch.allclose(wrong @ V, output)
torch.testing.assert_close(wrong.sum(dim=0), torch.ones(M))
assert not torch.allclose(wrong.sum(dim=-1), torch.ones(N))
print(f"row sums, dim=-1 {weights.sum(-1)}")
print(f"row sums, dim=0  {wrong.sum(-1)}")
# --8<-- [end:axis]

# --8<-- [start:identity]
seen = F.scaled_dot_product_attention(
    Q[None], K[None], torch.eye(M)[None]
)[0]
torch.testing.assert_close(seen, weights)
torch.testing.assert_close(seen @ V, output)
print(f"seen {tuple(seen.shape)}")
print(*(f"{w:.4f}" for w in seen[0]))
print(*(f"{w:.4f}" for w in weights[0]))
# --8<-- [end:identity]
