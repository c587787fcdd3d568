# --8<-- [start:setup]
import torch

torch.set_default_dtype(torch.float64)
L, E, H = 40, 24, 4
d_k, d_v = 6, 8


def attention(q, k, v):
    """q (..., L, d_k), k (..., L, d_k), v (..., L, d_v)."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return weights @ v, weights
# --8<-- [end:setup]

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
    x = 0.5 * torch.randn(R, 1, L, E)
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
torch.manual_seed(0)
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


# --8<-- [start:gradients]
from torch.nn.functional import dropout


def gradients(kind, p=0.0):
    """Of one draw's loss, for W_Q, W_K, W_V, W_O."""
    torch.manual_seed(2)
    x, target = 0.5 * torch.randn(1, 1, L, E), torch.randn(1, L, E)
    W = start(kind, 1)
    weights = dropout(forward(W, x)[1], p)  # (1, H, L, L)
    y = (weights @ (x @ W[2]) @ W[3]).sum(1)
    return torch.autograd.grad((y - target).square().sum(), W)


equal, mixed = gradients("equal"), gradients("mixed")
for kind, found in {"equal": equal, "mixed": mixed}.items():
    print(kind, [torch.allclose(g[:, 0], g[:, 1]) for g in found])
for g in (*equal, mixed[3]):
    torch.testing.assert_close(g[:, 0], g[:, 1])
for g in mixed[:3]:
    assert not torch.allclose(g[:, 0], g[:, 1], atol=0.1)
# --8<-- [end:gradients]

# one head more, a copy of head 0, whose two blocks are halved
W = start("apart", 2)
grown = [torch.cat([w, w[:, :1]], 1) for w in W[:3]] + [torch.cat([W[3], W[3][:, :1] / 2], 1)]
grown[3][:, 0] = W[3][:, 0] / 2
torch.testing.assert_close(forward(grown, x)[0], forward(W, x)[0])  # guard: a_copy_keeps_the_function

# --8<-- [start:question]
dropped = gradients("equal", p=0.1)
for name, g in zip("QKVO", dropped, strict=True):
    difference = (g[:, 0] - g[:, 1]).norm()
    print(f"W_{name} {difference / g[:, 0].norm():.2f}")
    assert not torch.allclose(g[:, 0], g[:, 1], atol=0.1)
# --8<-- [end:question]
