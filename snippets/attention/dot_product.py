"""What a dot product rewards: angle and norm, and what each does to a row of attention weights."""

# --8<-- [start:setup]
import torch
import torch.nn.functional as F

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
N, M, d_k = 3, 5, 2
Q = torch.tensor([[1.2, 0.6], [-0.4, 1.0], [0.3, -1.5]])
K = torch.tensor(
    [[0.7, 0.6], [0.2, 1.4], [-1.0, 0.8], [-0.6, -1.1], [1.9, -0.7]]
)
value = torch.tensor([1.0, 2.2, 0.4, 1.7, 2.9])
scale = d_k**-0.5
# --8<-- [end:setup]
show("seed", torch.initial_seed())
show("query_list", " ".join(f"{x:g}" for x in Q[0].tolist()))
show("key_list", " ".join(f"{x:g}" for x in K.flatten().tolist()))
show("value_list", " ".join(f"{x:g}" for x in value.tolist()))

# --8<-- [start:entry]
scores = Q @ K.T
for i in range(N):
    for j in range(M):
        torch.testing.assert_close(scores[i, j], Q[i].dot(K[j]))
# (N, M): cosine of the angle between query i and key j
cosine = F.cosine_similarity(Q[:, None], K[None], dim=-1)
norms = Q.norm(dim=-1)[:, None] * K.norm(dim=-1)
torch.testing.assert_close(norms * cosine, scores)
weights = (scores * scale).softmax(-1)
assert torch.equal(weights.argsort(-1), scores.argsort(-1))
for j in range(M):
    degrees = cosine[0, j].acos().rad2deg()
    print(
        f"key {j}  norm {K[j].norm():.3f}  angle {degrees:5.1f}"
        f"  dot {scores[0, j]:+.2f}  weight {weights[0, j]:.3f}"
    )
# --8<-- [end:entry]
show("weight_4", f"{weights[0, 4]:.3f}")
show("weight_0", f"{weights[0, 0]:.3f}")
show("angle_0", f"{cosine[0, 0].acos().rad2deg():.0f}")
show("angle_4", f"{cosine[0, 4].acos().rad2deg():.0f}")
show("cosine_winner", int(cosine[0].argmax()))
show("dot_winner", int(scores[0].argmax()))

# --8<-- [start:longer_key]
def stretched(j, factor):
    # the weights of query 0 when key j alone is stretched
    longer = K.clone()
    longer[j] *= factor
    return (longer @ Q[0] * scale).softmax(-1)


for j in range(M):
    before, after = weights[0, j], stretched(j, 2.0)[j]
    assert (after > before) == (scores[0, j] > 0)
    print(
        f"key {j}  dot {scores[0, j]:+.2f}"
        f"  weight {before:.3f} -> {after:.3f}"
    )
# --8<-- [end:longer_key]
show("positive_before", f"{weights[0, 0]:.3f}")
show("positive_after", f"{stretched(0, 2.0)[0]:.3f}")
show("negative_before", f"{weights[0, 3]:.3f}")
show("negative_after", f"{stretched(3, 2.0)[3]:.3f}")
factors = torch.linspace(0, 4, 81)
figure(
    "dot_product",
    "curves",
    {"x": factors}
    | {
        f"key_{j}": torch.stack([stretched(j, factor)[j] for factor in factors])
        for j in range(M)
    },
    labels={},
)

# --8<-- [start:halves]
draws, d = 10_000, 6
q, k = torch.randn(draws, d), torch.randn(draws, M, d)
longer = k.clone()
longer[:, 0] *= 1.5
dots = (k @ q[..., None]).squeeze(-1)
before = (dots * d**-0.5).softmax(-1)[:, 0]
longer_dots = (longer @ q[..., None]).squeeze(-1)
after = (longer_dots * d**-0.5).softmax(-1)[:, 0]
positive = dots[:, 0] > 0
assert (after[positive] > before[positive]).all()
assert (after[~positive] < before[~positive]).all()
fell = (after < before).double().mean()
# fair coin: 5 standard deviations of a mean of `draws` flips
assert (fell - 0.5).abs() < 5 * 0.5 / draws**0.5
print(f"draws {draws}  weight fell in {fell:.3f}")
# --8<-- [end:halves]
show("draws", f"{draws:,}")
show("fell", f"{fell:.3f}")
show("coin_bound", f"{5 * 0.5 / draws**0.5:.3f}")

# --8<-- [start:longer_query]
def entropy(weights):
    return -torch.special.xlogy(weights, weights).sum(-1)


scaled = dots * d**-0.5
flat = scaled.softmax(-1)
for c in (0.5, 1.5, 3.0):
    row = ((k @ (c * q)[..., None]).squeeze(-1) * d**-0.5).softmax(-1)
    # a query c times as long is a temperature of 1 / c
    T = 1 / c
    torch.testing.assert_close(row, (scaled / T).softmax(-1))
    # sorted by the old scores, the new weights never go down
    sorted_row = row.gather(-1, dots.argsort(-1))
    assert (sorted_row.diff(dim=-1) >= 0).all()
    sharper = entropy(row) < entropy(flat)
    higher = row.amax(-1) > flat.amax(-1)
    lower = row.amin(-1) < flat.amin(-1)
    for change in (sharper, higher, lower):
        assert change.all() if c > 1 else not change.any()
    top, spread = row.amax(-1).mean(), entropy(row).mean()
    print(f"c {c}  top weight {top:.3f}  entropy {spread:.3f}")
# --8<-- [end:longer_query]

# --8<-- [start:cosine]
by_product, by_cosine = scores[0].argmax(), cosine[0].argmax()
assert by_product != by_cosine
print(f"dot product: key {by_product}  cosine: key {by_cosine}")

unit = F.normalize(K, dim=-1)
assert torch.equal((Q @ unit.T).argmax(-1), cosine.argmax(-1))

similar = F.cosine_similarity(q[:, None], k, dim=-1)
disagree = (similar.argmax(-1) != dots.argmax(-1)).double().mean()
# 5 standard deviations of a share of `draws`, at most 0.5 each
assert disagree > 0.1 + 5 * 0.5 / draws**0.5
print(f"draws {draws}  winners disagree in {disagree:.3f}")
# --8<-- [end:cosine]
show("disagree", f"{disagree:.3f}")
show("cosine_bound", f"{0.1 + 5 * 0.5 / draws**0.5:.3f}")

# --8<-- [start:gradient]
V = torch.randn(M, 3)


def output(query):
    return (K @ query * scale).softmax(-1) @ V


# (3, d_k): how every output feature moves with the query
jacobian = torch.autograd.functional.jacobian(output, Q[0])
w = weights[0]
key_mean, value_mean = w @ K, w @ V
covariance = (V - value_mean).T @ torch.diag(w) @ (K - key_mean)
torch.testing.assert_close(jacobian, covariance * scale)
assert not torch.allclose(jacobian, covariance)
print(f"jacobian {tuple(jacobian.shape)}")
print(jacobian)
# --8<-- [end:gradient]
show("scale", f"{scale:.4f}")

# --8<-- [start:shift]
shift = torch.randn(d_k)
moved_keys = (Q @ (K + shift).T * scale).softmax(-1)
torch.testing.assert_close(moved_keys, weights)
assert not torch.equal(Q @ (K + shift).T, scores)

moved_query = ((Q + shift) @ K.T * scale).softmax(-1)
assert not torch.allclose(moved_query, weights)
for row in (weights, moved_keys, moved_query):
    print(*(f"{w:.4f}" for w in row[0]))
# --8<-- [end:shift]
show("shift_query", f"{(moved_query - weights).abs().max():.2f}")
