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
    # (..., S): 0 where query and key coincide, else below
    similarity = -((query[..., None] - key) ** 2) / 2
    return (similarity / T).softmax(-1)


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
T = 0.25
print(f"soft     {soft(query, T):.4f}")
for k, w in zip(key, attention_weights(query, T), strict=True):
    print(f"key {k:.1f}  weight {w:.4f}")
# --8<-- [end:ask]
kernel = torch.exp(-((query - key) ** 2) / (2 * 0.25))
torch.testing.assert_close(soft(query, 0.25), kernel @ value / kernel.sum())  # guard: formula
at, top = attention_weights(query, 0.25), (query - key).abs().argmin()
by_distance = at[(query - key).abs().argsort()]
assert (by_distance.diff() < 0).all()  # guard: nearer_weighs_more
assert at[top - 1] + at[top + 1] > 0.9 * (1 - at[top])  # guard: neighbours_share_the_rest
show("key_list", " ".join(f"{k:g}" for k in key.tolist()))
show("value_list", " ".join(f"{v:g}" for v in value.tolist()))
show("query", f"{query:g}")
show("temperature", f"{T:g}")
show("nearest", f"{nearest(query):.1f}")
show("soft", f"{soft(query, T):.4f}")
show("top_weight", f"{attention_weights(query, T).max():.4f}")

# --8<-- [start:mean]
queries = torch.linspace(-1, 6, 141)
ranges = []
for T in (0.01, 0.25, 100.0):
    weights = attention_weights(queries, T)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(141))
    answers = weights @ value
    low, high = answers.min(), answers.max()
    # beyond the values by rounding at most
    assert value.min() - 1e-12 < low <= high < value.max() + 1e-12
    ranges.append(high - low)
    print(f"T {T:6.2f}  {low:.4f} .. {high:.4f}")
# --8<-- [end:mean]
assert ranges[0] > ranges[1] > ranges[2]  # guard: hotter_is_narrower
# values of 3 dimensions: how far the values, and the answers, reach in each direction
own = torch.Generator().manual_seed(1)
points, directions = torch.randn(S, 3, generator=own), torch.randn(3, 1000, generator=own)
farthest = (points @ directions).amax(0)
for T in (0.01, 0.25, 100.0):
    reach = attention_weights(queries, T) @ points @ directions
    assert (reach <= farthest + 1e-12).all()  # guard: convex_hull
show("directions", f"{directions.shape[1]:,}")
show("first_query", f"{queries[0]:g}".replace("-", "−"))
show("last_query", f"{queries[-1]:g}")
show("low", f"{value.min():g}")
show("high", f"{value.max():g}")

# --8<-- [start:cold]
similarity = -((query - key) ** 2) / 2
first, second = similarity.topk(2).values
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
centred = similarity - similarity.mean()
covariance = (centred * (value - mean)).mean()
for T in (10.0, 100.0, 1000.0, 10000.0):
    shift = soft(query, T) - mean
    print(f"T {T:7.0f}  off by {shift:+.3e}  T * {shift * T:+.4f}")
rate = shift * T
torch.testing.assert_close(rate, covariance, rtol=1e-3, atol=0.0)
print(f"mean {mean:.4f}  covariance {covariance:+.4f}")
# --8<-- [end:hot]
assert (attention_weights(query, T) - 1 / S).abs().max() < 1e-4  # guard: all_weights_equal
show("mean", f"{mean:g}")
show("covariance", f"{covariance:.4f}".replace("-", "−"))

# --8<-- [start:words]
from running_example import W_K, W_Q, W_V, X

# what word 1 asks, what all five offer, the colours they hold
asked, offered = X[1] @ W_Q[0], X @ W_K[0]
colours = (X @ W_V[0])[:, 2]
# a dot product in place of nearness
match = offered @ asked
print("match  ", *(f"{m:5.2f}" for m in match))
print("colours", *(f"{c:5.2f}" for c in colours))
temperatures = [0.1, 3**0.5, 100.0]
for T in temperatures:
    answer = (match / T).softmax(-1) @ colours
    print(f"T {T:6.2f}  answer {answer:+.2f}")
# no key equals the query
assert not (offered == asked).all(-1).any()
# --8<-- [end:words]
black = 0
assert match.argmax() == black  # guard: the_word_before_matches_best
coldest, at_root, hottest = ((match / T).softmax(-1) @ colours for T in temperatures)
torch.testing.assert_close(coldest, colours[black])  # guard: cold_is_the_best_match
assert (hottest - colours.mean()).abs() < 0.05  # guard: hot_is_near_the_mean
by_attention = F.scaled_dot_product_attention(asked[None, None], offered[None], (X @ W_V[0])[None])
torch.testing.assert_close(at_root, by_attention[0, 0, 2])  # guard: what_attention_answers
show("word_answer", f"{at_root:.2f}".replace("-", "−"))
show("word_root", f"{temperatures[1]:.2f}")
show("word_cold", f"{temperatures[0]:g}")
show("word_mean", f"{colours.mean():g}")

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
torch.testing.assert_close(soft(queries, s**2), regression)  # guard: temperature_is_s_squared
positive = queries[queries > 0]
winners = (positive[:, None] * key).argmax(-1)
assert winners.unique().tolist() == [key.argmax()]  # guard: largest_key_wins
show("without_error", f"{(without - regression).abs().max():.2f}")
fine = torch.linspace(0, 5, 101)
narrow, middling, wide = 0.1, 0.5, 2.0
curves = {"s_narrow": soft(fine, narrow**2), "s_middling": soft(fine, middling**2), "s_wide": soft(fine, wide**2)}
assert (soft(key, narrow**2) - value).abs().max() < 1e-6  # guard: through_the_points
steepest = {name: curve.diff().abs().max() for name, curve in curves.items()}
assert steepest["s_narrow"] > 5 * steepest["s_middling"]  # guard: steps_are_smoothed
assert (curves["s_wide"] - mean).abs().max() < 0.15 * spread  # guard: nearly_flat
for name, width in {"narrow": narrow, "middling": middling, "wide": wide}.items():
    show(name, f"{width:g}")
figure(
    "soft_dictionary",
    "curves",
    {"x": fine, **curves, "entries": value, "entry_keys": key},
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
radius = torch.full((S,), 1.5)
torch.testing.assert_close(on_circle.norm(dim=-1), radius)  # guard: one_norm

# --8<-- [start:zero]
print(f"T = 0    {soft(query, 0.0):.4f}")
assert soft(query, 0.0).isnan()
print(f"T = -1   {soft(query, -1.0):.4f}")
farthest_key = (query - key).abs().argmax()
assert attention_weights(query, -1.0).argmax() == farthest_key

# in one dimension a dot product asks "how large?", not "how near?"
asked, different = (0.6, 2.0, 4.0), 0
for q in asked:
    largest, near = (q * key).argmax(), (q - key).abs().argmin()
    assert largest == key.argmax()
    different += int(largest != near)
    print(f"query {q}  dot {key[largest]:.1f}  near {key[near]:.1f}")
# --8<-- [end:zero]
assert 0 < different < len(asked)  # guard: dot_product_is_not_nearness
show("different", different)
show("asked", len(asked))

# --8<-- [start:twice]
again = torch.cat([key, key[2:3]])
answers = torch.cat([value, value[2:3]])
doubled = -((query - again) ** 2) / 2
twice = (doubled / 0.25).softmax(-1)

# the same by a term added to key 2 before the softmax
extra = torch.zeros(S)
extra[2] = torch.tensor(2.0).log()
once = (similarity / 0.25 + extra).softmax(-1)
torch.testing.assert_close(twice @ answers, once @ value)
torch.testing.assert_close(twice[2] + twice[5], once[2])
print(f"stored once   {soft(query, 0.25):.4f}")
print(f"stored twice  {twice @ answers:.4f}")
assert not torch.allclose(twice @ answers, soft(query, 0.25))
# --8<-- [end:twice]
entries = dict(zip(key.tolist(), value.tolist(), strict=True))
overwritten = dict(zip(again.tolist(), answers.tolist(), strict=True))
assert overwritten == entries  # guard: overwritten
show("twice", f"{twice @ answers:.4f}")
show("doubled", f"{key[2]:g}")
