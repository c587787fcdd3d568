# --8<-- [start:setup]
import math
import torch
from torch import nn
from attention_inputs import soft_rows

torch.manual_seed(8)
B, L, S, D, E, H = 2, 4, 7, 6, 24, 4
q = torch.randn(B, L, D, dtype=torch.float64)
k, v = torch.randn(2, B, S, D, dtype=torch.float64)
# (L, S), True hides: query 2 may see nothing
mask = torch.zeros(L, S, dtype=torch.bool)
mask[0, 3:] = mask[1, :2] = mask[2] = True
empty = mask.all(-1)  # (L,)
# --8<-- [end:setup]

# --8<-- [start:three_answers]
scores = q @ k.mT / math.sqrt(D)  # (B, L, S)
by_infinity = scores.masked_fill(mask, -math.inf).softmax(-1)
by_billion = (scores.float() - 1e9 * mask).softmax(-1)
by_zero = soft_rows(
    scores.masked_fill(mask, -math.inf), zero_where_nothing=True)
for weights in (by_infinity, by_billion, by_zero):
    print(weights[0, 2].numpy().round(3))
torch.testing.assert_close(
    by_billion[:, 2], torch.full((B, S), 1 / S))  # over everything
torch.testing.assert_close(
    by_zero[:, ~empty], by_infinity[:, ~empty])  # other rows: the same
torch.testing.assert_close(by_zero[:, ~empty].sum(-1),
                           torch.ones(B, L - 1).double())
assert by_infinity[:, empty].isnan().all()
# --8<-- [end:three_answers]
from kernels import fused_calls

answers = {"-inf": by_infinity[0], "-1e9 (float32)": by_billion[0].double(), "soft_rows": by_zero[0]}
figure("three_answers", "attention", {"mask": mask, "weights": torch.stack(list(answers.values()))}, labels={
    "heads": list(answers), "masked": True,
    "queries": [str(i) for i in range(L)], "keys": [str(j) for j in range(S)],
})
show("one_of_seven", f"{by_billion[0, 2, 0]:.3f}")
for weights in answers.values():
    torch.testing.assert_close(  # guard: other_rows_are_the_same
        weights[~empty], by_infinity[0, ~empty], rtol=1e-5, atol=1e-6)
assert not by_zero[:, empty].any()  # guard: zero_where_nothing
assert empty.tolist() == [False, False, True, False]  # guard: query_2_is_the_empty_one
# another layer of attention over those outputs, without a mask
once = by_infinity @ v  # (B, L, D)
assert torch.equal(once.isnan().any(-1), empty.expand(B, L))  # guard: one_row_is_nan
twice = (once @ once.mT / math.sqrt(D)).softmax(-1) @ once
assert twice.isnan().all()  # guard: nan_spreads

# --8<-- [start:large_numbers]
plain = scores[:, 2].softmax(-1)  # (B, S): nothing hidden
uniform = torch.full((B, S), 1 / S)
for dtype in (torch.float32, torch.float64):
    for large in (-1e9, torch.finfo(dtype).min):
        added = torch.zeros(L, S, dtype=dtype).masked_fill(mask, large)
        row = (scores.to(dtype) + added).softmax(-1)[:, 2]
        to_plain = (row - plain).abs().max()
        to_uniform = (row - uniform).abs().max()
        print(f"{str(dtype)[6:]} {large:8.0e} "
              f"{to_plain:.2f} {to_uniform:.2f}")
        absorbed = dtype == torch.float32 or large < -1e9
        expected = uniform if absorbed else plain
        torch.testing.assert_close(
            row, expected.to(dtype), atol=1e-6, rtol=0)
# --8<-- [end:large_numbers]

for dtype in (torch.float32, torch.float64):
    replaced = scores.to(dtype).masked_fill(mask, -1e9).softmax(-1)[:, 2]
    torch.testing.assert_close(replaced, uniform.to(dtype))  # guard: in_place_of_the_scores
kept = {
    dtype: (scores[:, 2].to(dtype) - 1e9).unique().numel() for dtype in (torch.float32, torch.float64)
}
assert kept == {torch.float32: 1, torch.float64: B * S}  # guard: digits_left_beside_a_billion

# --8<-- [start:gradients]
# as PyTorch does it: -inf is added
added = torch.zeros(L, S).double().masked_fill(mask, -math.inf)


def gradient(softmax):
    """Of W (D, D), through the rows that do see something."""
    W = torch.eye(D, dtype=torch.float64, requires_grad=True)
    weights = softmax((q @ W) @ k.mT / math.sqrt(D) + added)
    loss = (weights @ v)[:, ~empty].square().sum()
    return torch.autograd.grad(loss, W)[0]


plain = gradient(lambda s: s.softmax(-1))
after = gradient(lambda s: s.softmax(-1).nan_to_num())
before = gradient(lambda s: soft_rows(s, True))
for grad in (plain, after, before):
    print(f"NaN {grad.isnan().sum()} of {grad.numel()}")
# --8<-- [end:gradients]

# --8<-- [start:right_gradient]
# the true one: the same rows without the empty one
W = torch.eye(D, dtype=torch.float64, requires_grad=True)
scores = (q[:, ~empty] @ W) @ k.mT / math.sqrt(D)
weights = (scores + added[~empty]).softmax(-1)
loss = (weights @ v).square().sum()
expected, = torch.autograd.grad(loss, W)
torch.testing.assert_close(before, expected)
assert plain.isnan().all()
assert after.isnan().all()
# --8<-- [end:right_gradient]

# with masked_fill, which lets no gradient through, only what comes behind the softmax is NaN
filled = torch.eye(D, dtype=torch.float64, requires_grad=True)
valued = torch.eye(D, dtype=torch.float64, requires_grad=True)
weights = ((q @ filled) @ k.mT / math.sqrt(D)).masked_fill(mask, -math.inf).softmax(-1)
loss = (weights @ (v @ valued))[:, ~empty].square().sum()
of_queries, of_values = torch.autograd.grad(loss, (filled, valued))
torch.testing.assert_close(of_queries, expected)  # guard: masked_fill_keeps_the_gradient_of_queries
assert of_values.isnan().all()  # guard: and_ruins_that_of_values

# --8<-- [start:module]
mha = nn.MultiheadAttention(E, H, batch_first=True).double()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
x = torch.randn(B, L, E, dtype=torch.float64)
memory = torch.randn(B, S, E, dtype=torch.float64)


def safe(query, key, mask, **options):
    """Empty rows may look, and what they saw is thrown away."""
    empty = mask.all(-1)  # (L,)
    output, weights = mha(
        query, key, key, attn_mask=mask & ~empty[:, None], **options)
    output = output.masked_fill(empty[:, None], 0)
    if weights is not None:
        weights = weights.masked_fill(empty[:, None], 0)
    return output, weights
# --8<-- [end:module]

# --8<-- [start:every_path]
expected = mha(x, memory, memory, attn_mask=mask, need_weights=False)[0]
for mode in ("train", "eval", "no_grad"):
    for need_weights in (True, False):
        mha.train(mode == "train")
        with torch.set_grad_enabled(mode != "no_grad"):
            output, weights = safe(x, memory, mask,
                                   need_weights=need_weights)
        torch.testing.assert_close(
            output[:, ~empty], expected[:, ~empty])
        assert not output[:, empty].any()  # zeros
        if mode != "no_grad":
            slopes = torch.autograd.grad(
                output.square().sum(), list(mha.parameters()))
            finite = [slope.isfinite().all().item() for slope in slopes]
            assert all(finite)
_, weights = safe(x, memory, mask)
print(f"finite {sum(finite)} of {len(finite)}")
print("rows", weights[0].sum(-1).detach().numpy().round(2))
# --8<-- [end:every_path]
torch.testing.assert_close(weights.sum(-1), (~empty).double().expand(B, L))  # guard: weights_of_empty_rows_are_0
# self-attention, so that the fast path is tried too
square, nothing = mask[:, :L], mask[:, :L].all(-1)
reference = mha.train()(x, x, x, attn_mask=square, need_weights=False)[0]
mha.eval()
with torch.no_grad():
    found = []
    calls = fused_calls(lambda: found.append(safe(x, x, square)[0]))
assert calls.attention == 1  # guard: the_fast_path_was_tried
torch.testing.assert_close(found[0][:, ~nothing], reference[:, ~nothing])  # guard: safe_on_the_fast_path
assert not found[0][:, nothing].any()  # guard: zero_on_the_fast_path

# --8<-- [start:padded_queries]
# (B, L): sample 1 is 2 long
padding = torch.tensor([[False] * L, [False] * 2 + [True] * 2])
output, weights = mha(x, x, x, key_padding_mask=padding)
print("rows   ", weights[1].sum(-1).detach().numpy().round(2))
print("columns", weights[1].sum(0).detach().numpy().round(2))
torch.testing.assert_close(weights.sum(-1), torch.ones(B, L).double())
assert not weights[1][:, 2:].any()
other = x.clone()
other[padding] = torch.randn(2, E, dtype=torch.float64)
again, _ = mha(other, other, other, key_padding_mask=padding)
torch.testing.assert_close(again[~padding], output[~padding])
assert not torch.allclose(again[padding], output[padding])
# --8<-- [end:padded_queries]

# --8<-- [start:question]
# causal, and padding on the left: which rows are empty?
left = torch.tensor([[False] * L, [True] * 2 + [False] * 2])  # (B, L)
future = torch.ones(L, L, dtype=torch.bool).triu(1)
both = future | left[:, None]  # (B, L, L)
print(both.all(-1).int().tolist())
scores = torch.randn(B, L, L).masked_fill(both, -math.inf)
weights = soft_rows(scores, zero_where_nothing=True)
assert torch.equal(weights.sum(-1) == 0, both.all(-1))
# --8<-- [end:question]
assert torch.equal(both.all(-1), left)  # guard: the_padded_ones_on_the_left
nothing = both.all(-1)  # (B, L)
safely, _ = mha(x, x, x, attn_mask=(both & ~nothing[..., None]).repeat_interleave(H, 0))
safely = safely.masked_fill(nothing[..., None], 0)
alone, _ = mha(x[1:, 2:], x[1:, 2:], x[1:, 2:], attn_mask=future[2:, 2:])
whole, _ = mha(x[:1], x[:1], x[:1], attn_mask=future)
torch.testing.assert_close(safely, torch.stack([whole[0], torch.cat([torch.zeros(2, E), alone[0]])]))  # guard: safe_by_sample
right = left.flip(-1)
assert not (future | right[:, None]).all(-1).any()  # guard: none_with_padding_on_the_right
assert not future.all(-1).any()  # guard: none_by_the_causal_mask_alone
