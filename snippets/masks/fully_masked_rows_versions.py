# --8<-- [start:gate]
import torch
import torch.nn.functional as F
from torch import nn

if not torch.__version__.startswith("2.13."):
    raise RuntimeError(
        "this script holds for PyTorch 2.13, where a fully masked row "
        f"is NaN on some paths; this is {torch.__version__}")

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
nan = {}
print(f"{'':8}need_weights=True  need_weights=False")
for mode in ("train", "eval", "no_grad"):
    for need in (True, False):
        mha.train(mode == "train")
        with torch.set_grad_enabled(mode != "no_grad"):
            output, _ = mha(x, x, x, attn_mask=mask, need_weights=need)
        row = output[:, 3]
        nan[mode, need] = bool(row.isnan().all())
        if not nan[mode, need]:  # nothing came through but the bias
            bias = mha.out_proj.bias.expand(B, E)
            torch.testing.assert_close(row, bias)
    words = ["NaN" if nan[mode, need] else "out_proj.bias"
             for need in (True, False)]
    print(f"{mode:8}{words[0]:19}{words[1]}")
assert [need for (mode, need), is_nan in nan.items() if is_nan] == [
    True, True, True, False]
assert nan["no_grad", False] != nan["eval", False]
# --8<-- [end:paths]

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

# --8<-- [start:sdpa]
keep = ~mask
row = F.scaled_dot_product_attention(x, x, x, keep)[:, 3]
assert torch.equal(row, torch.zeros(B, E, dtype=torch.float64))
print(f"sdpa: {row.abs().max().item()}")
# --8<-- [end:sdpa]
