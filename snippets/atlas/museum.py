# --8<-- [start:setup]
from itertools import combinations, compress
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from checks import (
    leaks_future, permutation_equivariant, same_function)
from torch import nn

torch.manual_seed(4)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
x = torch.randn(B, L, E)
# --8<-- [end:setup]


# --8<-- [start:layer]
class Attention(nn.MultiheadAttention):
    """PyTorch's parameters; each step can be another."""

    def __init__(self, E, H, **steps):
        super().__init__(E, H, dropout=0.5)
        self.step = SimpleNamespace(**(STEPS | steps))
        self.group = 2 if "share" in steps and H > 1 else 1

    def forward(self, x, hidden=None, causal=False):
        step, H, n = self.step, self.num_heads, self.group
        x = step.order(x)  # (B, L, E)
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (
            step.split(t.flatten(2), H) for t in step.cut(qkv, H))
        k, v = (  # with n > 1, n heads in turn are alike
            step.share(t.unflatten(1, (-1, n)).mean(2), n)
            for t in (k, v))
        scores = step.place(q) @ step.place(k).mT
        scores = scores * step.scale(self.embed_dim, H)
        if causal:
            hidden = step.future(scores.shape[-1])
        if hidden is not None:  # True hides
            scores = step.hide(scores, hidden)
        A = step.drop(step.softmax(scores), self)  # (B, H, L, L)
        output = step.out(step.join(A @ v), self.out_proj, H)
        return step.order(output), step.maps(A)
# --8<-- [end:layer]


# --8<-- [start:layout_broken]
def split_reshaped(t, H):  # (B, L, E)
    B, L, E = t.shape
    return t.reshape(B, H, L, E // H)


def join_reshaped(z):  # (B, H, L, D)
    B, H, L, D = z.shape
    return z.reshape(B, L, H * D)


def cut_by_head(qkv, H):  # (B, L, 3E)
    qkv = qkv.unflatten(-1, (H, 3, -1))
    return qkv.unbind(-2)  # (B, L, H, D)


def share_tiled(k, n):  # (B, K, L, D)
    return k.repeat(1, n, 1, 1)
# --8<-- [end:layout_broken]


# --8<-- [start:layout_mended]
def split(t, H):
    B, L, E = t.shape
    t = t.reshape(B, L, H, E // H)
    return t.transpose(1, 2)


def join(z):
    B, H, L, D = z.shape
    z = z.transpose(1, 2)
    return z.reshape(B, L, H * D)


def cut(qkv, H):
    qkv = qkv.unflatten(-1, (3, H, -1))
    return qkv.unbind(-3)


def share(k, n):
    return k.repeat_interleave(n, 1)
# --8<-- [end:layout_mended]


# --8<-- [start:matrices_broken]
def keys_twice(qkv, H):  # (B, L, 3E)
    qkv = qkv.unflatten(-1, (3, H, -1))
    q, k, _ = qkv.unbind(-3)
    return q, k, k


def out_as_stored(z, out, H):  # (B, L, E)
    return z @ out.weight + out.bias


def out_biased(z, out, H):
    z = z.unflatten(-1, (H, -1))
    W = out.weight.unflatten(-1, (H, -1))
    parts = torch.einsum(
        "blhd,ehd->hble", z, W)
    return (parts + out.bias).sum(0)
# --8<-- [end:matrices_broken]


# --8<-- [start:matrices_mended]
def values_too(qkv, H):
    qkv = qkv.unflatten(-1, (3, H, -1))
    q, k, v = qkv.unbind(-3)
    return q, k, v


def out(z, out, H):
    return z @ out.weight.T + out.bias


def out_by_head(z, out, H):
    z = z.unflatten(-1, (H, -1))
    W = out.weight.unflatten(-1, (H, -1))
    parts = torch.einsum(
        "blhd,ehd->hble", z, W)
    return parts.sum(0) + out.bias
# --8<-- [end:matrices_mended]


# --8<-- [start:scores_broken]
def scale_by_width(E, H):
    return E ** -0.5


def softmax_of_queries(scores):
    return scores.softmax(-2)


def drop_always(A, layer):
    return F.dropout(A, layer.dropout)


def maps_averaged(A):  # (B, H, L, L)
    return A.mean(1)
# --8<-- [end:scores_broken]


# --8<-- [start:scores_mended]
def scale(E, H):
    return (E // H) ** -0.5


def softmax(scores):
    return scores.softmax(-1)


def drop(A, layer):
    p = layer.dropout
    return F.dropout(A, p, layer.training)


def maps(A):
    return A
# --8<-- [end:scores_mended]


# --8<-- [start:positions_broken]
def hide_inverted(scores, hidden):
    low = float("-inf")
    return scores.masked_fill(~hidden, low)


def future_too_late(L):
    later = torch.ones(L, L).triu(2)
    return later.bool()  # True hides


def order_swapped(x):  # (B, L, E)
    return x.transpose(0, 1)


def place_unsorted(t):
    return by_halves(t)
# --8<-- [end:positions_broken]


# --8<-- [start:positions_mended]
def hide(scores, hidden):
    low = float("-inf")
    return scores.masked_fill(hidden, low)


def future(L):
    later = torch.ones(L, L).triu(1)
    return later.bool()


def order(x):
    return x


def place(t):  # even ones first
    even, odd = t[..., ::2], t[..., 1::2]
    t = torch.cat([even, odd], -1)
    return by_halves(t)
# --8<-- [end:positions_mended]


# --8<-- [start:rotary]
def turned(a, b):
    speed = 10.0 ** -torch.arange(b.shape[-1])
    angle = torch.arange(b.shape[-2])[:, None] * speed
    cos, sin = angle.cos(), angle.sin()
    return a * cos - b * sin, a * sin + b * cos


def by_halves(t):  # number j with number j + D / 2
    return torch.cat(turned(*t.tensor_split(2, -1)), -1)


def by_pairs(t):  # number 2j with number 2j + 1
    both = turned(t[..., ::2], t[..., 1::2])
    return torch.stack(both, -1).flatten(-2)
# --8<-- [end:rotary]


# --8<-- [start:exhibits]
STEPS = {
    "split": split, "join": join, "cut": cut, "out": out,
    "scale": scale, "softmax": softmax, "drop": drop, "maps": maps,
    "hide": hide, "future": future, "order": order,
    "share": lambda k, n: k, "place": lambda t: t}
EXHIBITS = {  # each step that is another: (broken, mended)
    "split": {"split": (split_reshaped, split)},
    "join": {"join": (join_reshaped, join)},
    "both": {
        "split": (split_reshaped, split),
        "join": (join_reshaped, join)},
    "by head": {"cut": (cut_by_head, cut)},
    "tiled": {"share": (share_tiled, share)},
    "v = k": {"cut": (keys_twice, values_too)},
    "transposed": {"out": (out_as_stored, out)},
    "biases": {"out": (out_biased, out_by_head)},
    "scale": {"scale": (scale_by_width, scale)},
    "softmax": {"softmax": (softmax_of_queries, softmax)},
    "dropout": {"drop": (drop_always, drop)},
    "averaged": {"maps": (maps_averaged, maps)},
    "inverted": {"hide": (hide_inverted, hide)},
    "too late": {"future": (future_too_late, future)},
    "swapped": {"order": (order_swapped, order)},
    "unsorted": {"place": (place_unsorted, place)}}
# --8<-- [end:exhibits]


# --8<-- [start:pair]
class Original(nn.MultiheadAttention):
    def forward(self, x, causal=False):
        return super().forward(
            x, x, x, attn_mask=future(x.shape[1]) if causal else None,
            average_attn_weights=False)


def pair(steps, E=E, H=H, drawn=True):
    """A layer with these steps, and the one that it should be."""
    torch.manual_seed(H)
    mine = Attention(E, H, **steps).eval()
    turns = "place" in steps  # nn.MultiheadAttention never turns
    theirs = (Attention(E, H, place=by_pairs) if turns
              else Original(E, H, batch_first=True)).eval()
    for p in theirs.parameters():
        if drawn:
            nn.init.normal_(p, std=0.5)
        if mine.group > 1 and len(p) > E:  # two heads in turn alike
            keys = p.data[E:].unflatten(0, (H, 2, E // H))
            keys[:, 1] = keys[:, 0]
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs
# --8<-- [end:pair]


# --8<-- [start:mended]
for name, exhibit in EXHIBITS.items():
    broken, mended = (
        {step: each[i] for step, each in exhibit.items()}
        for i in (0, 1))
    for causal in (False, True):
        mine, theirs = pair(mended)
        output, weights = mine(x, causal=causal)
        expected, expected_weights = theirs(x, causal=causal)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(weights, expected_weights)
    if name != "averaged":  # the output of that one is right
        mine, theirs = pair(broken)
        masked = name in ("inverted", "too late")
        wrong, right = (f(x, causal=masked)[0] for f in (mine, theirs))
        assert not torch.allclose(wrong, right, equal_nan=True)
# --8<-- [end:mended]


# --8<-- [start:alone]
def rows(steps):
    sums = pair(steps)[0](x)[1].sum(-1)
    return torch.allclose(sums, torch.ones_like(sums))


def gradients(steps):
    """Does each row of each matrix get a gradient?"""
    mine, _ = pair(steps)
    mine(x)[0].square().sum().backward()
    matrices = [p for p in mine.parameters() if p.dim() == 2]
    return all(p.grad.any(1).all() for p in matrices)


def padding(steps):
    """Is a sequence the same alone, and padded in a batch?"""
    mine, _ = pair(steps)
    hidden = torch.zeros(B, 1, 1, L, dtype=torch.bool)
    hidden[1, ..., 3:] = True
    alone, _ = mine(x[1:, :3])
    return torch.allclose(mine(x, hidden)[0][1:, :3], alone)


def layer(steps, causal=False):
    mine, _ = pair(steps)
    return lambda x: mine(x, causal=causal)[0]
# --8<-- [end:alone]


# --8<-- [start:compared]
def loads(steps):
    mine, theirs = pair(steps)
    return not any(mine.load_state_dict(theirs.state_dict()))


def shapes(steps):
    mine, theirs = pair(steps)
    return [t.shape for t in mine(x)] == [t.shape for t in theirs(x)]


def same(steps, x=x, which=0, causal=False, **how):
    """Output (0) or maps (1) of the layer and of the original."""
    mine, theirs = pair(steps, **how)
    return same_function(
        lambda x: mine(x, causal=causal)[which],
        lambda x: theirs(x, causal=causal)[which], [(x,)])
# --8<-- [end:compared]


# --8<-- [start:checks]
ALONE = {  # no other layer is needed
    "rows sum to 1": rows,
    "gradients": gradients,
    "padding": padding,
    "leaks_future": lambda s: not leaks_future(layer(s, True), x),
    "permutation": lambda s: permutation_equivariant(layer(s), x)}
COMPARED = {
    "strict load": loads,
    "shapes": shapes,
    "one token": lambda s: same(s, x[:, :1]),
    "all tokens 1": lambda s: same(s, torch.ones(B, L, E)),
    "H = 1": lambda s: same(s, H=1),
    "H = E": lambda s: same(s, H=E),
    "default weights": lambda s: same(s, drawn=False),
    "and a small x": lambda s: same(s, x / 50, drawn=False),
    "output": same,
    "causal output": lambda s: same(s, causal=True),
    "maps": lambda s: same(s, which=1)}
CHECKS = ALONE | COMPARED
# --8<-- [end:checks]


# --8<-- [start:table]
def passes(check, exhibit, which):  # 0 broken, 1 mended
    steps = {name: each[which] for name, each in exhibit.items()}
    try:
        return bool(check(steps))
    except (RuntimeError, ValueError):  # it does not run, or is refused
        return False


sees = {
    name: [passes(check, one, 1) and not passes(check, one, 0)
           for one in EXHIBITS.values()]
    for name, check in CHECKS.items()}
# --8<-- [end:table]

# --8<-- [start:smallest]
def found(checks):
    """Names of what at least one of these checks sees."""
    return {name for check in checks
            for name in compress(EXHIBITS, sees[check])}


def smallest(checks):
    """Every smallest choice that sees what all of them see."""
    for n in range(len(checks) + 1):
        choices = [c for c in combinations(checks, n)
                   if found(c) == found(checks)]
        if choices:
            return choices


for checks in (CHECKS, ALONE):
    print(len(found(checks)), "of", len(EXHIBITS))
    for choice in smallest(checks):
        print("  " + ", ".join(choice))
assert found(CHECKS) == set(EXHIBITS)
assert max(len(found([check])) for check in CHECKS) < len(EXHIBITS)
# --8<-- [end:smallest]

# --8<-- [start:drawn]
def off(name, x=x, drawn=True):
    """How far outputs are apart, for an output of at most 1."""
    steps = {step: each[0] for step, each in EXHIBITS[name].items()}
    causal = not {"hide", "future"}.isdisjoint(steps)
    return same(steps, x, causal=causal, drawn=drawn).difference


print(f"{'':12}   drawn default   small")
for name in EXHIBITS:
    errors = off(name), off(name, drawn=False), off(name, x / 50, False)
    print(f"{name:12}" + "".join(f"{error:8.4f}" for error in errors))
# --8<-- [end:drawn]
silent = {"averaged", "inverted"}  # the output is right, or not a number
assert min(off(name) for name in EXHIBITS if name not in silent) > 0.05  # guard: all_are_off
assert max(off(name, x / 50, False) for name in EXHIBITS if name != "inverted") < 0.02  # guard: nearly_nothing_is_left

# --8<-- [start:question]
usual = ("strict load", "shapes", "rows sum to 1", "gradients")
unseen = [name for name in EXHIBITS if name not in found(usual)]
print(len(unseen), "of", len(EXHIBITS))
assert len(unseen) > len(found(usual))
# --8<-- [end:question]

# The picture, and what the sentences say
seen = torch.tensor(list(sees.values())).int()
ones = [(i, j) for i, row in enumerate(sees.values()) for j, one in enumerate(row) if one]
figure(
    "sees", "matrix", {"seen": seen},
    labels={
        "rows": {"seen": list(sees)}, "columns": {"seen": [str(n + 1) for n in range(len(EXHIBITS))]},
        "groups": {"seen": [
            {"rows": [i, i + 1], "columns": [j, j + 1], "role": "k" if i < len(ALONE) else "q", "of": torch.ones(1, 1).int()}
            for i, j in ones
        ]},
    },
)  # fmt: skip
show("exhibits", len(EXHIBITS))
places = [name.replace("v = k", "value is key").replace(" ", "-") for name in EXHIBITS]
show("legend", ", ".join(f"{number} [`{name}`](#{place})" for number, (name, place) in enumerate(zip(EXHIBITS, places, strict=True), 1)))
show("fewest_alone", len(smallest(ALONE)[0]))
show("biases_too_many", H - 1)
show("spread", f"{pair({})[1].in_proj_weight.std():.1f}")
show("small_most", f"{max(off(name, x / 50, False) for name in EXHIBITS if name != 'inverted'):.3f}")
show("checks", len(CHECKS))
show("with_original", len(found(["causal output"])))
show("alone", len(found(ALONE)))
show("not_alone", len(EXHIBITS) - len(found(ALONE)))
for name in ("output", "default weights", "and a small x", "strict load", "shapes", "leaks_future", "one token", "H = 1"):
    show("sees_" + name.replace(" ", "_").replace("=", "is"), sum(sees[name]))
for number, name in enumerate(EXHIBITS):
    key = name.replace(" = ", "_is_").replace(" ", "_")
    show(f"off_{key}", f"{off(name):.1f}")
    show(f"by_{key}", ", ".join(f"`{check}`" for check in ALONE if sees[check][number]))

assert found(["causal output"]) == set(EXHIBITS) - {"averaged"}  # guard: one_comparison_sees_all_but_one
assert found(["shapes"]) & found(["maps"]) >= {"averaged"}  # guard: the_maps_see_that_one
for check in ("gradients", "padding", "leaks_future"):
    others = [name for name in ALONE if name != check]
    assert len(found(others)) < len(found(ALONE))  # guard: each_of_the_three_is_needed
assert found(("rows sum to 1", "permutation")) < found(("gradients", "padding", "leaks_future"))  # guard: two_add_nothing
beside = {"by head", "tiled", "transposed", "biases", "scale", "averaged", "unsorted"}
assert set(EXHIBITS) - found(ALONE) == beside  # guard: only_beside_the_original
assert not any(sees["strict load"])  # guard: all_of_them_load
assert set(EXHIBITS) - found(["output"]) == {"averaged", "inverted", "too late"}  # guard: without_a_mask
assert "both" not in found(["leaks_future"])  # guard: both_do_not_leak
assert found(["and a small x"]) == found(["default weights"]) - {"scale", "softmax", "unsorted"}  # guard: small_hides_three
assert found(["default weights"]) == found(["output"]) - {"biases"}  # guard: default_hides_biases
assert found(["output"]) - found(["H = 1"]) >= {"split", "scale"}  # guard: one_head_hides_the_scale
assert not passes(CHECKS["permutation"], EXHIBITS["unsorted"], 1)  # guard: positions_are_meant
try:
    Attention(E, H).load_state_dict(Original(2 * E, H, batch_first=True).state_dict())  # guard: a_load_can_be_refused
except RuntimeError as error:
    refused = str(error)
else:
    raise AssertionError("another width was loaded")

# What is wrong with each
t, z = torch.randn(B, L, E), torch.randn(B, H, L, E // H)
pieces = t.clone().unflatten(-1, (H, -1)).flatten(1, 2)  # (B, L * H, D), token by token
assert torch.equal(split_reshaped(t, H).flatten(1, 2), pieces)  # guard: heads_are_pieces_of_tokens
assert torch.equal(join_reshaped(z)[:, 0], torch.cat(z[:, 0, :H].unbind(1), -1))  # guard: token_0_is_all_of_head_0
qkv = torch.randn(B, L, 3 * E)
assert torch.equal(cut_by_head(qkv.clone(), H)[1][:, :, 0], cut(qkv, H)[0][:, :, 1])  # guard: key_of_0_is_query_of_1
few = z[:, :2]
assert torch.equal(share_tiled(few, 2)[:, 1], few[:, 1])  # guard: tiled_reads_head_1
assert torch.equal(share(few, 2)[:, 1], few[:, 0])  # guard: it_should_read_head_0


def broken(name):
    return pair({step: each[0] for step, each in EXHIBITS[name].items()})


mine, theirs = broken("v = k")
mine(x)[0].sum().backward()
assert not mine.in_proj_weight.grad[2 * E :].any()  # guard: values_learn_nothing
with torch.no_grad():
    mine.out_proj.weight.copy_(mine.out_proj.weight + mine.out_proj.weight.T)
    torch.testing.assert_close(out_as_stored(t, mine.out_proj, H), out(t, mine.out_proj, H))  # guard: symmetric_would_hide_it
mine, theirs = broken("biases")
torch.testing.assert_close(mine(x)[0] - theirs(x)[0], ((H - 1) * mine.out_proj.bias).expand(B, L, E))  # guard: biases_too_many
assert scale(E, H) / scale_by_width(E, H) == H**0.5  # guard: too_flat_by_the_root_of_h
mine, theirs = broken("softmax")
columns, maps_of = mine(x)[1].sum(-2), theirs(x)[1]
torch.testing.assert_close(columns, torch.ones_like(columns))  # guard: columns_sum_to_1
mine, theirs = broken("dropout")
once, again = (mine(x)[0] for _ in range(2))
assert not torch.equal(once, again)  # guard: twice_is_not_the_same
once, again = (F.scaled_dot_product_attention(z, z, z, dropout_p=0.5) for _ in range(2))
assert not torch.equal(once, again)  # guard: the_function_knows_no_mode
mine, theirs = broken("averaged")
by_default = nn.MultiheadAttention.forward(theirs, x, x, x)[1]  # (B, L, L)
torch.testing.assert_close(mine(x)[1], by_default)  # guard: the_default_of_pytorch
torch.testing.assert_close(mine(x)[0], theirs(x)[0])  # guard: its_output_is_right
mine, theirs = broken("inverted")
output, A = mine(x, causal=True)
assert torch.equal(output.isnan().any(-1).any(0), torch.arange(L) == L - 1)  # guard: the_last_row_is_nan
assert torch.equal(A[:, :, :-1] > 0, future(L)[:-1].expand(B, H, -1, -1))  # guard: only_the_future_is_seen
mine, theirs = broken("too late")
tokens = torch.arange(L)
assert torch.equal(mine(x, causal=True)[1] > 0, (tokens <= tokens[:, None] + 1).expand(B, H, -1, -1))  # guard: one_too_far
mine, theirs = broken("swapped")
assert mine(x)[1].shape == (L, H, B, B)  # guard: maps_over_the_batch
other = torch.stack([x[0], x[1] + 1])
assert not torch.allclose(mine(other)[0][0], mine(x)[0][0])  # guard: samples_mix
torch.testing.assert_close(theirs(other)[0][0], theirs(x)[0][0])  # guard: they_should_not
halved = place(torch.cat([z[..., ::2], z[..., 1::2]], -1))  # sorted twice
assert not torch.allclose(halved @ halved.mT, by_pairs(z) @ by_pairs(z).mT)  # guard: twice_is_wrong_too
scores, expected = place_unsorted(z) @ place_unsorted(z.flip(0)).mT, by_pairs(z) @ by_pairs(z.flip(0)).mT
torch.testing.assert_close(scores.diagonal(0, -2, -1), expected.diagonal(0, -2, -1))  # guard: itself_is_right
assert (scores - expected).abs().mT[..., ~torch.eye(L, dtype=torch.bool)].min() > 1e-9  # guard: all_others_are_wrong
