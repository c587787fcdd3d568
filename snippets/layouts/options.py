# --8<-- [start:setup]
import torch
from torch import nn
from paper_module import PaperMultiheadAttention

torch.manual_seed(12)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H


def build(**options):
    """nn.MultiheadAttention, parameters redrawn with spread 0.5."""
    options = {"batch_first": True, "dtype": torch.float64} | options
    mha = nn.MultiheadAttention(E, H, **options)
    for parameter in mha.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mha


x = 0.5 * torch.randn(B, L, E, dtype=torch.float64)  # queries
y = 0.5 * torch.randn(B, S, E, dtype=torch.float64)  # keys, values
# --8<-- [end:setup]

# --8<-- [start:state]
options = {
    "default": {}, "bias=False": {"bias": False},
    "kdim=9": {"kdim": 9}, "add_bias_kv": {"add_bias_kv": True},
    "add_zero_attn": {"add_zero_attn": True},
    "batch_first=False": {"batch_first": False},
}
keys = {}
for name, change in options.items():
    state = build(**change).state_dict()
    keys[name] = set(state)
    print(name)
    for key, tensor in state.items():
        print(f"    {key:16}{tuple(tensor.shape)}")
assert keys["batch_first=False"] == keys["add_zero_attn"]
assert keys["add_zero_attn"] == keys["default"]
assert "in_proj_weight" not in keys["kdim=9"]
assert "out_proj.bias" not in keys["bias=False"]
# --8<-- [end:state]
three = {"q_proj_weight", "k_proj_weight", "v_proj_weight"}
packed_key = {"in_proj_weight"}
with torch.random.fork_rng():  # a guard leaves the random numbers of the page alone
    for change in ({"kdim": 9}, {"vdim": 9}):
        found = set(build(**change).state_dict())
        assert found == keys["default"] - packed_key | three  # guard: three_matrices_and_one_bias
    assert set(build(kdim=E, vdim=E).state_dict()) == keys["default"]  # guard: one_where_the_widths_are_equal
assert keys["default"] - keys["bias=False"] == {"in_proj_bias", "out_proj.bias"}  # guard: no_bias_at_all

# --8<-- [start:key_bias]
def without(mha, letter):
    """Output and weights, the bias of q, k or v being zero."""
    start = "qkv".index(letter) * E
    with torch.no_grad():
        kept = mha.in_proj_bias.clone()
        mha.in_proj_bias[start:start + E] = 0
        output, weights = mha(x, y, y, average_attn_weights=False)
        mha.in_proj_bias.copy_(kept)
    return output, weights


mha = build()
output, weights = mha(x, y, y, average_attn_weights=False)
for letter in "qkv":
    other, other_weights = without(mha, letter)
    same = torch.allclose(other_weights, weights)
    print(letter, f"{(other - output).abs().max():.2f}", same)
torch.testing.assert_close(without(mha, "k"), (output, weights))
assert not torch.allclose(without(mha, "q")[1], weights)
# --8<-- [end:key_bias]

# the score of every key of a row moves by q . b_k / sqrt(D)
W_q, W_k, _ = mha.in_proj_weight.chunk(3)
b_q, b_k, _ = mha.in_proj_bias.chunk(3)
q, k = (a.unflatten(-1, (H, D)).transpose(1, 2) for a in (x @ W_q.T + b_q, y @ W_k.T))
moved = q @ (k + b_k.view(H, 1, D)).mT / D**0.5 - q @ k.mT / D**0.5  # (B, H, L, S)
per_row = (q * b_k.view(H, 1, D)).sum(-1, keepdim=True) / D**0.5
torch.testing.assert_close(moved, per_row.expand(B, H, L, S))  # guard: one_number_for_a_row

# --8<-- [start:value_bias]
b_v = mha.in_proj_bias[2 * E:]
constant = b_v @ mha.out_proj.weight.T  # (E,)
torch.testing.assert_close(
    output - without(mha, "v")[0], constant.expand(B, L, E))
print(f"constant.shape {tuple(constant.shape)}")
# --8<-- [end:value_bias]

# --8<-- [start:when_not]
for option in ("add_bias_kv", "add_zero_attn"):
    extra = build(**{option: True})
    output, weights = extra(x, y, y, average_attn_weights=False)
    other, other_weights = without(extra, "k")
    assert not torch.allclose(other_weights, weights)
    # (B, L, H): what is left for keys that have the bias
    left = weights[..., :S].sum(-1).transpose(1, 2)
    b_v = extra.in_proj_bias[2 * E:].view(H, D)
    # (B, L, H, D) -> (B, L, E)
    shift = (left[..., None] * b_v).flatten(2) @ extra.out_proj.weight.T
    torch.testing.assert_close(
        output - without(extra, "v")[0], shift)
    print(f"{option:14}{(other - output).abs().max():.2f}"
          f" {left.min():.2f} to {left.max():.2f}")
# --8<-- [end:when_not]

assert left.max() < 1  # guard: not_in_full

# --8<-- [start:kdim]
kdim, vdim = 9, 11
apart = build(kdim=kdim, vdim=vdim)
key = torch.randn(B, S, kdim, dtype=torch.float64)
value = torch.randn(B, S, vdim, dtype=torch.float64)
output, _ = apart(x, key, value)
b_q, b_k, b_v = apart.in_proj_bias.chunk(3)  # packed all the same
q = x @ apart.q_proj_weight.T + b_q  # (B, L, E)
k = key @ apart.k_proj_weight.T + b_k  # (B, S, E)
v = value @ apart.v_proj_weight.T + b_v  # (B, S, E)
q, k, v = (a.unflatten(-1, (H, D)).transpose(1, 2) for a in (q, k, v))
heads = (q @ k.mT / D**0.5).softmax(-1) @ v  # (B, H, L, D)
torch.testing.assert_close(
    apart.out_proj(heads.transpose(1, 2).flatten(2)), output)
print(f"in_proj_weight {apart.in_proj_weight}")
# --8<-- [end:kdim]

# --8<-- [start:extra_columns]
both = build(add_bias_kv=True, add_zero_attn=True)
_, weights = both(x, y, y, average_attn_weights=False)
W_q, W_k, _ = both.in_proj_weight.chunk(3)
b_q, b_k, _ = both.in_proj_bias.chunk(3)
q, k = x @ W_q.T + b_q, y @ W_k.T + b_k
k = torch.cat([k, both.bias_k.expand(B, 1, E),  # (B, S + 2, E)
               torch.zeros(B, 1, E)], 1)
q, k = (a.unflatten(-1, (H, D)).transpose(1, 2) for a in (q, k))
torch.testing.assert_close((q @ k.mT / D**0.5).softmax(-1), weights)
for kv, zero in ((0, 0), (1, 0), (0, 1), (1, 1)):
    more = build(add_bias_kv=bool(kv), add_zero_attn=bool(zero))
    _, w = more(x, y, y)
    print(f"add_bias_kv {kv} add_zero_attn {zero} {tuple(w.shape)}")
    assert w.shape[-1] == S + kv + zero
# --8<-- [end:extra_columns]
v = torch.cat([y @ both.in_proj_weight[2 * E:].T + both.in_proj_bias[2 * E:], both.bias_v.expand(B, 1, E),
               torch.zeros(B, 1, E)], 1).unflatten(-1, (H, D)).transpose(1, 2)  # (B, H, S + 2, D)
by_hand = both.out_proj((weights @ v).transpose(1, 2).flatten(2))
torch.testing.assert_close(by_hand, both(x, y, y)[0])  # guard: values_of_the_added_columns
figure("extra_columns", "attention", {"weights": weights[0, :2]}, {
    "queries": [str(i) for i in range(L)],
    "keys": [*(str(j) for j in range(S)), "bias_k", "zero"],
})

# --8<-- [start:never_masked]
everything = torch.ones(L, S, dtype=torch.bool)
output, weights = both(x, y, y, attn_mask=everything)
torch.testing.assert_close(weights[..., S:].sum(-1),
                           torch.ones(B, L, dtype=torch.float64))
assert output.isfinite().all()
print(weights[0, 0].detach().numpy().round(2))
# --8<-- [end:never_masked]

# --8<-- [start:batch_first]
right = build()
wrong = nn.MultiheadAttention(E, H, dtype=torch.float64)  # the default
wrong.load_state_dict(right.state_dict())
good, good_weights = right(x, x, x)
bad, bad_weights = wrong(x, x, x)
print(f"good {tuple(good.shape)} {tuple(good_weights.shape)}")
print(f"bad  {tuple(bad.shape)} {tuple(bad_weights.shape)}")
assert not torch.allclose(bad, good)
# attention across the batch: position by position, samples mix
turned, _ = right(*(x.transpose(0, 1),) * 3)
torch.testing.assert_close(bad, turned.transpose(0, 1))
other = x.clone()
other[1] = torch.randn(L, E, dtype=torch.float64)
torch.testing.assert_close(right(other, other, other)[0][0], good[0])
assert not torch.allclose(wrong(other, other, other)[0][0], bad[0])
# one sample at a time: every token sees itself alone
_, single = wrong(x[:1], x[:1], x[:1])
print(f"single {tuple(single.shape)}")
assert torch.equal(single, torch.ones_like(single))
# --8<-- [end:batch_first]

assert bad.shape == good.shape  # guard: the_right_shape
assert (good_weights.shape, bad_weights.shape) == ((B, L, L), (L, B, B))  # guard: the_tell_tale
assert not wrong.batch_first  # guard: false_by_default
alone, _ = right(x[:1], x[:1], x[:1])
assert not torch.allclose(wrong(x[:1], x[:1], x[:1])[0], alone)  # guard: wrong_with_one_sample_too

# --8<-- [start:dropout]
p = 0.25
dropping = build(dropout=p)
_, clean = dropping.eval()(x, y, y, average_attn_weights=False)
output, dropped = dropping.train()(x, y, y, average_attn_weights=False)
kept = dropped != 0
torch.testing.assert_close(dropped[kept], clean[kept] / (1 - p))
sums = dropped.sum(-1)  # (B, H, L)
print(f"{sums.min():.2f} to {sums.max():.2f}")
assert not torch.allclose(sums, torch.ones_like(sums))
torch.testing.assert_close(clean.sum(-1), torch.ones_like(sums))
# --8<-- [end:dropout]
show("lowest_sum", f"{sums.min():.2f}")
show("highest_sum", f"{sums.max():.2f}")
assert sums.min() < 1 < sums.max()  # guard: sums_on_both_sides
# behind the softmax: the output is made of the weights that were returned
v = (y @ dropping.in_proj_weight[2 * E:].T + dropping.in_proj_bias[2 * E:]).unflatten(-1, (H, D)).transpose(1, 2)
of_dropped = dropping.out_proj((dropped @ v).transpose(1, 2).flatten(2))
torch.testing.assert_close(output, of_dropped)  # guard: the_output_is_of_those_weights
with torch.random.fork_rng():
    torch.manual_seed(0)
    with_bias = dropping(x, y, y)[0]
    torch.manual_seed(0)  # the same weights are dropped
    shift = with_bias - without(dropping, "v")[0]  # (B, L, E)
assert not torch.allclose(shift, shift[:1, :1].expand_as(shift))  # guard: no_constant_under_dropout

# --8<-- [start:weights]
output, average = mha(x, y, y)  # need_weights=True
also, per_head = mha(x, y, y, average_attn_weights=False)
alone, nothing = mha(x, y, y, need_weights=False)
torch.testing.assert_close(per_head.mean(1), average)
torch.testing.assert_close(alone, output)
assert torch.equal(also, output)
assert nothing is None
print(f"average {tuple(average.shape)}")
print(f"per_head {tuple(per_head.shape)}")
# --8<-- [end:weights]

# --8<-- [start:question]
# kdim is the width that goes in, d_k the width that comes out
state = build(kdim=9).state_dict()
for letter in "qkv":
    print(letter, tuple(state[f"{letter}_proj_weight"].shape))
own = PaperMultiheadAttention(E, H, kdim=9, d_k=3, d_v=11)
for name in ("W_q", "W_k", "W_v", "W_o"):
    print(name, tuple(getattr(own, name).shape))
try:
    own.to_torch()
except ValueError as error:
    print(error)
else:
    raise AssertionError("PyTorch took d_k = 3")
# --8<-- [end:question]
with torch.random.fork_rng(), torch.no_grad():
    narrow = PaperMultiheadAttention(E, H, d_k=3, d_v=4, batch_first=True).double()
    for parameter in narrow.parameters():
        nn.init.normal_(parameter, std=0.5)
    filled = PaperMultiheadAttention(E, H, batch_first=True).double()
    for parameter in filled.parameters():
        parameter.zero_()
    up = (D / 3) ** 0.5  # the scale is 1 / sqrt(D) now
    for name, part in narrow.named_parameters():
        filled.get_parameter(name)[tuple(map(slice, part.shape))] = part * (up if name in ("W_q", "b_q") else 1)
    # outputs and attention weights
    torch.testing.assert_close(narrow(x, y, y), filled.to_torch()(x, y, y))  # guard: narrower_heads_fit
assert [tuple(state[f"{letter}_proj_weight"].shape) for letter in "qkv"] == [(E, E), (E, 9), (E, E)]  # guard: e_come_out
