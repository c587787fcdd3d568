# --8<-- [start:gate]
import torch
import torch.nn.functional as F
from kernels import fused_calls
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

if not torch.__version__.startswith("2.13."):
    raise RuntimeError(
        "this script holds for PyTorch 2.13, where is_causal without a "
        f"mask raises or is ignored; this is {torch.__version__}")

torch.manual_seed(6)
B, L, E, H = 2, 5, 24, 4
mha = nn.MultiheadAttention(E, H, batch_first=True).double()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
x = torch.randn(B, L, E, dtype=torch.float64)
future = torch.ones(L, L, dtype=torch.bool).triu(1)
# --8<-- [end:gate]

# --8<-- [start:alone]
unmasked, _ = mha(x, x, x)
masked, _ = mha(x, x, x, attn_mask=future)
reaches = {}
for mode in ("train", "eval", "no_grad", "frozen"):
    mha.train(mode == "train")
    mha.requires_grad_(mode != "frozen")  # frozen: gradients are on
    with torch.set_grad_enabled(mode != "no_grad"):
        reaches[mode] = fused_calls(lambda: mha(x, x, x)).attention
        print(f"{mode:8}fused {reaches[mode]}", end="  ")
        try:
            output, weights = mha(x, x, x, is_causal=True)
        except RuntimeError as error:
            print(type(error).__name__)
            continue
    assert mode in ("no_grad", "frozen")
    torch.testing.assert_close(output, unmasked)
    assert not torch.allclose(output, masked)
    print(f"future {weights[:, future].sum() / (B * L):.2f}")
# --8<-- [end:alone]
assert reaches == {"train": 0, "eval": 0, "no_grad": 1, "frozen": 1}  # guard: silent_on_the_fast_path
show("future_share", f"{weights[:, future].sum() / (B * L):.2f}")
by_row = weights[:, future].sum() / weights.sum()
torch.testing.assert_close(by_row, (weights * future).sum((1, 2)).mean() / L)  # guard: share_of_the_future
# frozen, but the input asks for gradients; or one parameter does
asks = x.clone().requires_grad_()
assert fused_calls(lambda: mha(asks, asks, asks)).attention == 0  # guard: an_input_that_requires_grad
mha.out_proj.bias.requires_grad_()
assert fused_calls(lambda: mha(x, x, x)).attention == 0  # guard: one_parameter_that_requires_grad
mha.requires_grad_()

# --8<-- [start:who_is_silent]
variants = {
    "as above": {}, "3 heads": {"num_heads": 3},
    "bias=False": {"bias": False}, "vdim=25": {"vdim": E + 1},
    "batch_first=False": {"batch_first": False},
    "add_zero_attn": {"add_zero_attn": True},
}
silent = {}
for name, change in variants.items():
    options = {"num_heads": H, "batch_first": True} | change
    layer = nn.MultiheadAttention(E, **options).double().eval()
    value = x if layer.vdim == E else torch.cat([x, x[..., :1]], -1)
    with torch.no_grad():
        fused = fused_calls(lambda m=layer, v=value: m(x, x, v))
        try:
            layer(x, x, value, is_causal=True)
            silent[name] = True
        except RuntimeError:
            silent[name] = False
    print(f"{name:18}{'unmasked' if silent[name] else 'RuntimeError'}")
    assert silent[name] == bool(fused.attention)  # the fast path
assert silent == {name: name == "as above" for name in variants}
# --8<-- [end:who_is_silent]

# --8<-- [start:encoder_layer]
encoder = nn.TransformerEncoderLayer(E, H, 20, batch_first=True)
encoder = encoder.double().eval()
with torch.no_grad():
    hinted = encoder(x, is_causal=True)
    torch.testing.assert_close(hinted, encoder(x))
    right = encoder(x, src_mask=future)
assert not torch.allclose(hinted, right)
try:
    encoder(x, is_causal=True)  # the same layer, gradients on
except RuntimeError as error:
    print(str(error).split(". ")[0])
else:
    raise AssertionError("no error")
encoder.requires_grad_(False)  # and frozen
torch.testing.assert_close(encoder(x, is_causal=True), hinted)
# --8<-- [end:encoder_layer]
frozen = fused_calls(lambda: encoder(x, is_causal=True))
assert frozen.encoder_layer == 1  # guard: the_layers_own_fast_path

# --8<-- [start:false_hint]
# a mask that is not causal, and a hint that says it is
window = torch.ones(L, L, dtype=torch.bool).triu(2)
by_mask, _ = mha.train()(x, x, x, attn_mask=window)
for need_weights in (True, False):
    for mode in ("train", "no_grad"):
        mha.train(mode == "train")
        with torch.set_grad_enabled(mode == "train"):
            output, _ = mha(x, x, x, attn_mask=window, is_causal=True,
                            need_weights=need_weights)
        obeyed = "hint" if torch.allclose(output, masked) else "mask"
        print(f"need_weights={need_weights!s:6}{mode:8}{obeyed}")
        slow = mode == "train" and not need_weights
        torch.testing.assert_close(output, masked if slow else by_mask)
# --8<-- [end:false_hint]
assert not torch.allclose(by_mask, masked)  # guard: mask_and_hint_differ
assert not torch.allclose(by_mask, unmasked)  # guard: the_mask_hides_something

# --8<-- [start:lower_right]
# 3 queries, 5 keys: True hides, aligned to the lower right
corner = torch.ones(3, L, dtype=torch.bool).triu(L - 3 + 1)
upper = torch.ones(3, L, dtype=torch.bool).triu(1)
given, hint = (mha(x[:, -3:], x, x, attn_mask=m)[0]
               for m in (corner, upper))
for need_weights in (True, False):
    output, _ = mha(x[:, -3:], x, x, attn_mask=corner, is_causal=True,
                    need_weights=need_weights)
    torch.testing.assert_close(output, given if need_weights else hint)
print(f"{(output - given).abs().max():.2f}")
# --8<-- [end:lower_right]
assert not torch.allclose(given, hint)  # guard: another_corner_another_output

# --8<-- [start:extra_columns]
for option in ("add_bias_kv", "add_zero_attn"):
    extra = nn.MultiheadAttention(
        E, H, batch_first=True, **{option: True}).double()
    with_mask = extra(x, x, x, attn_mask=future)[0]
    for hint in (False, True):
        output = extra(x, x, x, attn_mask=future, is_causal=hint,
                       need_weights=False)[0]
        error = (output - with_mask).abs().max()
        print(f"{option:14}hint {hint!s:6}{error:.2f}")
        assert torch.allclose(output, with_mask) != hint
    # the added column is hidden, as if it had never been there
    without = nn.MultiheadAttention(E, H, batch_first=True).double()
    without.load_state_dict(extra.state_dict(), strict=False)
    torch.testing.assert_close(
        output, without(x, x, x, attn_mask=future)[0])
# --8<-- [end:extra_columns]

# --8<-- [start:both_given]
# F.scaled_dot_product_attention, a mask and is_causal at once
qkv = torch.randn(3, B, H, L, E // H, dtype=torch.float64).unbind()
keep = torch.ones(L, L, dtype=torch.bool).triu(-1)  # True keeps
sdpa = F.scaled_dot_product_attention
with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
    output = sdpa(*qkv, keep, is_causal=True)
torch.testing.assert_close(output, sdpa(*qkv, keep.tril()))
assert not torch.allclose(output, sdpa(*qkv, keep))
with sdpa_kernel(SDPBackend.MATH):
    try:
        sdpa(*qkv, keep, is_causal=True)
    except RuntimeError as error:
        print(str(error).split(": ")[1])
    else:
        raise AssertionError("both were taken")
# --8<-- [end:both_given]
assert keep.tril().any(-1).all()  # guard: every_row_sees_a_key
assert not torch.allclose(output, sdpa(*qkv, is_causal=True))  # guard: not_the_causal_mask_alone
torch.testing.assert_close(sdpa(*qkv, keep, is_causal=True), output)  # guard: fused_unless_told_otherwise
