# --8<-- [start:gate]
import torch
import torch.nn.functional as F
from kernels import fused_calls
from torch import nn

if not torch.__version__.startswith(("2.13.", "2.14.")):
    raise RuntimeError(
        "this script holds for PyTorch 2.13 and 2.14, where a fully "
        "masked row is NaN on some paths; "
        f"this is {torch.__version__}")

torch.manual_seed(9)
B, L, E, H = 2, 4, 24, 4
mha = nn.MultiheadAttention(E, H, batch_first=True).double()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
x = torch.randn(B, L, E, dtype=torch.float64)
mask = torch.eye(L, dtype=torch.bool)
mask[3] = True  # query 3 may see nothing
# --8<-- [end:gate]

# --8<-- [start:paths]
nan, fused = {}, {}
print(f"{'':8}need_weights=True  need_weights=False")
for mode in ("train", "eval", "no_grad", "frozen"):
    mha.train(mode == "train")
    mha.requires_grad_(mode != "frozen")  # frozen: gradients are on
    with torch.set_grad_enabled(mode != "no_grad"):
        fused[mode] = fused_calls(lambda: mha(x, x, x)).attention
        for need in (True, False):
            output, _ = mha(x, x, x, attn_mask=mask, need_weights=need)
            row = output[:, 3]
            nan[mode, need] = bool(row.isnan().all())
            if not nan[mode, need]:  # only the bias came through
                bias = mha.out_proj.bias.expand(B, E)
                torch.testing.assert_close(row, bias)
    words = ["NaN" if nan[mode, need] else "out_proj.bias"
             for need in (True, False)]
    print(f"{mode:8}{words[0]:19}{words[1]}")
# NaN where weights are asked for, and on the fast path
for (mode, need), is_nan in nan.items():
    assert is_nan == (need or fused[mode] == 1)
# --8<-- [end:paths]
assert fused == {"train": 0, "eval": 0, "no_grad": 1, "frozen": 1}  # guard: which_modes_are_fused
mha.requires_grad_()

# --8<-- [start:odd]
odd = nn.MultiheadAttention(E, 3, batch_first=True).double().eval()
with torch.no_grad():
    output, _ = odd(x, x, x, attn_mask=mask, need_weights=False)
    torch.backends.mha.set_fastpath_enabled(False)
    slow, _ = mha.eval()(x, x, x, attn_mask=mask, need_weights=False)
    torch.backends.mha.set_fastpath_enabled(True)
for row, layer in ((output[:, 3], odd), (slow[:, 3], mha)):
    torch.testing.assert_close(row, layer.out_proj.bias.expand(B, E))
    print(f"{layer.num_heads} heads: finite {row.isfinite().all()}")
# --8<-- [end:odd]
with torch.no_grad():
    assert odd(x, x, x, attn_mask=mask)[0][:, 3].isnan().all()  # guard: not_finite_with_the_weights
    assert fused_calls(lambda: odd(x, x, x)).attention == 0  # guard: odd_heads_are_not_fused
    assert fused_calls(lambda: mha(x, x, x)).attention == 1  # guard: fused_again_afterwards

# --8<-- [start:sdpa]
keep = ~mask
row = F.scaled_dot_product_attention(x, x, x, keep)[:, 3]
assert torch.equal(row, torch.zeros(B, E, dtype=torch.float64))
print(f"sdpa: {row.abs().max().item()}")
# --8<-- [end:sdpa]
