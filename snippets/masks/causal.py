# --8<-- [start:setup]
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.bias import causal_lower_right
from checks import (
    leaks_future, permutation_equivariant, same_function,
)

torch.manual_seed(5)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
mha = nn.MultiheadAttention(E, H, batch_first=True).double()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
# --8<-- [end:setup]

# --8<-- [start:corners]
q = torch.randn(B, H, L, D, dtype=torch.float64)
k, v = torch.randn(2, B, H, S, D, dtype=torch.float64)
# (L, S), True keeps
upper_left = torch.ones(L, S, dtype=torch.bool).tril()
lower_right = torch.ones(L, S, dtype=torch.bool).tril(S - L)
attention = F.scaled_dot_product_attention
torch.testing.assert_close(
    attention(q, k, v, is_causal=True), attention(q, k, v, upper_left))
torch.testing.assert_close(
    attention(q, k, v, causal_lower_right(L, S)),
    attention(q, k, v, lower_right))
assert not torch.allclose(
    attention(q, k, v, upper_left), attention(q, k, v, lower_right))
for mask in (upper_left, lower_right):
    print(mask.sum(-1).tolist())
# --8<-- [end:corners]
identity = torch.eye(S, dtype=torch.float64)
corners = {
    "is_causal=True": attention(q, k, identity, is_causal=True)[0, 0],
    "causal_lower_right": attention(q, k, identity, causal_lower_right(L, S))[0, 0],
}
pictured = {"upper_left": upper_left, "lower_right": lower_right, "weights": torch.stack(list(corners.values()))}
figure("corners", "attention", pictured, labels={
    "heads": list(corners), "queries": [str(i) for i in range(L)], "keys": [str(j) for j in range(S)],
})
from kernels import fused_calls

i, j = torch.arange(L)[:, None], torch.arange(S)
assert torch.equal(corners["is_causal=True"] > 0, j <= i)  # guard: formula_of_the_upper_left
assert torch.equal(corners["causal_lower_right"] > 0, j <= i + (S - L))  # guard: formula_of_the_lower_right
seen = [(weights > 0).sum(-1).tolist() for weights in corners.values()]
assert seen == [[1, 2, 3, 4, 5], [3, 4, 5, 6, 7]]  # guard: what_the_figure_shows
torch.testing.assert_close(  # guard: same_where_lengths_are_equal
    attention(k, k, v, is_causal=True), attention(k, k, v, causal_lower_right(S, S)))

# --8<-- [start:words]
from running_example import TOKENS, W_K, W_Q, X

# (H, 5, 5): head 0 looks back, head 1 back and on
scores = (X @ W_Q) @ (X @ W_K).mT / 3**0.5
free = scores.softmax(-1)
past = torch.ones(5, 5, dtype=torch.bool).tril()
causal = scores.masked_fill(~past, -torch.inf).softmax(-1)
# the same as cut behind the softmax, each row divided by its sum
cut = free * past
torch.testing.assert_close(causal, cut / cut.sum(-1, keepdim=True))
assert not torch.allclose(causal, cut)
row = TOKENS.index("cat")
for head in range(2):
    print(f"head {head} ", *(f"{w:.2f}" for w in free[head, row]))
    print("       ", *(f"{w:.2f}" for w in causal[head, row]))
# --8<-- [end:words]
black, cat, dog = (TOKENS.index(name) for name in ("black", "cat", "dog"))
assert free[0, cat].argmax() == causal[0, cat].argmax() == torch.tensor(black)  # guard: looking_back_is_left
assert free[1, cat].argmax() == torch.tensor(dog)  # guard: looking_on_without_a_mask
assert causal[1, cat].argmax() == torch.tensor(cat)  # guard: itself_is_left
assert free[1, dog].argmax() == causal[1, dog].argmax() == torch.tensor(cat)  # guard: the_other_is_past
torch.testing.assert_close(causal[:, -1], free[:, -1])  # guard: the_last_word_loses_nothing
show("cat_kept", f"{free[1, cat, cat]:.2f}")
show("cat_now", f"{causal[1, cat, cat]:.2f}")
figure("words", "attention", {"past": past, "weights": causal}, labels={"queries": TOKENS, "keys": TOKENS})

# --8<-- [start:cache]
# all S positions at once, then only the last L of them, keys cached
q_all = torch.randn(B, H, S, D, dtype=torch.float64)
full = attention(q_all, k, v, is_causal=True)  # (B, H, S, D)
last = q_all[:, :, -L:]  # (B, H, L, D)
right = attention(last, k, v, lower_right)
wrong = attention(last, k, v, is_causal=True)
torch.testing.assert_close(right, full[:, :, -L:])
assert not torch.allclose(wrong, full[:, :, -L:])
for part in (right, wrong):
    print(f"{(part - full[:, :, -L:]).abs().max():.2f}")
# --8<-- [end:cache]
off = [(a - b).abs().max().item() for a, b in zip(wrong.unbind(2), full.unbind(2)[-L:], strict=True)]
show("cache_error", f"{max(off):.2f}")
assert min(off) > 0.1  # guard: every_row_is_off
seen = attention(last, k, identity, is_causal=True)[0, 0] > 0  # (L, S), the last query's own key in the lower right corner
assert torch.equal(seen, j <= i)  # guard: not_even_its_own_key

# --8<-- [start:module]
x = torch.randn(B, L, E, dtype=torch.float64)
future = torch.ones(L, L, dtype=torch.bool).triu(1)  # True hides
expected, weights = mha(x, x, x, attn_mask=future)
assert not weights[:, future].any()
# a hint that tells the truth changes no number, on any path
for need_weights in (True, False):
    for hint in (True, False):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                output, _ = mha.train(grad)(
                    x, x, x, attn_mask=future, is_causal=hint,
                    need_weights=need_weights)
            torch.testing.assert_close(output, expected)
print(f"future {weights[:, future].sum():.2f}")
print(f"rest   {weights[:, ~future].sum() / (B * L):.2f}")
# --8<-- [end:module]

# the paths: 2 x 2 x 2 of them, and the fast path is one that was tried
with torch.no_grad():
    calls = fused_calls(lambda: mha(x, x, x, attn_mask=future, is_causal=True))
assert calls.attention == 1  # guard: the_fast_path_was_tried

# --8<-- [start:planted]
def attend(x, mask):
    return mha(x, x, x, attn_mask=mask, need_weights=False)[0]


layers = {
    "correct": lambda x: attend(x, future),
    "inverted": lambda x: attend(x, ~future),
    "dropped": lambda x: attend(x, None),
    "one too far": lambda x: attend(x, future.triu(2)),
    "off in eval":
        lambda x: attend(x, future if mha.training else None),
}
# --8<-- [end:planted]

mha.eval()


def reach(f):
    """(L, L) bool: does output i depend on input j?"""
    slopes = torch.autograd.functional.jacobian(f, x)  # (B, L, E, B, L, E)
    return slopes.abs().amax((0, 2, 3, 5)) > 1e-9  # less is rounding


everything = torch.ones(L, L, dtype=torch.bool)
planted = {
    "correct": ~future, "dropped": everything, "one too far": everything.tril(1), "off in eval": everything,
    # a query chooses among two keys or more: of one key the weight is 1, and the last row sees none
    "inverted": future | (torch.eye(L, dtype=torch.bool) & (future.sum(-1) > 1)[:, None]),
}
for name, expected in planted.items():
    assert torch.equal(reach(layers[name]), expected)  # guard: wrong_as_said

# --8<-- [start:caught]
for name, layer in layers.items():
    mha.train()
    in_training = leaks_future(layer, x)
    mha.eval()
    in_eval = leaks_future(layer, x)
    print(f"{name:12} train {in_training.difference:4.1f}"
          f"  eval {in_eval.difference:4.1f}  {in_eval.where}")
    assert bool(in_eval) == (name != "correct")
    assert bool(in_training) == (name not in ("correct", "off in eval"))
# --8<-- [end:caught]

# --8<-- [start:chunks_of_time]
W_q, W_k, W_v = mha.in_proj_weight.chunk(3)


def heads_wrong(x, causal):
    """Split and merged with reshape alone: heads are chunks of time."""
    q, k, v = (F.linear(x, W).reshape(B, H, L, D)
               for W in (W_q, W_k, W_v))
    return attention(q, k, v, is_causal=causal).reshape(B, L, E)


def heads_right(x, causal):
    q, k, v = (F.linear(x, W).unflatten(-1, (H, D)).transpose(1, 2)
               for W in (W_q, W_k, W_v))
    heads = attention(q, k, v, is_causal=causal)  # (B, H, L, D)
    return heads.transpose(1, 2).flatten(2)
# --8<-- [end:chunks_of_time]

# row r of "head" h is a slice of one token, and rows go through the tokens in their order
tokens = F.linear(x, W_q).unflatten(-1, (H, D))  # (B, L, H, D)
by_row = torch.stack([torch.stack([tokens[:, (h * L + r) // H, (h * L + r) % H] for r in range(L)], 1) for h in range(H)], 1)
assert torch.equal(F.linear(x, W_q).reshape(B, H, L, D), by_row)  # guard: heads_are_chunks_of_time

# --8<-- [start:not_caught]
for heads in (heads_right, heads_wrong):
    leak = leaks_future(lambda x, f=heads: f(x, causal=True), x)
    order = permutation_equivariant(lambda x, f=heads: f(x, False), x)
    print(f"{heads.__name__:12} leaks {leak.answer!s:6}"
          f" permutes {order.answer!s:6} {order.difference:4.1f}")
    assert not leak  # of neither
    assert bool(order) == (heads is heads_right)
# --8<-- [end:not_caught]

# --8<-- [start:decode]
def whole(x):
    """All L positions at once; (B, L, E)."""
    heads = x.unflatten(-1, (H, D)).transpose(1, 2)  # (B, H, L, D)
    output = attention(heads, heads, heads, is_causal=True)
    return output.transpose(1, 2).flatten(2)


def decode(x, corner):
    """The last 2 positions on their own, the others' keys cached."""
    heads = x.unflatten(-1, (H, D)).transpose(1, 2)
    mask = torch.ones(2, L, dtype=torch.bool).tril(corner)
    last = attention(heads[:, :, -2:], heads, heads, mask)
    last = last.transpose(1, 2).flatten(2)  # (B, 2, E)
    return torch.cat([whole(x[:, :-2]), last], 1)
# --8<-- [end:decode]


# --8<-- [start:cache_leak]
aligned = {"lower right": L - 2, "upper left": 0}
for name, corner in aligned.items():
    leak = leaks_future(lambda x, c=corner: decode(x, c), x)
    same = same_function(
        lambda x, c=corner: decode(x, c), whole, [(x,)])
    print(f"{name:12} leaks {leak.answer!s:6} same {same.answer!s:6}")
    assert not leak  # neither: the upper left one sees too little
    assert bool(same) == (name == "lower right")
# --8<-- [end:cache_leak]
enough, too_little = (reach(lambda x, c=corner: decode(x, c)) for corner in aligned.values())
assert torch.equal(enough, reach(whole))  # guard: sees_enough
shown = upper_left[:2, :L]
own = torch.eye(L, dtype=torch.bool)[-2:] & (shown.sum(-1, keepdim=True) > 1)  # where there is one key, the query does not matter
assert torch.equal(too_little[-2:], shown | own)  # guard: sees_what_the_upper_left_shows
assert (too_little <= enough).all()  # guard: sees_nothing_else
assert too_little.sum() < enough.sum()  # guard: sees_too_little

# --8<-- [start:question]
# the newest token alone, S keys in the cache
newest = q_all[:, :, -1:]  # (B, H, 1, D)
alone = attention(newest, k, v, is_causal=True)
torch.testing.assert_close(alone, v[:, :, :1])  # the first value
unmasked = attention(newest, k, v)
torch.testing.assert_close(unmasked, full[:, :, -1:])
assert not torch.allclose(alone, unmasked)
print(f"{(alone - full[:, :, -1:]).abs().max():.2f}")
print(f"{(unmasked - full[:, :, -1:]).abs().max():.2f}")
# --8<-- [end:question]
