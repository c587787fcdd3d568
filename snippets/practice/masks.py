from exercises import exercise, outcomes

# --8<-- [start:setup]
import torch
from checks import leaks_future
from exercises import check
from torch import nn
from torch.nn import functional as F

torch.manual_seed(17)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
mha = nn.MultiheadAttention(E, H, batch_first=True).double().eval()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
x = torch.randn(B, L, E, dtype=torch.float64) / 2
memory = torch.randn(B, S, E, dtype=torch.float64) / 2
every_head = {"average_attn_weights": False}
print("x", tuple(x.shape), "memory", tuple(memory.shape))
# --8<-- [end:setup]


# --8<-- [start:refused]
def refused(answer, right):
    """Fail unless the answer has the right shape and wrong numbers."""
    assert answer.shape == right.shape
    try:
        torch.testing.assert_close(answer, right)
    except AssertionError as error:
        print(str(error).splitlines()[2])
    else:
        raise AssertionError("this answer is right")
# --8<-- [end:refused]


# --8<-- [start:causal_try]
mask = None  # (L, L), bool
check("causal", mask)
# --8<-- [end:causal_try]

# --8<-- [start:causal]
# (L, L), True hides
future = torch.ones(L, L, dtype=torch.bool).triu(diagonal=1)
out, weights = mha(x, x, x, attn_mask=future, **every_head)
print(future.int())
assert weights[..., future].max() == 0
# the first query sees itself alone
torch.testing.assert_close(
    weights[:, :, 0, 0], weights.new_ones(B, H)
)
# --8<-- [end:causal]

# --8<-- [start:causal_wrong]
# 1 where it may look, 0 where not, as floats
ones = torch.ones(L, L, dtype=torch.float64).tril()
wrong, seen = mha(x, x, x, attn_mask=ones, **every_head)
refused(wrong, out)
# the share of attention that goes to the future
share = seen[..., future].sum() / seen.sum()
print(f"{share:.2f}")
assert share > 0.1
# --8<-- [end:causal_wrong]
_, free = mha(x, x, x, **every_head)
torch.testing.assert_close(seen, (free.log() + (~future).double()).softmax(-1))  # guard: added_to_the_scores
# what the past gains, and what is left of the future
gain = (seen - free)[..., ~future].sum() / free.sum()
assert 0 < gain < 0.2 < free[..., future].sum() / free.sum()  # guard: past_gains_a_little
exercise(
    "causal",
    future,
    torch.zeros(L, L).masked_fill(future, -torch.inf),
    function=~future,
    ones=ones,
    itself=torch.ones(L, L, dtype=torch.bool).triu(),
    past=future.T,
)


# --8<-- [start:the_function_try]
mask = None  # (L, L), bool
check("the-function", mask)
# --8<-- [end:the_function_try]

# --8<-- [start:sdpa]
def project(x):
    """Queries, keys and values of mha, each (B, H, L, D)."""
    packed = F.linear(x, mha.in_proj_weight, mha.in_proj_bias)
    return (
        part.unflatten(-1, (H, D)).transpose(1, 2)
        for part in packed.chunk(3, dim=-1)
    )


def with_sdpa(x, mask):
    """What mha puts out, (B, L, E), with a mask for SDPA."""
    heads = F.scaled_dot_product_attention(*project(x), mask)
    return mha.out_proj(heads.transpose(1, 2).flatten(2))
# --8<-- [end:sdpa]


# --8<-- [start:inverted]
torch.testing.assert_close(with_sdpa(x, ~future), out)
print((~future).int())
# --8<-- [end:inverted]

# --8<-- [start:inverted_wrong]
refused(with_sdpa(x, future), out)
# the last query may look at nothing: only a bias comes out
nothing = mha.out_proj.bias.expand(B, E)
torch.testing.assert_close(with_sdpa(x, future)[:, -1], nothing)
assert not torch.allclose(out[:, -1], nothing)
# --8<-- [end:inverted_wrong]
q, k, _ = project(x)
identity = torch.eye(L, dtype=torch.float64).expand(B, H, L, L)
seen = F.scaled_dot_product_attention(q, k, identity, future)
assert seen[..., ~future].abs().max() == 0 < seen[:, :, :-1].sum(-1).min()  # guard: what_comes_after
exercise(
    "the-function",
    ~future,
    torch.zeros(L, L).masked_fill(future, -torch.inf),
    module=future,
    itself=torch.ones(L, L, dtype=torch.bool).tril(-1),
    past=~future.T,
)


# --8<-- [start:padding_try]
lengths = torch.tensor([6, 4])
mask = None  # (B, S), bool
check("padding", mask)
# --8<-- [end:padding_try]

# --8<-- [start:padding]
lengths = torch.tensor([6, 4])
# (B, S), True hides
padding = torch.arange(S) >= lengths[:, None]
print(padding.int())
padded, weights = mha(
    x, memory, memory, key_padding_mask=padding, **every_head
)
assert weights[1, ..., 4:].max() == 0
# what stands in the padding does not matter
other = memory.masked_fill(padding[..., None], 3.0)
torch.testing.assert_close(
    mha(x, other, other, key_padding_mask=padding)[0], padded
)
# --8<-- [end:padding]
assert padding.sum(-1).tolist() == [1, 3]  # guard: six_and_four

# --8<-- [start:padding_wrong]
# a tokenizer's mask as it is: 1 for a token, 0 for padding
keep = torch.arange(S) < lengths[:, None]
wrong = mha(x, memory, memory, key_padding_mask=keep)[0]
refused(wrong, padded)
# what stands in the padding is all that matters
refused(mha(x, other, other, key_padding_mask=keep)[0], wrong)
tokens = torch.randn(B, S, E, dtype=torch.float64)
changed = torch.where(padding[..., None], memory, tokens)
torch.testing.assert_close(
    mha(x, changed, changed, key_padding_mask=keep)[0], wrong
)
# --8<-- [end:padding_wrong]
exercise(
    "padding",
    padding,
    torch.zeros(B, S).masked_fill(padding, -torch.inf),
    keep=keep,
    late=torch.arange(S) > lengths[:, None],
    early=torch.arange(S) >= lengths[:, None] - 1,
    front=padding.flip(-1),
)


# --8<-- [start:both_try]
lengths = torch.tensor([5, 3])
mask = None  # (B, 1, L, L), bool
check("both", mask)
# --8<-- [end:both_try]

# --8<-- [start:both]
lengths = torch.tensor([5, 3])
padding = torch.arange(L) >= lengths[:, None]  # (B, L)
expected = mha(x, x, x, attn_mask=future, key_padding_mask=padding)[0]
# (B, 1, L, L), True sees: not later, and not padding
visible = ~future & ~padding[:, None, None, :]
print(tuple(visible.shape))
print(visible[1, 0].int())
torch.testing.assert_close(with_sdpa(x, visible), expected)
# --8<-- [end:both]

# --8<-- [start:both_wrong]
# the padded queries are hidden, the padded keys are not
rows = ~future & ~padding[:, None, :, None]
refused(with_sdpa(x, rows), expected)
# either condition is enough
either = ~future | ~padding[:, None, None, :]
refused(with_sdpa(x, either), expected)
leak = leaks_future(lambda x: with_sdpa(x, either), x)
assert leak
print(leak.where)
# --8<-- [end:both_wrong]
# by the module: "or" hides only what both hide
hidden_by_both = (future & padding[:, None]).repeat_interleave(H, dim=0)
torch.testing.assert_close(with_sdpa(x, either), mha(x, x, x, attn_mask=hidden_by_both)[0])  # guard: hidden_by_both
alone = mha(x[:1], x[:1], x[:1], attn_mask=future)[0]
torch.testing.assert_close(with_sdpa(x, rows)[:1], alone)  # guard: nothing_padded_in_sample_0
torch.testing.assert_close(with_sdpa(x, rows)[1, 3:], mha.out_proj.bias.expand(2, E))  # guard: padded_queries_hidden
added = torch.zeros(B, 1, L, L).masked_fill(~visible, -torch.inf)
exercise(
    "both",
    visible,
    visible.expand(B, H, L, L),
    added,
    queries=rows,
    either=either,
    module=~visible,
    no_padding=(~future).expand(B, 1, L, L),
    padding_only=~padding[:, None, None, :].expand(B, 1, L, L),
)


# --8<-- [start:per_sample_try]
widths = torch.tensor([1, 2])
mask = None  # (B * H, L, L), bool
check("per-sample", mask)
# --8<-- [end:per_sample_try]

# --8<-- [start:per_sample]
# (B, L, L): windows, wider in sample 1
distance = (torch.arange(L)[:, None] - torch.arange(L)).abs()
far = distance > torch.tensor([1, 2])[:, None, None]
expected = torch.cat([
    mha(x[n : n + 1], x[n : n + 1], x[n : n + 1], attn_mask=far[n])[0]
    for n in range(B)
])
# (B * H, L, L): all heads of sample 0, then those of sample 1
stacked = far.repeat_interleave(H, dim=0)
print(tuple(far.shape), tuple(stacked.shape))
torch.testing.assert_close(
    mha(x, x, x, attn_mask=stacked)[0], expected
)
# --8<-- [end:per_sample]

# --8<-- [start:per_sample_wrong]
tiled = far.repeat(H, 1, 1)
assert tiled.shape == stacked.shape
refused(mha(x, x, x, attn_mask=tiled)[0], expected)
_, weights = mha(x, x, x, attn_mask=tiled, **every_head)
# keys that each head of sample 0 sees from query 0
print((weights[0, :, 0] > 0).sum(-1).tolist())
# --8<-- [end:per_sample_wrong]
# head h of sample 0 gets the mask of sample h % B
assert torch.equal(tiled[:H], torch.stack([far[0], far[1], far[0], far[1]]))  # guard: samples_in_turn
_, stacked_weights = mha(x, x, x, attn_mask=stacked, **every_head)
assert (stacked_weights[0, :, 0] > 0).sum(-1).tolist() == [2] * H  # guard: two_four_times
exercise(
    "per-sample",
    stacked,
    torch.zeros(B * H, L, L).masked_fill(stacked, -torch.inf),
    turns=tiled,
    function=~stacked,
    narrow=(distance >= torch.tensor([1, 2])[:, None, None]).repeat_interleave(H, dim=0),
    one_side=(far | future).repeat_interleave(H, dim=0),
)


# --8<-- [start:cache_try]
mask = None  # (2, L), bool
check("cache", mask)
# --8<-- [end:cache_try]

# --8<-- [start:cache]
q, k, v = project(x)
attention = F.scaled_dot_product_attention
full = attention(q, k, v, ~future)
# the last 2 queries, all L keys; query 0 stands at position L - 2
last = q[:, :, -2:]
visible = torch.ones(2, L, dtype=torch.bool).tril(diagonal=L - 2)
print(visible.int())
torch.testing.assert_close(
    attention(last, k, v, visible), full[:, :, -2:]
)
# --8<-- [end:cache]

# --8<-- [start:cache_wrong]
wrong = attention(last, k, v, is_causal=True)
refused(wrong, full[:, :, -2:])
# the first of the two saw key 0 alone
torch.testing.assert_close(wrong[:, :, 0], v[:, :, 0])
# --8<-- [end:cache_wrong]
upper_left = torch.ones(2, L, dtype=torch.bool).tril()
torch.testing.assert_close(wrong, attention(last, k, v, upper_left))  # guard: upper_left_corner
exercise(
    "cache",
    visible,
    torch.zeros(2, L).masked_fill(~visible, -torch.inf),
    upper_left=upper_left,
    module=~visible,
    one_short=torch.ones(2, L, dtype=torch.bool).tril(diagonal=L - 3),
    everything=torch.ones(2, L, dtype=torch.bool),
)


# --8<-- [start:empty_try]
# sample 1 has 2 positions of padding in front
padding = torch.arange(L) < torch.tensor([0, 2])[:, None]
attend = None  # a function: x (B, L, E) -> (B, L, E)
check("nothing-to-see", attend)
# --8<-- [end:empty_try]

# --8<-- [start:empty]
# sample 1 has 2 positions of padding in front
padding = torch.arange(L) < torch.tensor([0, 2])[:, None]
hidden = future | padding[:, None, :]  # (B, L, L), True hides
empty = hidden.all(dim=-1)  # (B, L)
print(empty.int())


def attend(x):
    """(B, L, E), 0 where a query may look at nothing."""
    mask = hidden & ~empty[..., None]
    mask = mask.repeat_interleave(H, dim=0)
    return mha(x, x, x, attn_mask=mask)[0].masked_fill(
        empty[..., None], 0
    )


# --8<-- [end:empty]

# --8<-- [start:empty_holds]
leaf = x.clone().requires_grad_()
finite = attend(leaf)
finite.sum().backward()
print(finite.isfinite().all().item(), leaf.grad.isfinite().all().item())
assert leaf.grad.isfinite().all()
# sample 1 without its padding
alone = mha(x[1:, 2:], x[1:, 2:], x[1:, 2:], attn_mask=future[2:, 2:])
torch.testing.assert_close(finite[1:, 2:], alone[0])
# --8<-- [end:empty_holds]
assert empty.nonzero().tolist() == [[1, 0], [1, 1]]  # guard: first_two_queries
assert finite.isfinite().all()  # guard: output_is_finite
assert finite[empty].abs().max() == 0  # guard: set_to_0
# the other rows are those of the module with the mask as it is
as_it_is = mha(x, x, x, attn_mask=hidden.repeat_interleave(H, dim=0))[0]
torch.testing.assert_close(finite[~empty], as_it_is[~empty])  # guard: other_rows_untouched
assert as_it_is[empty].isnan().all()  # guard: nan_without_it
assert torch.full((L,), -torch.inf).softmax(0).isnan().all()  # guard: softmax_of_nothing

# --8<-- [start:empty_wrong]
wrong_leaf = x.clone().requires_grad_()
q, k, v = project(wrong_leaf)
# -inf is added to the scores, and the softmax mended behind
added = torch.zeros(B, L, L).masked_fill(hidden, -torch.inf)
masked = q @ k.mT / D**0.5 + added[:, None]
heads = masked.softmax(-1).nan_to_num(0) @ v
wrong = mha.out_proj(heads.transpose(1, 2).flatten(2))
torch.testing.assert_close(wrong[~empty], finite[~empty])
wrong[~empty].sum().backward()
print(wrong.isfinite().all().item())
print(wrong_leaf.grad.isnan().any(-1).int())
refused(wrong_leaf.grad, leaf.grad)
# --8<-- [end:empty_wrong]
assert wrong.isfinite().all()  # guard: wrong_but_finite
assert wrong_leaf.grad[1].isnan().all()  # guard: nan_in_all_of_sample_1
torch.testing.assert_close(wrong_leaf.grad[0], leaf.grad[0])  # guard: sample_0_is_right

# --8<-- [start:empty_overwritten]
other_leaf = x.clone().requires_grad_()
q, k, v = project(other_leaf)
# scores overwritten, not added to
scores = q @ k.mT / D**0.5
scores = scores.masked_fill(hidden[:, None], -torch.inf)
heads = scores.softmax(-1).nan_to_num(0) @ v
overwritten = mha.out_proj(heads.transpose(1, 2).flatten(2))
overwritten[~empty].sum().backward()
torch.testing.assert_close(other_leaf.grad, leaf.grad)
# --8<-- [end:empty_overwritten]
torch.testing.assert_close(overwritten, wrong)  # guard: the_same_output
# the module: NaN in the same places of the gradient as where -inf was added
module_leaf = x.clone().requires_grad_()
mha(*[module_leaf] * 3, attn_mask=hidden.repeat_interleave(H, dim=0))[0][~empty].sum().backward()
assert torch.equal(module_leaf.grad.isnan(), wrong_leaf.grad.isnan())  # guard: module_adds


def as_is(x):
    return mha(x, x, x, attn_mask=hidden.repeat_interleave(H, dim=0))[0]


def lifted(x):
    mask = hidden & ~empty[..., None]
    return mha(x, x, x, attn_mask=mask.repeat_interleave(H, dim=0))[0]


def mended(x):
    q, k, v = project(x)
    masked = q @ k.mT / D**0.5 + added[:, None]
    return mha.out_proj((masked.softmax(-1).nan_to_num(0) @ v).transpose(1, 2).flatten(2))


exercise(
    "nothing-to-see",
    attend,
    given=[(x,)],
    slopes=True,
    as_is=as_is,
    lifted=lifted,
    mended=mended,
    nan_gradient=lambda x: mended(x).masked_fill(empty[..., None], 0),
    causal_only=lambda x: mha(x, x, x, attn_mask=future)[0],
)


# --8<-- [start:leak_try]
def with_mask(mask):
    """Self-attention with a mask of the module."""
    return lambda x: mha(x, x, x, attn_mask=mask)[0]


everything = torch.ones(L, L, dtype=torch.bool)
layers = {
    "right": with_mask(everything.triu(1)),
    "one too far": with_mask(everything.triu(2)),
}
leaks = None  # a function: layer, x (B, L, E) -> bool
check("leak", leaks)
# --8<-- [end:leak_try]


# --8<-- [start:leak]
def leaks(layer, x):
    """Does an output move when a later input is redrawn?"""
    before = layer(x)
    for j in range(1, L):
        other = x.clone()
        other[:, j] += torch.randn(E, dtype=torch.float64)
        if not torch.allclose(layer(other)[:, :j], before[:, :j]):
            return True
    return False


for name, layer in layers.items():
    print(f"{name:13}{leaks(layer, x)}")
    assert leaks(layer, x) == (name != "right")
    assert leaks(layer, x) == leaks_future(layer, x).answer
# --8<-- [end:leak]
one_more = torch.ones(L, L, dtype=torch.bool).tril(1)
torch.testing.assert_close(layers["one too far"](x), with_sdpa(x, one_more))  # guard: one_token_too_far

# --8<-- [start:leak_wrong]
def leaks_to_the_first(layer, x):
    """Redraws the last input and looks at the first output."""
    other = x.clone()
    other[:, -1] += torch.randn(E, dtype=torch.float64)
    return not torch.allclose(layer(other)[:, 0], layer(x)[:, 0])


for name, layer in layers.items():
    print(f"{name:13}{leaks_to_the_first(layer, x)}")
assert leaks_to_the_first(layer, x) != leaks(layer, x)
# --8<-- [end:leak_wrong]


def split_badly(x):
    """Causal attention whose heads are split and joined by reshape alone."""
    parts = F.linear(x, mha.in_proj_weight, mha.in_proj_bias).chunk(3, dim=-1)
    heads = F.scaled_dot_product_attention(*(part.reshape(B, H, L, D) for part in parts), is_causal=True)
    return mha.out_proj(heads.reshape(B, L, E))


assert not leaks_future(split_badly, x)  # guard: no_leak_to_find
assert not torch.allclose(split_badly(x), out, atol=0.1)  # guard: and_wrong

exercise(
    "leak",
    leaks,
    given=[(layer, x) for layer in layers.values()],
    one_pair=leaks_to_the_first,
    other_way=lambda layer, x: not leaks(layer, x),
    always=lambda layer, x: bool((layer(x) != layer(x + 1)).any()),
)

for expected, told in outcomes():
    assert told == expected  # guard: every_answer_is_told
