# --8<-- [start:setup]
import torch
import torch.nn.functional as F
from capture import attention_weights, sdpa_weights
from torch import nn

torch.manual_seed(0)
B, H, L, S, D = 2, 4, 5, 7, 64
q, k, v = (torch.randn(B, H, n, D) for n in (L, S, S))
# one coordinate is large, and the same for all keys
q[..., 0] = k[..., 0] = 300
q, k, v = q.half(), k.half(), v.half()
# from the halves on, without rounding: (B, H, L, S)
products = q.double() @ k.double().mT
right = (products / D**0.5).softmax(-1)
# --8<-- [end:setup]


# --8<-- [start:overflow]
def off(weights):
    """The greatest error of a weight."""
    return (weights - right).abs().max().item()


largest = torch.finfo(torch.float16).max
late = q @ k.mT / D**0.5
first = (q / D**0.5) @ k.mT
print(f"float16 ends at    {largest:.0f}")
print(f"products up to     {products.max():.0f}")
print(f"scaled             {products.max() / D**0.5:.0f}")
print(f"infinite, late     {late.isinf().sum()} of {late.numel()}")
print(f"infinite, first    {first.isinf().sum()}")
assert products.max() / D**0.5 < largest < products.min()
assert late.softmax(-1).isnan().all()
assert first.softmax(-1).isfinite().all()
# --8<-- [end:overflow]

# --8<-- [start:coarse]
scaled = products / D**0.5
for dtype in (torch.float16, torch.bfloat16, torch.float32):
    scores = scaled.to(dtype)  # rounded once
    step = torch.finfo(dtype).eps * 2**13  # from 8192 on
    wrong = off(scores.double().softmax(-1))
    print(f"{str(dtype)[6:]:9}step {step:<8.2g}off by {wrong:.1g}")
brain = (q.bfloat16() / D**0.5) @ k.bfloat16().mT
single = (q.float() / D**0.5) @ k.float().mT
assert off(first.double().softmax(-1)) > 0.1
assert off(brain.double().softmax(-1)) > 0.1
assert off(single.double().softmax(-1)) < 0.005
# what capture.py recomputes
torch.testing.assert_close(sdpa_weights(q, k), single.softmax(-1))
# --8<-- [end:coarse]
assert brain.unique().numel() < first.unique().numel() < single.unique().numel()  # guard: fewer_scores_than_pairs
assert 8192 < products.min() / D**0.5 < products.max() / D**0.5 < 16384  # guard: between_powers_of_two
assert right.max() < 0.9  # guard: nothing_extreme_in_the_weights
panels = {"float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
drawn = torch.stack([scaled[0, 0].to(dtype).double().softmax(-1) for dtype in panels.values()])
assert (drawn[3] - drawn[0]).abs().max() < 0.005 < 0.1 < (drawn[1:3] - drawn[0]).abs().amax((1, 2)).min()  # guard: two_are_wrong
uniform = (drawn - 1 / S).abs().amax(-1) < 1e-9  # (4, L)
assert uniform.sum(-1).tolist() == [0, L - 1, L, 0]  # guard: uniform_or_one_key
assert drawn[1].max() > 0.99  # guard: all_to_one_key
figure("coarse", "attention", {"weights": drawn}, {
    "heads": list(panels), "queries": [str(i) for i in range(L)], "keys": [str(j) for j in range(S)],
})
show("largest", f"{largest:.0f}")
show("e_to_8", f"{torch.tensor(8.0).exp():.0f}")
show("step_16", f"{torch.finfo(torch.float16).eps * 2**13:.0f}")
show("step_b16", f"{torch.finfo(torch.bfloat16).eps * 2**13:.0f}")

# --8<-- [start:softmax]
keys = 512
x = torch.randn(B, H, L, D).half()
y = torch.randn(B, H, keys, D).half()
true = (x.double() @ y.double().mT / D**0.5).softmax(-1)


def relative(weights):
    return ((weights.double() - true) / true).abs().mean().item()


half = (x / D**0.5) @ y.mT  # scores rounded to float16
whole = (x.float() / D**0.5) @ y.float().mT
small = half.exp()
rows = {
    "exp and sum in float16": small / small.sum(-1, keepdim=True),
    "softmax in float16": half.softmax(-1),
    "softmax in float32": half.softmax(-1, dtype=torch.float32),
    "scores in float32": whole.softmax(-1),
}
for name, weights in rows.items():
    print(f"{name:23}{relative(weights):.0e}")
wrong, inside, after, best = map(relative, rows.values())
assert best < 0.01 * after
assert wrong > inside
# PyTorch's softmax of halves is a float32 softmax, rounded
again = half.softmax(-1, dtype=torch.float32).half()
assert torch.equal(half.softmax(-1), again)
# --8<-- [end:softmax]
assert 0.5 < after / inside < 1.5  # guard: little_is_bought_behind_the_product

# --8<-- [start:tiny]
apart = torch.tensor([0.0, -11.0, -17.0, -18.0])
for scores in (apart, apart.half()):
    print(*(f"{w:.1e}" for w in scores.softmax(-1).tolist()))
assert (apart.softmax(-1) > 0).all()
assert (apart.half().softmax(-1) == 0).tolist() == [0, 0, 0, 1]
# --8<-- [end:tiny]

# --8<-- [start:bfloat16]
close = torch.tensor([0.900, 0.901, 0.902, 0.903])
for dtype in (torch.float16, torch.bfloat16):
    print(f"{str(dtype)[6:]:9}{close.to(dtype).float().numpy()}")
assert close.bfloat16().unique().numel() == 2
assert close.half().unique().numel() == len(close)

weights = whole.softmax(-1)  # (B, H, L, keys)
rounded = weights.bfloat16()
error = (rounded / weights - 1).abs().max().item()
assert 2**-10 < error <= 2**-8
assert rounded[0, 0, 0].unique().numel() < 0.8 * keys
# --8<-- [end:bfloat16]
show("keys", keys)
show("rounding_different", weights.bfloat16()[0, 0, 0].unique().numel())

# --8<-- [start:fill]
scores = torch.zeros(3, dtype=torch.float16)
hidden = torch.tensor([False, True, True])
try:
    scores.masked_fill(hidden, -1e9)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("float16 took -1e9")
# added, it is taken without a word
added = torch.zeros(3).masked_fill(hidden, -1e9).half()
print(added.tolist())
assert (added[1:] == -torch.inf).all()
# --8<-- [end:fill]


# --8<-- [start:empty]
def hidden_row(dtype, large, scores=(3.0, 1.0, -2.0), masks=1):
    """The weights of a row that sees nothing, masks added."""
    row = torch.tensor(scores, dtype=dtype)
    for _ in range(masks):
        row = row + torch.full((3,), large).to(dtype)
    return row.softmax(-1)


cases = {
    "-1e9": lambda dtype: hidden_row(dtype, -1e9),
    "min": lambda dtype: hidden_row(dtype, torch.finfo(dtype).min),
    "min, score -20": lambda dtype: hidden_row(
        dtype, torch.finfo(dtype).min, (-20.0, -21.0, -22.0)
    ),
    "min, two masks": lambda dtype: hidden_row(
        dtype, torch.finfo(dtype).min, masks=2
    ),
}
dtypes = torch.float16, torch.bfloat16, torch.float32
for name, case in cases.items():
    kinds = ["NaN" if case(dtype).isnan().any() else "uniform"
             for dtype in dtypes]
    print(f"{name:15}", *(f"{kind:8}" for kind in kinds))
# --8<-- [end:empty]

# --8<-- [start:empty_claims]
third = torch.full((3,), 1 / 3)
for dtype in dtypes:
    least = torch.finfo(dtype).min
    even = hidden_row(dtype, least).float()
    torch.testing.assert_close(even, third, rtol=0, atol=2e-3)
    assert hidden_row(dtype, least, masks=2).isnan().all()
half = torch.float16
assert hidden_row(half, -1e9).isnan().all()
low = (-20.0, -21.0, -22.0)
assert hidden_row(half, torch.finfo(half).min, low).isnan().all()
for dtype in (torch.bfloat16, torch.float32):
    assert hidden_row(dtype, -1e9).isfinite().all()
# --8<-- [end:empty_claims]
for dtype in dtypes[1:]:
    far = hidden_row(dtype, torch.finfo(dtype).min, (-20.0, -21.0, -22.0))
    assert far.isfinite().all()  # guard: only_float16_is_so_narrow
step = torch.tensor(-15.9).half() + torch.finfo(torch.float16).min
edge = torch.tensor(-16.0).half() + torch.finfo(torch.float16).min
assert step.isfinite()  # guard: it_still_fits
assert edge.isinf()  # guard: from_minus_16_on
assert hidden_row(torch.float64, -1e9).argmax() == 0  # guard: in_float64_the_scores_survive

# --8<-- [start:module]
E = 24
mha = nn.MultiheadAttention(E, H, batch_first=True).half()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
z = torch.randn(B, L, E).half()
with attention_weights(mha) as maps:
    mha(z, z, z)
_, asked = mha(z, z, z, average_attn_weights=False)
print(f"asked    {asked.dtype}")
print(f"recorded {maps[''].dtype}")
# the projections have been rounded in either case
exact = nn.MultiheadAttention(E, H, batch_first=True).double()
exact.load_state_dict(mha.state_dict())
_, double = exact(*[z.double()] * 3, average_attn_weights=False)
for weights in (asked, maps[""]):
    assert 1e-5 < (weights - double).abs().max() < 0.02
# --8<-- [end:module]

# --8<-- [start:sdpa]
out = F.scaled_dot_product_attention(q, k, v)
error = (out.double() - right @ v.double()).abs().max().item()
print(out.dtype)
assert error < 0.02
# --8<-- [end:sdpa]

# --8<-- [start:answer]
centred = (k.float() - k.float().mean(-2, keepdim=True)).half()
scores = q @ centred.mT / D**0.5  # scaled late, all in float16
print(f"largest {scores.abs().max():.1f}")
assert scores.isfinite().all()
assert off(scores.double().softmax(-1)) < 0.05
# --8<-- [end:answer]
