# --8<-- [start:gate]
import torch
from torch import nn

if not torch.__version__.startswith("2.13."):
    raise RuntimeError(
        "this script holds for PyTorch 2.13, whose fast path takes "
        f"float masks for boolean ones; this is {torch.__version__}")

torch.manual_seed(4)
B, L, E, H = 2, 5, 24, 4
layer = nn.TransformerEncoderLayer(E, H, 20, batch_first=True)
layer = layer.double().eval()
x = torch.randn(B, L, E, dtype=torch.float64)
# --8<-- [end:gate]

# --8<-- [start:fast_path]
# the farther away, the less: 0, -1, -2, ... to be added to scores
places = torch.arange(L).double()
bias = -(places[:, None] - places).abs()  # (L, L)
added = layer(x, src_mask=bias)  # gradients are recorded
with torch.no_grad():
    fast = layer(x, src_mask=bias)
    hidden = layer(x, src_mask=bias != 0)  # all but the diagonal
torch.testing.assert_close(fast, hidden)
assert not torch.allclose(fast, added, atol=0.1)
print(f"{(fast - added).abs().max():.2f}")
# switched off, it adds here as well
torch.backends.mha.set_fastpath_enabled(False)
with torch.no_grad():
    torch.testing.assert_close(layer(x, src_mask=bias), added)
torch.backends.mha.set_fastpath_enabled(True)
# --8<-- [end:fast_path]
from kernels import fused_calls

padding = torch.zeros(B, L, dtype=torch.bool)
padding[1, 3:] = True
ones = padding.double()
infinite = torch.zeros(B, L).double().masked_fill(padding, -torch.inf)
with torch.no_grad():
    by_ones, by_booleans, by_infinity = (layer(x, src_key_padding_mask=given) for given in (ones, padding, infinite))
    alone, _ = layer.self_attn(x, x, x, attn_mask=bias, need_weights=False)
    kernels = [fused_calls(lambda m=m: layer.self_attn(x, x, x, attn_mask=m, need_weights=False)) for m in (bias, bias != 0)]
    once = layer(x, src_mask=bias, src_key_padding_mask=infinite)
    twice = layer(once, src_mask=bias, src_key_padding_mask=infinite)
assert torch.equal(once.isnan().all(-1), padding)  # guard: padded_places_are_nan
assert torch.equal(twice.isnan().all(-1), torch.tensor([[False] * L, [True] * L]))  # guard: then_the_whole_sample
torch.testing.assert_close(by_ones, by_booleans)  # guard: of_padding_too
assert not torch.allclose(by_ones, layer(x, src_key_padding_mask=ones), atol=0.01)  # guard: padding_is_not_added
torch.testing.assert_close(by_infinity, layer(x, src_key_padding_mask=infinite))  # guard: minus_infinity_is_read_alike
itself, _ = layer.self_attn(x, x, x, attn_mask=bias, need_weights=False)
torch.testing.assert_close(alone, itself)  # guard: the_module_adds
assert [called.attention for called in kernels] == [0, 1]  # guard: on_its_slow_path
