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
W_q, W_k, _ = mha.in_proj_weight.chunk(3)
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
for name, weights in (("mha ", mha_weights(mask)),
                      ("sdpa", sdpa_weights(mask))):
    on_true = weights[..., mask].sum() / weights.sum()
    print(f"{name}: True {on_true:.2f}, False {1 - on_true:.2f}")
# --8<-- [end:opposite]
same_mask = torch.stack([mha_weights(mask)[0, 0], sdpa_weights(mask)[0, 0]])
figure("same_mask", "attention", {"weights": same_mask}, labels={
    "heads": ["nn.MultiheadAttention", "F.scaled_dot_product_attention"],
    "queries": [str(i) for i in range(L)], "keys": [str(j) for j in range(S)],
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
ways = {
    "nn.MultiheadAttention": lambda x: mha(x, x, x, attn_mask=m)[0],
    "TransformerEncoderLayer": lambda x: encoder(x, src_mask=m),
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
    keeps = name.startswith(("F.", "flex"))
    assert torch.equal(seen[other], (m if keeps else ~m)[other])
# --8<-- [end:true_means]

# --8<-- [start:floats]
ones = mask.double()  # 0 and 1
infinite = torch.zeros(L, S).double().masked_fill(mask, -math.inf)
# the same in both: a float is added to the score
for added in (ones, infinite):
    torch.testing.assert_close(sdpa_weights(added), mha_weights(added))
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
accepted = {}
shapes = {
    "(L, S)": (L, L), "(B*H, L, S)": (B * H, L, L),
    "(B, L, S)": (B, L, L), "(B, H, L, S)": (B, H, L, L),
    "(B, 1, 1, S)": (B, 1, 1, L), "(1, S)": (1, L),
}
# --8<-- [end:shapes]

# --8<-- [start:tried]
print(f"{'':13}" + "".join(f"{name:>16}" for name in takers))
for letters, shape in shapes.items():
    results = []
    for take in takers.values():
        try:
            take(torch.zeros(shape, dtype=torch.float64))
            results.append("ok")
        except (AssertionError, RuntimeError) as error:
            results.append(type(error).__name__)
    accepted[letters] = [result == "ok" for result in results]
    print(f"{letters:13}" + "".join(f"{r:>16}" for r in results))
assert accepted["(L, S)"] == [True, True, True]
assert accepted["(B*H, L, S)"] == [True, True, False]
assert accepted["(B, H, L, S)"] == [False, False, True]
assert accepted["(B, L, S)"] == [False, False, False]
# --8<-- [end:tried]

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
leak = ((wrong * hidden).sum() / wrong.sum()).item()
show("leak", f"{leak:.2f}")

# --8<-- [start:padding]
# (B, S): sample 0 is 7 long, sample 1 is 4
padding = torch.tensor([[False] * S, [False] * 4 + [True] * 3])
_, padded = mha(query, memory, memory, key_padding_mask=padding,
                average_attn_weights=False)
# (B * H, L, S)
columns = padding[:, None, None].expand(B, H, L, S).flatten(0, 1)
torch.testing.assert_close(padded, mha_weights(columns))
assert padded[1, ..., 4:].sum() == padded.new_zeros(())
print(f"padding {tuple(padding.shape)} columns {tuple(columns.shape)}")
# --8<-- [end:padding]

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
