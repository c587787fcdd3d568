"""A dictionary that answers with a weighted mean: its two limits, and regression with a Gaussian kernel."""

# --8<-- [start:setup]
import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
S = 5
key = torch.tensor([0.5, 1.2, 2.3, 3.1, 4.6])
value = torch.tensor([1.0, 2.2, 0.4, 1.7, 2.9])
query = torch.tensor(2.0)
# --8<-- [end:setup]


# --8<-- [start:three]
def exact(query):
    entries = dict(zip(key.tolist(), value.tolist(), strict=True))
    return entries[query.item()]


def nearest(query):
    return value[(query - key).abs().argmin()]


def attention_weights(query, T):
    # (..., S): the nearer the key, the higher the score
    scores = -((query[..., None] - key) ** 2) / 2
    return (scores / T).softmax(-1)


def soft(query, T):
    return attention_weights(query, T) @ value
# --8<-- [end:three]


# --8<-- [start:ask]
assert exact(key[2]) == nearest(key[2]).item()
try:
    exact(query)
except KeyError as error:
    print(f"exact    KeyError {error}")
else:
    raise AssertionError("exact() answered")
print(f"nearest  {nearest(query):.4f}")
print(f"soft     {soft(query, 0.25):.4f}")
for k, w in zip(key, attention_weights(query, 0.25), strict=True):
    print(f"key {k:.1f}  weight {w:.4f}")
# --8<-- [end:ask]
show("key_list", " ".join(f"{k:g}" for k in key.tolist()))
show("value_list", " ".join(f"{v:g}" for v in value.tolist()))
show("query", f"{query:g}")
show("temperature", f"{0.25:g}")
show("nearest", f"{nearest(query):.1f}")
show("soft", f"{soft(query, 0.25):.4f}")
show("top_weight", f"{attention_weights(query, 0.25).max():.4f}")

# --8<-- [start:mean]
queries = torch.linspace(-1, 6, 141)
points = torch.randn(S, 3)
directions = torch.randn(3, 1000)
farthest = (points @ directions).max(dim=0).values
ranges = []
for T in (0.01, 0.25, 100.0):
    weights = attention_weights(queries, T)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(141))
    # (141, 1000): how far the output reaches in each direction
    reach = weights @ points @ directions
    assert (reach <= farthest + 1e-12).all()
    answers = weights @ value
    ranges.append(answers.max() - answers.min())
    print(f"T {T:6.2f}  {answers.min():.4f} .. {answers.max():.4f}")
assert ranges[0] > ranges[1] > ranges[2]
# --8<-- [end:mean]
show("directions", f"{directions.shape[1]:,}")
show("first_query", f"{queries[0]:g}")
show("last_query", f"{queries[-1]:g}")
show("low", f"{value.min():g}")
show("high", f"{value.max():g}")

# --8<-- [start:cold]
scores = -((query - key) ** 2) / 2
first, second = scores.topk(2).values
gap = first - second
spread = value.max() - value.min()
errors, coldness = [], torch.tensor([10.0, 20.0, 40.0, 80.0])
for inverse_T in coldness:
    error = (soft(query, 1 / inverse_T) - nearest(query)).abs()
    assert error <= (S - 1) * spread * torch.exp(-gap * inverse_T)
    errors.append(error)
    print(f"T {1 / inverse_T:.4f}  error {error:.3e}")
logs = torch.stack(errors).log()
rate = (logs[2] - logs[3]) / (coldness[3] - coldness[2])
torch.testing.assert_close(rate, gap, rtol=1e-4, atol=0.0)
print(f"gap {gap:.4f}  rate {rate:.4f}")
# --8<-- [end:cold]
show("gap", f"{gap:.3f}")
show("cold_error", f"{errors[3]:.1e}")
show("cold_temperature", f"{1 / coldness[3]:g}")

# --8<-- [start:tie]
middle = (key[1] + key[2]) / 2
both = (value[1] + value[2]) / 2
torch.testing.assert_close(soft(middle, 1e-3), both)
assert not torch.allclose(soft(middle, 1e-3), value[1])
assert not torch.allclose(soft(middle, 1e-3), value[2])
print(f"query {middle:.4f}  soft {soft(middle, 1e-3):.4f}")
print(f"values {value[1]:.4f} {value[2]:.4f}")
# --8<-- [end:tie]
show("middle", f"{middle:g}")
show("both", f"{both:g}")

# --8<-- [start:hot]
mean = value.mean()
covariance = ((scores - scores.mean()) * (value - mean)).mean()
for T in (10.0, 100.0, 1000.0, 10000.0):
    distance = soft(query, T) - mean
    print(f"T {T:7.0f}  off by {distance:+.3e}  T * {distance * T:+.4f}")
rate = distance * T
torch.testing.assert_close(rate, covariance, rtol=1e-3, atol=0.0)
print(f"mean {mean:.4f}  covariance {covariance:+.4f}")
# --8<-- [end:hot]
show("mean", f"{mean:g}")
show("covariance", f"{covariance:.4f}")

# --8<-- [start:kernel]
s = 0.5
# (141, S): the Gaussian of width s around every key
kernel = torch.exp(-((queries[:, None] - key) ** 2) / (2 * s**2))
regression = (kernel @ value) / kernel.sum(-1)

extra = -(key**2) / (2 * s**2)
Q, K, V = queries[:, None], key[:, None], value[:, None]
attention = F.scaled_dot_product_attention(
    Q[None], K[None], V[None], attn_mask=extra[None], scale=1 / s**2
)[0, :, 0]
torch.testing.assert_close(attention, regression)
without = F.scaled_dot_product_attention(
    Q[None], K[None], V[None], scale=1 / s**2
)[0, :, 0]
assert not torch.allclose(without, regression)
for i in (20, 60, 100):
    print(
        f"query {queries[i]:.1f}  regression {regression[i]:.4f}"
        f"  attention {attention[i]:.4f}  without {without[i]:.4f}"
    )
# --8<-- [end:kernel]
show("without_error", f"{(without - regression).abs().max():.2f}")
fine = torch.linspace(0, 5, 101)
figure(
    "soft_dictionary",
    "curves",
    {
        "x": fine,
        "s_010": soft(fine, 0.1**2),
        "s_050": soft(fine, 0.5**2),
        "s_200": soft(fine, 2.0**2),
        "entries": value,
        "entry_keys": key,
    },
    labels={"points": ["entries"], "x": {"entries": "entry_keys"}},
)

# --8<-- [start:circle]
angle = torch.rand(S) * 2 * torch.pi
on_circle = 1.5 * torch.stack([angle.cos(), angle.sin()], dim=-1)
plane = torch.randn(11, 2)
kernel = torch.exp(-(torch.cdist(plane, on_circle) ** 2) / (2 * s**2))
regression = (kernel @ value) / kernel.sum(-1)
attention = F.scaled_dot_product_attention(
    plane[None], on_circle[None], V[None], scale=1 / s**2
)[0, :, 0]
torch.testing.assert_close(attention, regression)
print("norms", *(f"{norm:.4f}" for norm in on_circle.norm(dim=-1)))
for r, a in zip(regression[:3], attention[:3], strict=True):
    print(f"regression {r:.4f}  attention {a:.4f}")
# --8<-- [end:circle]

# --8<-- [start:zero]
print(f"T = 0    {soft(query, 0.0):.4f}")
assert soft(query, 0.0).isnan()
print(f"T = -1   {soft(query, -1.0):.4f}")
farthest_key = (query - key).abs().argmax()
assert attention_weights(query, -1.0).argmax() == farthest_key

# in one dimension a dot product asks "how large?", not "how near?"
for q in (0.6, 2.0, 4.0):
    largest, near = (q * key).argmax(), (q - key).abs().argmin()
    assert largest == key.argmax()
    print(f"query {q}  dot {key[largest]:.1f}  near {key[near]:.1f}")
assert (query * key).argmax() != (query - key).abs().argmin()
# --8<-- [end:zero]

# --8<-- [start:twice]
again = torch.cat([key, key[2:3]])
answers = torch.cat([value, value[2:3]])
scores_again = -((query - again) ** 2) / 2
twice = (scores_again / 0.25).softmax(-1)

# the same by a term added to the score of key 2
extra = torch.zeros(S)
extra[2] = torch.tensor(2.0).log()
once = (scores / 0.25 + extra).softmax(-1)
torch.testing.assert_close(twice @ answers, once @ value)
torch.testing.assert_close(twice[2] + twice[5], once[2])
print(f"stored once   {soft(query, 0.25):.4f}")
print(f"stored twice  {twice @ answers:.4f}")
assert not torch.allclose(twice @ answers, soft(query, 0.25))
# --8<-- [end:twice]
show("twice", f"{twice @ answers:.4f}")
show("doubled", f"{key[2]:g}")
