"""What a dot product rewards: angle and norm, and what each does to a row of attention weights."""

from itertools import pairwise

# --8<-- [start:setup]
import torch
import torch.nn.functional as F

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
L, S, D = 3, 5, 2
Q = torch.tensor([[1.2, 0.6], [-0.4, 1.0], [0.3, -1.5]])
K = torch.tensor(
    [[0.7, 0.6], [0.2, 1.4], [-1.0, 0.8], [-0.6, -1.1], [1.9, -0.7]]
)
value = torch.tensor([1.0, 2.2, 0.4, 1.7, 2.9])
# --8<-- [end:setup]
show("seed", torch.initial_seed())
show("query_list", " ".join(f"{x:g}" for x in Q[0].tolist()))
show("key_list", " ".join(f"{x:g}" for x in K.flatten().tolist()))
show("value_list", " ".join(f"{x:g}" for x in value.tolist()))

# --8<-- [start:entry]
dots = Q @ K.T
for i in range(L):
    for j in range(S):
        torch.testing.assert_close(dots[i, j], Q[i].dot(K[j]))
# (L, S): cosine of the angle between query i and key j
cosine = F.cosine_similarity(Q[:, None], K[None], dim=-1)
norms = Q.norm(dim=-1)[:, None] * K.norm(dim=-1)
torch.testing.assert_close(norms * cosine, dots)
weights = (dots / D**0.5).softmax(-1)
assert torch.equal(weights.argsort(-1), dots.argsort(-1))
for j in range(S):
    degrees = cosine[0, j].acos().rad2deg()
    print(
        f"key {j}  norm {K[j].norm():.3f}  angle {degrees:5.1f}"
        f"  dot {dots[0, j]:+.2f}  weight {weights[0, j]:.3f}"
    )
# --8<-- [end:entry]
nearest, winner = int(cosine[0].argmax()), int(weights[0].argmax())
angles = cosine[0].acos().rad2deg()
assert angles[nearest] < angles[winner]  # guard: wins_at_a_wider_angle
assert K[winner].norm() > K[nearest].norm()  # guard: wins_by_length
for name, j in {"nearest": nearest, "winner": winner}.items():
    show(name, j)
    show(f"{name}_angle", f"{angles[j]:.0f}")
    show(f"{name}_weight", f"{weights[0, j]:.3f}")

# --8<-- [start:words]
from running_example import W_K, W_Q, X

# (3,) and (5, 3): what word 1 asks, what all five offer
asked, offered = X[1] @ W_Q[0], X @ W_K[0]
lengths = offered.norm(dim=-1)
angles = F.cosine_similarity(asked, offered, dim=-1).acos().rad2deg()
products = offered @ asked
for j in range(5):
    print(
        f"key {j}  norm {lengths[j]:.2f}  angle {angles[j]:5.1f}"
        f"  dot {products[j]:+.2f}"
    )
# two ways to one dot product: longer, or nearer in angle
torch.testing.assert_close(products[1], products[3])
assert lengths[1] < lengths[3]
assert angles[1] < angles[3]
# --8<-- [end:words]
black, cat, joining, white, dog = range(5)
assert lengths[[cat, joining, dog]].max() < lengths[black]  # guard: adjectives_are_longest
assert angles.argmin() == products.argmax() == black  # guard: black_by_angle
torch.testing.assert_close(lengths[black], lengths[white])  # guard: adjectives_of_one_length
show("black_angle", f"{angles[black]:.0f}")
show("white_angle", f"{angles[white]:.0f}")
show("cat_angle", f"{angles[cat]:.0f}")

# --8<-- [start:longer_key]
def stretched(j, factor):
    # the weights of query 0 when key j alone is stretched
    longer = K.clone()
    longer[j] *= factor
    return (longer @ Q[0] / D**0.5).softmax(-1)


for j in range(S):
    before, after = weights[0, j], stretched(j, 2.0)[j]
    assert (after > before) == (dots[0, j] > 0)
    print(
        f"key {j}  dot {dots[0, j]:+.2f}"
        f"  weight {before:.3f} -> {after:.3f}"
    )
# --8<-- [end:longer_key]
show("positive_before", f"{weights[0, 0]:.3f}")
show("positive_after", f"{stretched(0, 2.0)[0]:.3f}")
show("negative_before", f"{weights[0, 3]:.3f}")
show("negative_after", f"{stretched(3, 2.0)[3]:.3f}")
factors = torch.linspace(0, 4, 81)
curves = {f"key_{j}": torch.stack([stretched(j, factor)[j] for factor in factors]) for j in range(S)}
assert [j for j in range(S) if dots[0, j] > 0] == [0, 1, 4]  # guard: signs
for j in range(S):
    rises = curves[f"key_{j}"].diff() > 0
    assert torch.equal(rises, (dots[0, j] > 0).expand(80))  # guard: rise_or_fall
    unchanged = curves[f"key_{j}"][factors == 1]
    torch.testing.assert_close(unchanged, weights[:1, j])  # guard: factor_1_is_the_original
figure("dot_product", "curves", {"x": factors, **curves})

# --8<-- [start:draws]
draws, width, factor = 10_000, 6, 1.5
q, k = torch.randn(draws, width), torch.randn(draws, S, width)
longer = k.clone()
longer[:, 0] *= factor


def scores_of(q, k):
    # (draws, S): every key against the query of its draw
    return (k @ q[..., None]).squeeze(-1) / width**0.5


scores = scores_of(q, k)
before = scores.softmax(-1)[:, 0]
after = scores_of(q, longer).softmax(-1)[:, 0]
positive = scores[:, 0] > 0
assert (after[positive] > before[positive]).all()
assert (after[~positive] < before[~positive]).all()
fell = (after < before).double().mean()
print(f"draws {draws}  weight fell in {fell:.3f}")
# --8<-- [end:draws]
assert 0.475 < fell < 0.525  # guard: about_half
torch.testing.assert_close(scores, torch.einsum("nd,nsd->ns", q, k) / width**0.5)  # guard: scores_of_the_draws
assert stretched(4, 1000.0)[4] == stretched(4, 2000.0)[4]  # guard: rounded_to_one
show("draws", f"{draws:,}")
show("draw_width", width)
show("factor", f"{factor:g}")
show("fell", f"{fell:.3f}")

# --8<-- [start:longer_query]
order = scores.argsort(-1)
for c in (0.5, 1.0, 1.5, 3.0):
    row = scores_of(c * q, k).softmax(-1)
    # a query c times as long is a temperature of 1 / c
    T = 1 / c
    torch.testing.assert_close(row, (scores / T).softmax(-1))
    # sorted by the old scores, the new weights never go down
    assert (row.gather(-1, order).diff(dim=-1) >= 0).all()
    entropy, top = torch.special.entr(row).sum(-1), row.amax(-1)
    print(f"c {c}  top {top.mean():.3f}  entropy {entropy.mean():.3f}")
# --8<-- [end:longer_query]
for short, long in pairwise(scores_of(c * q, k).softmax(-1) for c in (0.5, 1.0, 1.5, 3.0)):
    assert (torch.special.entr(long).sum(-1) < torch.special.entr(short).sum(-1)).all()  # guard: entropy_falls
    assert (long.amax(-1) > short.amax(-1)).all()  # guard: greatest_grows
    assert (long.amin(-1) < short.amin(-1)).all()  # guard: smallest_shrinks

# --8<-- [start:cosine]
by_product, by_cosine = dots[0].argmax(), cosine[0].argmax()
assert by_product != by_cosine
print(f"dot product: key {by_product}  cosine: key {by_cosine}")
# keys of one length: both name the same key
unit = F.normalize(K, dim=-1)
assert torch.equal((Q @ unit.T).argmax(-1), cosine.argmax(-1))

similar = F.cosine_similarity(q[:, None], k, dim=-1)
disagree = (similar.argmax(-1) != scores.argmax(-1)).double().mean()
print(f"draws {draws}  winners disagree in {disagree:.3f}")
# --8<-- [end:cosine]
torch.testing.assert_close(F.normalize(Q, dim=-1) @ unit.T, cosine)  # guard: normalised_is_cosine
same_length = scores_of(q, F.normalize(k, dim=-1)).argmax(-1)
assert torch.equal(same_length, similar.argmax(-1))  # guard: equal_lengths_agree
torch.testing.assert_close((same_length != scores.argmax(-1)).double().mean(), disagree)  # guard: share_that_disagrees
assert disagree > 0.1  # guard: often_another
show("disagree", f"{disagree:.3f}")


class OneHead(torch.nn.Module):
    """The attention weights of one head, whose queries and keys `norm` may normalise."""

    def __init__(self, norm):
        super().__init__()
        self.query, self.key = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.norm = norm

    def forward(self, x):
        return (self.norm(self.query(x)) @ self.norm(self.key(x)).mT).softmax(-1)


with torch.random.fork_rng(), torch.no_grad():
    plain, normed = OneHead(torch.nn.Identity()), OneHead(torch.nn.RMSNorm(4, elementwise_affine=False))
    loaded, x = normed.load_state_dict(plain.state_dict()), torch.randn(3, 4)
    assert [*loaded.missing_keys, *loaded.unexpected_keys] == []  # guard: loads_without_an_error
    assert not torch.allclose(normed(x), plain(x), atol=0.01)  # guard: qk_norm_is_another_function
    cosines = F.cosine_similarity(plain.query(x)[:, None], plain.key(x)[None], dim=-1)
    torch.testing.assert_close(normed(x), (4 * cosines).softmax(-1), rtol=1e-4, atol=0.0)  # guard: qk_norm_is_a_cosine

# --8<-- [start:gradient]
V = torch.randn(S, 3)


def output(query):
    return (K @ query / D**0.5).softmax(-1) @ V


# (3, D): how every output feature moves with the query
jacobian = torch.autograd.functional.jacobian(output, Q[0])
w = weights[0]
key_mean, value_mean = w @ K, w @ V
covariance = (V - value_mean).T @ torch.diag(w) @ (K - key_mean)
torch.testing.assert_close(jacobian, covariance / D**0.5)
assert not torch.allclose(jacobian, covariance)
print(f"jacobian {tuple(jacobian.shape)}")
print(jacobian)
# --8<-- [end:gradient]
far = 100 * Q[0]
assert (K @ far / D**0.5).softmax(-1).max() > 0.999  # guard: one_key_takes_all
assert torch.autograd.functional.jacobian(output, far).norm() < 1e-6 * jacobian.norm()  # guard: gradient_vanishes
show("scale", f"{D**-0.5:.4f}")

# --8<-- [start:shift]
shift = torch.randn(D)
moved_keys = (Q @ (K + shift).T / D**0.5).softmax(-1)
torch.testing.assert_close(moved_keys, weights)
assert not torch.allclose(Q @ (K + shift).T, dots)

moved_query = ((Q + shift) @ K.T / D**0.5).softmax(-1)
assert not torch.allclose(moved_query, weights)
for row in (weights, moved_keys, moved_query):
    print(*(f"{w:.4f}" for w in row[0]))
# --8<-- [end:shift]
torch.testing.assert_close(Q @ (K + shift).T, dots + (Q @ shift)[:, None])  # guard: same_term_for_every_key
show("shift_query", f"{(moved_query - weights).abs().max():.2f}")
