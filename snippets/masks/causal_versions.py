# --8<-- [start:gate]
import torch
from torch import nn

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
unmasked, plain = mha(x, x, x)
masked, _ = mha(x, x, x, attn_mask=future)
for mode in ("train", "eval", "no_grad"):
    mha.train(mode == "train")
    with torch.set_grad_enabled(mode != "no_grad"):
        try:
            output, weights = mha(x, x, x, is_causal=True)
        except RuntimeError as error:
            print(f"{mode:8}{type(error).__name__}")
            continue
    assert mode == "no_grad"
    torch.testing.assert_close(output, unmasked)
    assert not torch.allclose(output, masked)
    print(f"{mode:8}future {weights[:, future].sum() / (B * L):.2f}")
# --8<-- [end:alone]
show("future_share", f"{weights[:, future].sum() / (B * L):.2f}")

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
        try:
            layer(x, x, value, is_causal=True)
            silent[name] = True
        except RuntimeError:
            silent[name] = False
    print(f"{name:18}{'unmasked' if silent[name] else 'RuntimeError'}")
assert silent == {name: name == "as above" for name in variants}
# --8<-- [end:who_is_silent]

# --8<-- [start:encoder_layer]
encoder = nn.TransformerEncoderLayer(E, H, 20, batch_first=True)
encoder = encoder.double().eval()
with torch.no_grad():
    hinted = encoder(x, is_causal=True)
    torch.testing.assert_close(hinted, encoder(x))
    right = encoder(x, src_mask=future, is_causal=True)
assert not torch.allclose(hinted, right)
try:
    encoder(x, is_causal=True)  # the same layer, gradients on
except RuntimeError as error:
    print(str(error).split(". ")[0])
else:
    raise AssertionError("no error")
# --8<-- [end:encoder_layer]

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

# --8<-- [start:extra_columns]
extra = nn.MultiheadAttention(
    E, H, add_zero_attn=True, batch_first=True).double()
with_mask = extra(x, x, x, attn_mask=future)[0]
for hint in (False, True):
    output = extra(x, x, x, attn_mask=future, is_causal=hint,
                   need_weights=False)[0]
    print(f"hint {hint!s:6}{(output - with_mask).abs().max():.2f}")
    assert torch.allclose(output, with_mask) != hint
# the added column is hidden, as if it had never been there
without = nn.MultiheadAttention(E, H, batch_first=True).double()
without.load_state_dict(extra.state_dict())
torch.testing.assert_close(
    output, without(x, x, x, attn_mask=future)[0])
# --8<-- [end:extra_columns]
