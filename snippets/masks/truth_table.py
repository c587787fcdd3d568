# --8<-- [start:setup]
import math
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import (
    create_block_mask, flex_attention,
)

torch.manual_seed(3)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
mha = nn.MultiheadAttention(E, H, batch_first=True).double()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
query = torch.randn(B, L, E, dtype=torch.float64)
memory = torch.randn(B, S, E, dtype=torch.float64)
# (L, S): every row holds both True and False
mask = (torch.arange(S) + 2 * torch.arange(L)[:, None]) % 5 < 2
# --8<-- [end:setup]

# --8<-- [start:weights]
# what mha projects to, each (B, H, L or S, D)
W_q, W_k, _ = mha.in_proj_weight.chunk(3)  # each (E, E)
b_q, b_k, _ = mha.in_proj_bias.chunk(3)
q = F.linear(query, W_q, b_q).unflatten(-1, (H, D)).transpose(1, 2)
k = F.linear(memory, W_k, b_k).unflatten(-1, (H, D)).transpose(1, 2)


def mha_weights(m):
    """(B, H, L, S)"""
    return mha(query, memory, memory, attn_mask=m,
               average_attn_weights=False)[1]


def sdpa_weights(m):
    """(B, H, L, S): the output, where the values are the identity."""
    values = torch.eye(S, dtype=torch.float64)
    return F.scaled_dot_product_attention(q, k, values, m)
# --8<-- [end:weights]

# --8<-- [start:opposite]
torch.testing.assert_close(sdpa_weights(~mask), mha_weights(mask))
assert not torch.allclose(sdpa_weights(mask), mha_weights(mask))
on_true = {}
for name, weights in (("mha ", mha_weights(mask)),
                      ("sdpa", sdpa_weights(mask))):
    share = weights[..., mask].sum() / weights.sum()
    print(f"{name}: True {share:.2f}, False {1 - share:.2f}")
    on_true[name] = share
# --8<-- [end:opposite]
torch.testing.assert_close(  # guard: all_or_nothing
    torch.stack(list(on_true.values())), torch.tensor([0.0, 1.0]).double())
assert torch.equal(mha_weights(mask) == 0, sdpa_weights(mask) > 0)  # guard: wrong_places
from kernels import fused_calls

values = memory.unflatten(-1, (H, D)).transpose(1, 2)  # any numbers
forgot = F.scaled_dot_product_attention(q, k, values, mask)
slopes = torch.autograd.grad(forgot.square().sum(), mha.in_proj_weight)[0]
assert torch.cat([forgot.flatten(), slopes.flatten()]).isfinite().all()  # guard: nothing_tells
assert slopes[: 2 * E].abs().amax(1).min() > 0  # guard: training_goes_on
assert (mask.any(1) & ~mask.all(1)).all()  # guard: both_in_every_row
same_mask = {
    "nn.MultiheadAttention": mha_weights(mask)[0, 0],
    "F.scaled_dot_product_attention": sdpa_weights(mask)[0, 0],
}
figure("same_mask", "attention", {"mask": mask, "weights": torch.stack(list(same_mask.values()))}, labels={
    "heads": list(same_mask), "queries": [str(i) for i in range(L)], "keys": [str(j) for j in range(S)],
})
show("true_cells", int(mask.sum()))
show("cells", mask.numel())

# --8<-- [start:reaches]
x = torch.randn(1, L, E, dtype=torch.float64)
m = mask[:, :L]


def reaches(f):
    """(L, L) bool: does input j move output i?"""
    before = f(x)
    moved = torch.zeros(L, L, dtype=torch.bool)
    for j in range(L):
        other = x.clone()
        other[:, j] += torch.randn(E, dtype=torch.float64)
        moved[:, j] = (f(other) - before).abs().amax((0, 2)) > 1e-9
    return moved
# --8<-- [end:reaches]

# --8<-- [start:four_ways]
encoder = nn.TransformerEncoderLayer(E, H, 20, batch_first=True)
encoder = encoder.double().eval()
block_mask = create_block_mask(
    lambda b, h, i, j: m[i, j], None, None, L, L, device="cpu"
)
packed = (E, H, mha.in_proj_weight, mha.in_proj_bias, None, None,
          False, 0.0, mha.out_proj.weight, mha.out_proj.bias)
ways = {
    "nn.MultiheadAttention": lambda x: mha(x, x, x, attn_mask=m)[0],
    "nn.TransformerEncoderLayer": lambda x: encoder(x, src_mask=m),
    "F.multi_head_attention_forward":
        lambda x: F.multi_head_attention_forward(
            *(x.transpose(0, 1),) * 3, *packed, attn_mask=m,
        )[0].transpose(0, 1),
    "F.scaled_dot_product_attention":
        lambda x: F.scaled_dot_product_attention(x, x, x, m),
    "flex_attention mask_mod": lambda x: flex_attention(
        x[None], x[None], x[None], block_mask=block_mask)[0],
}
# --8<-- [end:four_ways]

# --8<-- [start:true_means]
# an input may reach its own output past the attention: leave it out
other = ~torch.eye(L, dtype=torch.bool)
print(f"{'':31}{'True':>6}{'False':>7}")
for name, f in ways.items():
    seen = reaches(f)
    true, false = seen[m & other], seen[~m & other]
    counts = f"{true.sum():3}/{len(true)}{false.sum():4}/{len(false)}"
    print(f"{name:31}{counts}")
    keeps = name.startswith(("F.scaled", "flex"))
    assert torch.equal(seen[other], (m if keeps else ~m)[other])
# --8<-- [end:true_means]

# --8<-- [start:floats]
ones = mask.double()  # 0 and 1
infinite = torch.zeros(L, S).double().masked_fill(mask, -math.inf)
scores = q @ k.mT / math.sqrt(D)  # (B, H, L, S)
for added in (ones, infinite):
    expected = (scores + added).softmax(-1)
    torch.testing.assert_close(mha_weights(added), expected)
    torch.testing.assert_close(sdpa_weights(added), expected)
# -inf is what True stands for in MHA, 1 is not
torch.testing.assert_close(mha_weights(infinite), mha_weights(mask))
assert not torch.allclose(mha_weights(ones), mha_weights(mask))
for name, added in (("0, 1   ", ones), ("0, -inf", infinite)):
    on_true = mha_weights(added)[..., mask].sum() / (B * H * L)
    print(f"{name}: True {on_true:.2f}")
# --8<-- [end:floats]
plain_share = mha_weights(None)[..., mask].sum() / (B * H * L)
ones_share = mha_weights(ones)[..., mask].sum() / (B * H * L)
show("plain_share", f"{plain_share:.2f}")
show("ones_share", f"{ones_share:.2f}")
assert 0 < plain_share < ones_share < 1  # guard: they_even_gained
assert mha_weights(ones).min() > 0  # guard: ones_hide_nothing
# the mask of ones and zeros that is meant for a causal one, on self-attention
future = torch.ones(L, L, dtype=torch.bool).triu(1)
lower = torch.ones(L, L, dtype=torch.float64).tril()
by_tril, by_bool, by_infinity = (
    mha(x, x, x, attn_mask=a)[1][0, future]
    for a in (lower, ~lower.bool(), lower.log())  # the log of 0 is -inf
)
assert by_tril.min() > 0  # guard: tril_hides_nothing
assert not (by_bool + by_infinity).any()  # guard: mended_tril_hides

# --8<-- [start:times_e]
def odds(weights):
    """(B, H, L): marked keys against the others, row by row."""
    marked = (weights * mask).sum(-1)
    return marked / (weights.sum(-1) - marked)


plain, raised = mha_weights(None), mha_weights(ones)
torch.testing.assert_close(odds(raised).log(), odds(plain).log() + 1)
factors = odds(raised) / odds(plain)
print(f"factors.shape {tuple(factors.shape)}")
print(f"{factors.min():.4f} to {factors.max():.4f}")
# --8<-- [end:times_e]

# --8<-- [start:shapes]
x = torch.randn(B, L, E, dtype=torch.float64)
split = x.unflatten(-1, (H, D)).transpose(1, 2)  # (B, H, L, D)
takers = {
    "MHA": lambda m: mha(x, x, x, attn_mask=m)[0],
    "encoder": lambda m: encoder(x, src_mask=m),
    "SDPA": lambda m: F.scaled_dot_product_attention(
        split, split, split, m),
}
shapes = {
    "(L, S)": (L, L), "(B*H, L, S)": (B * H, L, L),
    "(B, L, S)": (B, L, L), "(B, H, L, S)": (B, H, L, L),
    "(B, 1, 1, S)": (B, 1, 1, L), "(1, S)": (1, L),
}
# --8<-- [end:shapes]

# --8<-- [start:tried]
def tried(take, shape, dtype=torch.float64):
    try:
        take(torch.zeros(shape, dtype=dtype))
    except (AssertionError, RuntimeError) as error:
        return type(error).__name__
    return "ok"


print(f"{'':13}" + "".join(f"{name:>16}" for name in takers))
taken = {}
for letters, shape in shapes.items():
    row = [tried(take, shape) for take in takers.values()]
    print(f"{letters:13}" + "".join(f"{word:>16}" for word in row))
    taken[letters] = [word == "ok" for word in row]
assert [a for a, t in taken.items() if all(t)] == ["(L, S)"]
# --8<-- [end:tried]


def broadcasts(shape):
    """Does it broadcast to (B, H, L, L)?"""
    try:
        return torch.broadcast_shapes(shape, (B, H, L, L)) == (B, H, L, L)
    except RuntimeError:
        return False


two = ((L, L), (B * H, L, L))
rules = {a: [shape in two, shape in two, broadcasts(shape)] for a, shape in shapes.items()}
assert taken == rules  # guard: which_shapes
mha.eval()
with torch.no_grad():  # boolean masks on the fast path: the same
    fast = {a: [tried(take, shape, torch.bool) == "ok" for take in takers.values()] for a, shape in shapes.items()}
    fused = [fused_calls(lambda take=take: take(future)) for take in takers.values()]
assert fast == taken  # guard: the_fast_path_takes_the_same
mha.train()
assert [sum(calls) for calls in fused] == [1, 1, 0]  # guard: the_fast_path_was_tried

# --8<-- [start:as_many_samples_as_heads]
n = 4  # samples, and heads: B = H
q_n, k_n = torch.randn(2, n, n, L, D, dtype=torch.float64)
# (B, L, S), True keeps: sample b is b + 2 tokens long
lengths = torch.arange(n)[:, None, None] + 2
own = (torch.arange(L) < lengths).expand(n, L, L)


def attend(m):
    """(B, H, L, S): the weights, since the values are the identity."""
    values = torch.eye(L, dtype=torch.float64)
    return F.scaled_dot_product_attention(q_n, k_n, values, m)


silent = attend(own)  # no error
for_samples = attend(own[:, None])  # (B, 1, L, S)
for_heads = attend(own[None])  # (1, H, L, S)
torch.testing.assert_close(silent, for_heads)
assert not torch.allclose(silent, for_samples)
for weights in (for_samples, silent):
    on_padding = weights.sum(2)[(~own[:, :1]).expand(n, n, L)].sum()
    print(f"on padding {on_padding / weights.sum():.2f}")
# --8<-- [end:as_many_samples_as_heads]
hidden = ~own[:, None].expand(n, n, L, L)
assert not for_samples[hidden].any()  # guard: per_sample_hides_the_padding
show("on_padding", f"{silent[hidden].sum() / silent.sum():.2f}")
# head h of any sample, recomputed: it sees what sample h should see
lone = torch.softmax((q_n @ k_n.mT / D**0.5).masked_fill(~own[None], -math.inf), -1)
torch.testing.assert_close(silent, lone)  # guard: mask_b_for_head_b
for b, h, name in ((n, n, "ok"), (1, n, "ok"), (2, n, "RuntimeError")):
    heads = torch.zeros(b, h, L, D)
    found = tried(lambda m, a=heads: F.scaled_dot_product_attention(a, a, a, m), (b, L, L), torch.bool)
    assert found == name  # guard: only_where_b_is_h_or_1
# the module: (B, L, S) is refused with as many samples as heads, and is (B * H, L, S) with one head
x_n = x[:1].expand(n, L, E)
assert tried(lambda m: mha(x_n, x_n, x_n, attn_mask=m), (n, L, L)) == "RuntimeError"  # guard: the_module_refuses
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    single = nn.MultiheadAttention(E, 1, batch_first=True).double()
_, by_one_head = single(x_n, x_n, x_n, attn_mask=~own)
assert not by_one_head[~own].any()  # guard: one_head_takes_it_rightly
# a padding mask (B, S) handed over as attn_mask: with B = L it is a mask of rows
lengths = torch.arange(L)[None] > torch.arange(L)[:, None]  # (B, S), True hides
x_L = x[:1].expand(L, L, E)
_, as_rows = mha(x_L, x_L, x_L, attn_mask=lengths)
_, as_padding = mha(x_L, x_L, x_L, key_padding_mask=lengths)
assert not as_padding.mT[lengths].any()  # guard: padding_hides_columns
assert not as_rows[:, lengths].any()  # guard: rows_instead_of_samples
assert as_rows.mT[lengths].any()  # guard: padding_is_seen

# --8<-- [start:order]
# (B, L, S): sample 0 may not see keys 0 to 2, sample 1 not 3 to 6
per_sample = torch.zeros(B, L, S, dtype=torch.bool)
per_sample[0, :, :3] = per_sample[1, :, 3:] = True
right = mha_weights(per_sample.repeat_interleave(H, 0))
wrong = mha_weights(per_sample.repeat(H, 1, 1))
hidden = per_sample[:, None].expand(B, H, L, S)
for n in range(B):
    alone = mha(query[n:n + 1], memory[n:n + 1], memory[n:n + 1],
                attn_mask=per_sample[n], average_attn_weights=False)[1]
    torch.testing.assert_close(right[n], alone[0])
    assert not torch.allclose(wrong[n], alone[0])
    seen = [(w[n] * hidden[n]).sum() / (H * L) for w in (right, wrong)]
    print(f"sample {n}: {seen[0]:.2f} {seen[1]:.2f}")
# --8<-- [end:order]
assert torch.equal(per_sample[0], ~per_sample[1])  # guard: what_one_may_see_the_other_may_not
leak = ((wrong * hidden).sum() / wrong.sum()).item()
show("leak", f"{leak:.2f}")
assert abs(leak - 1 / 2) < 1e-12  # guard: half_of_it_leaks
assert not right[hidden].any()  # guard: repeat_interleave_leaks_nothing
slices = (torch.arange(B * H)[:, None, None] + 3 * torch.arange(L)[:, None] + torch.arange(S)) % 5 < 2  # all differ
by_slice = torch.stack([
    torch.stack([(scores[b, h].masked_fill(slices[b * H + h], -math.inf)).softmax(-1) for h in range(H)])
    for b in range(B)
])
torch.testing.assert_close(mha_weights(slices), by_slice)  # guard: slice_of_head_and_sample
# repeat: head h of sample b gets the mask of sample (b * H + h) % B
mixed = torch.stack([
    torch.stack([(scores[b, h].masked_fill(per_sample[(b * H + h) % B], -math.inf)).softmax(-1) for h in range(H)])
    for b in range(B)
])
torch.testing.assert_close(wrong, mixed)  # guard: masks_of_other_samples
others = [(b * H + h) % B != b for b in range(B) for h in range(H)]
assert 2 * sum(others) == len(others)  # guard: half_of_the_heads
for one, heads in ((per_sample[:1], H), (per_sample, 1)):
    assert torch.equal(one.repeat(heads, 1, 1), one.repeat_interleave(heads, 0))  # guard: out_of_sight

# --8<-- [start:padding]
# (B, S): sample 0 is 7 long, sample 1 is 4
padding = torch.tensor([[False] * S, [False] * 4 + [True] * 3])
_, padded = mha(query, memory, memory, key_padding_mask=padding,
                average_attn_weights=False)
# (B * H, L, S)
columns = padding[:, None, None].expand(B, H, L, S).flatten(0, 1)
torch.testing.assert_close(padded, mha_weights(columns))
assert not padded[1, ..., 4:].any()  # exactly 0
print(f"padding {tuple(padding.shape)} columns {tuple(columns.shape)}")
# --8<-- [end:padding]

floats = memory[..., 0]  # (B, S), any numbers
_, by_floats = mha(query, memory, memory, key_padding_mask=floats, average_attn_weights=False)
expected = (scores + floats[:, None, None]).softmax(-1)
torch.testing.assert_close(by_floats, expected)  # guard: float_padding_is_added_to_scores

# --8<-- [start:padding_test]
from checks import leaks_padding

padded = torch.arange(L) >= torch.tensor([[5], [3]])  # (B, L)
masks = {"padded": padded, "inverted": ~padded, "none": None,
         "0 and 1": padded.double()}
for name, given in masks.items():
    report = leaks_padding(
        lambda a, mask=given: encoder(a, src_key_padding_mask=mask),
        query, padded)
    print(f"{name:9} {report}")
    assert bool(report) == (name != "padded")
# --8<-- [end:padding_test]

# --8<-- [start:question]
# as tokenizers give it: 1 to keep, 0 to ignore
attention_mask = (~padding).long()  # (B, S)
to_mha = attention_mask == 0  # True hides
to_sdpa = (attention_mask == 1)[:, None, None]  # (B, 1, 1, S)
_, by_mha = mha(query, memory, memory, key_padding_mask=to_mha,
                average_attn_weights=False)
torch.testing.assert_close(sdpa_weights(to_sdpa), by_mha)
try:
    mha(query, memory, memory, key_padding_mask=attention_mask)
except AssertionError as error:
    print(error)
else:
    raise AssertionError("integers were taken")
# --8<-- [end:question]
try:
    sdpa_weights(attention_mask[:, None, None])  # guard: sdpa_refuses_integers
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("integers were taken")

# The table: every mask that PyTorch's attention takes, tried.
decoder = nn.TransformerDecoderLayer(E, H, 20, dropout=0, batch_first=True).double()


def forward_(a, b, **masks):
    a, b = a.transpose(0, 1), b.transpose(0, 1)
    return F.multi_head_attention_forward(a, b, b, *packed, **masks)[0].transpose(0, 1)


def by_heads(a, b, **masks):
    a, b = (part.unflatten(-1, (H, D)).transpose(1, 2) for part in (a, b))
    return F.scaled_dot_product_attention(a, b, b, **masks).transpose(1, 2).flatten(2)


# name: (who attends to whom: itself or memory, argument, call)
arguments = {
    "mha": (False, "attn_mask", lambda a, b, **m: mha(a, b, b, **m)[0]),
    "mha_padding": (False, "key_padding_mask", lambda a, b, **m: mha(a, b, b, **m)[0]),
    "encoder": (True, "src_mask", lambda a, b, **m: encoder(a, **m)),
    "encoder_padding": (True, "src_key_padding_mask", lambda a, b, **m: encoder(a, **m)),
    "decoder": (True, "tgt_mask", lambda a, b, **m: decoder(a, memory[: len(a)], **m)),
    "decoder_padding": (True, "tgt_key_padding_mask", lambda a, b, **m: decoder(a, memory[: len(a)], **m)),
    "memory": (False, "memory_mask", lambda a, b, **m: decoder(a, b, **m)),
    "memory_padding": (False, "memory_key_padding_mask", lambda a, b, **m: decoder(a, b, **m)),
    "forward": (False, "attn_mask", forward_),
    "forward_padding": (False, "key_padding_mask", forward_),
    "sdpa": (False, "attn_mask", by_heads),
}


def moves(name, given):
    """(L, S) bool: does key j move output i? Off the diagonal where the layer attends to itself."""
    itself, argument, call = arguments[name]
    a = query[:1]
    b = a if itself else memory[:1]
    before = call(a, b, **{argument: given})
    out = torch.zeros(L, b.shape[1], dtype=torch.bool)
    for j in range(b.shape[1]):
        other = b.clone()
        other[:, j] += 1 + torch.arange(E)
        out[:, j] = (call(other if itself else a, other, **{argument: given}) - before).abs().amax((0, 2)) > 1e-9
    return out[~torch.eye(L, dtype=torch.bool)] if itself else out.flatten()


def accepted(name, shape, dtype=torch.float64):
    _, argument, call = arguments[name]
    return tried(lambda given: call(x, x, **{argument: given}), shape, dtype) == "ok"


every_shape = shapes | {"(B, S)": (B, L)}
found = {}
for name, (itself, *_) in arguments.items():
    keys = L if itself else S
    padded_keys = name.endswith("padding")
    # (1, S) or (L, S), True and False in every row
    given = mask[1:2, :keys] if padded_keys else mask[:, :keys]
    marked = given.expand(L, keys)
    marked = marked[~torch.eye(L, dtype=torch.bool)] if itself else marked.flatten()
    seen = moves(name, given)
    shows = torch.equal(seen, marked)
    assert torch.equal(seen, marked == shows)  # guard: true_hides_or_shows
    # 0 and 1 are added and hide nothing; 0 and minus infinity hide
    zeros_and_ones, hiding = given.double(), torch.zeros(given.shape).double().masked_fill(given, -math.inf)
    added = [moves(name, zeros_and_ones), moves(name, hiding)]
    assert torch.equal(torch.stack(added), torch.stack([marked | ~marked, ~marked]))  # guard: floats_are_added_by_all
    found[name] = {
        "hides": not shows,
        "refuses": not accepted(name, (B, L) if padded_keys else (L, L), torch.int64),
        "shapes": ", ".join(f"`{letters}`" for letters, shape in every_shape.items() if accepted(name, shape)),
    }
    show(f"{name}_hides", found[name]["hides"])
    show(f"{name}_shapes", found[name]["shapes"])
    assert found[name]["hides"] != (name == "sdpa")  # guard: sdpa_alone_shows
assert all(one["refuses"] for one in found.values())  # guard: integers_are_refused_by_all
for name in found.keys() - {"sdpa"}:
    twin = "mha_padding" if name.endswith("padding") else "mha"
    assert found[name] == found[twin]  # guard: modules_take_the_same
assert found["mha_padding"]["shapes"] == "`(B, S)`"  # guard: padding_is_by_sample
stack = nn.TransformerEncoder(encoder, 1, enable_nested_tensor=False).eval()
for given in (mask[:, :L], torch.zeros(L, L).double().masked_fill(mask[:, :L], -math.inf)):
    torch.testing.assert_close(stack(x, mask=given), encoder(x, src_mask=given))  # guard: the_encoder_hands_its_mask_on


# flex_attention: a function of places instead of a tensor
def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def turned(b, h, q_idx, kv_idx):
    return kv_idx >= q_idx


lower = torch.ones(L, L, dtype=torch.bool).tril()
one = query[:1].unflatten(-1, (H, D)).transpose(1, 2)  # (1, H, L, D)
values_are_places = torch.eye(L, dtype=torch.float64).expand(1, H, L, L)
by_function = {}
for rule in (causal, turned):
    blocks = create_block_mask(rule, None, None, L, L, device="cpu")
    by_function[rule.__name__] = flex_attention(one, one, values_are_places, block_mask=blocks)[0, 0] > 0
assert torch.equal(by_function["causal"], lower)  # guard: flex_shows
assert torch.equal(by_function["turned"], lower.T)  # guard: flex_turned_shows_the_future
added = torch.randn(L, L, dtype=torch.float64)
by_score = flex_attention(one, one, values_are_places, score_mod=lambda s, b, h, i, j: s + added[i, j])
expected = (one @ one.mT / math.sqrt(D) + added).softmax(-1)
torch.testing.assert_close(by_score, expected)  # guard: score_mod_adds
