# --8<-- [start:setup]
from itertools import product
from unittest import mock

import torch
from capture import attention_weights
from torch import nn

torch.set_default_dtype(torch.float64)
torch.set_printoptions(precision=4, sci_mode=False)
B, L, S, E, H = 2, 5, 7, 24, 4


def redrawn(model):
    torch.manual_seed(0)  # so that a model can be made twice
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


def encoder(H, layers=2):
    layer = nn.TransformerEncoderLayer(E, H, 2 * E, 0, batch_first=True)
    nest = H % 2 == 0  # PyTorch nests no odd number of heads
    return redrawn(nn.TransformerEncoder(layer, layers, None, nest))


torch.manual_seed(1)
x = torch.randn(B, L, E)  # decoder input
memory = torch.randn(B, S, E)  # encoder output
# --8<-- [end:setup]

# --8<-- [start:transformer]
model = nn.Transformer(E, H, 2, 2, 2 * E, 0, batch_first=True)
model = redrawn(model)
causal = torch.ones(L, L, dtype=torch.bool).triu(1)
source = torch.randn(B, S, E)

with attention_weights(model) as maps:
    output = model(source, x, tgt_mask=causal)
for name, weights in maps.items():
    print(f"{name:31} {tuple(weights.shape)}")
assert torch.equal(output, model(source, x, tgt_mask=causal))
# --8<-- [end:transformer]
names = dict(model.named_modules())
assert all(isinstance(names[name], nn.MultiheadAttention) for name in maps)  # guard: keys_are_names_of_modules
assert len(maps) == sum(isinstance(module, nn.MultiheadAttention) for module in names.values())  # guard: none_is_left_out

# --8<-- [start:cross]
self_maps = maps["decoder.layers.1.self_attn"]
cross_maps = maps["decoder.layers.1.multihead_attn"]
print(f"self  {tuple(self_maps.shape)}")
print(f"cross {tuple(cross_maps.shape)}")

# no decoder token sees a later one, each sees all of the source
future = self_maps[..., causal]
assert torch.equal(future, torch.zeros_like(future))
assert cross_maps.min() > 0
torch.testing.assert_close(cross_maps.sum(-1), torch.ones(B, H, L))
# --8<-- [end:cross]

figure("across", "attention", {"A": cross_maps[0, 0]})
figure("within", "attention", {"A": self_maps[0, 0]})

# --8<-- [start:decoder]
layer = nn.TransformerDecoderLayer(E, H, 2 * E, 0, batch_first=True)
decoder = redrawn(nn.TransformerDecoder(layer, num_layers=2))

with attention_weights(decoder) as maps:
    decoder(x, memory, tgt_mask=causal)
A = maps["layers.0.multihead_attn"]  # (B, H, L, S)

# the same, computed from what enters the layer
first = decoder.layers[0]
mixed, _ = first.self_attn(x, x, x, attn_mask=causal)
query = first.norm1(x + mixed)
_, asked = first.multihead_attn(
    query, memory, memory, average_attn_weights=False
)
torch.testing.assert_close(A, asked)
# --8<-- [end:decoder]


# --8<-- [start:hook]
def hook(model, run):
    """A forward hook that reads what self_attn returns."""
    seen = []
    for layer in model.layers:
        layer.self_attn.register_forward_hook(
            lambda module, args, result: seen.append(result[1])
        )
    run()
    return seen


# --8<-- [end:hook]
# --8<-- [start:patch]
def patch(model, run):
    """self_attn.forward replaced by one that asks for weights."""
    seen = []
    for layer in model.layers:
        forward = layer.self_attn.forward

        def ask(*args, forward=forward, **kwargs):
            kwargs.update(need_weights=True, average_attn_weights=False)
            result = forward(*args, **kwargs)
            seen.append(result[1])
            return result

        layer.self_attn.forward = ask
    run()
    return seen


# --8<-- [end:patch]
# --8<-- [start:pre_hook]
def pre_hook(model, run):
    """A hook before that asks, and a hook after that reads."""

    def ask(module, args, kwargs):
        kwargs.update(need_weights=True, average_attn_weights=False)
        return args, kwargs

    for layer in model.layers:
        layer.self_attn.register_forward_pre_hook(ask, with_kwargs=True)
    return hook(model, run)


def capture(model, run):
    with attention_weights(model) as maps:
        run()
    return list(maps.values())


# --8<-- [end:pre_hook]
# --8<-- [start:verdict]
def verdict(way, mode, H, padding):
    train, grad, frozen = mode
    model = encoder(H).train(train).requires_grad_(not frozen)
    with torch.set_grad_enabled(grad):
        seen = way(
            model, lambda: model(x, src_key_padding_mask=padding)
        )
    if not seen:
        return "no call"
    if seen[0] is None:
        return "None"
    right = encoder(H).layers[0].self_attn
    _, A = right(x, x, x, padding, average_attn_weights=False)
    if seen[0].shape != A.shape:
        return f"{seen[0].shape[2]} x {seen[0].shape[3]}"
    rows = slice(None) if padding is None else slice(0, 3)
    same = torch.allclose(seen[0][:, :, rows], A[:, :, rows])
    return "all" if same else "wrong"


# --8<-- [end:verdict]

# --8<-- [start:matrix]
if not torch.__version__.startswith(("2.13.", "2.14.")):
    told = f"this is {torch.__version__}"
    raise RuntimeError(f"holds for PyTorch 2.13 and 2.14, {told}")
padding = torch.arange(L).expand(B, L) >= 3  # two of five
modes = {  # train, grad, frozen
    "train": (True, True, False),
    "eval+grad": (False, True, False),
    "eval+frozen": (False, True, True),
    "eval+no_grad": (False, False, False),
}
table = {}
names = "hook     patch    pre      capture"
print(f"{'':13}{'heads':7}{'padding':9}{names}")
for mode, heads, padded in product(modes, (3, 4), (False, True)):
    row = [
        verdict(way, modes[mode], heads, padding if padded else None)
        for way in (hook, patch, pre_hook, capture)
    ]
    table[mode, heads, padded] = row
    cells = "".join(f"{cell:9}" for cell in row)
    yes = "yes" if padded else "no"
    print(f"{mode:13}{heads:<7}{yes:9}{cells}".rstrip())
# --8<-- [end:matrix]

# --8<-- [start:columns]
assert {row[0] for row in table.values()} == {"None"}
assert {row[3] for row in table.values()} == {"all"}
missed = [cell for cell, row in table.items() if row[1] != "all"]
shrunk = [cell for cell, row in table.items() if row[2] != "all"]
print("missed", *missed)
print("shrunk", *shrunk)
# no gradient is needed
fast = ("eval+frozen", "eval+no_grad")
assert missed == [*product(fast, [4], [False, True])]
assert shrunk == [*product(fast, [4], [True])]
# --8<-- [end:columns]
with_gradients = [mode for mode, (_, grad, _) in modes.items() if grad]
assert with_gradients == ["train", "eval+grad", "eval+frozen"]  # guard: frozen_with_gradients_on
assert {table[cell][1] for cell in missed} == {"no call"}  # guard: patch_is_not_called
assert {table[cell][2] for cell in shrunk} == {"3 x 3"}  # guard: maps_shrink_to_the_longest

# --8<-- [start:digits]
model = encoder(H)
usual = model(x)
with attention_weights(model):
    assert torch.equal(model(x), usual)

outputs = []
pre_hook(model, lambda: outputs.append(model(x)))
asked = outputs[0]
# near, and not the same
torch.testing.assert_close(asked, usual)
assert not torch.equal(asked, usual)
# --8<-- [end:digits]
show("digits", f"{(asked - usual).abs().max():.0e}")

# --8<-- [start:padding]
model = encoder(H)
grad = model(x, src_key_padding_mask=padding)
with torch.no_grad(), attention_weights(model) as maps:
    no_grad = model(x, src_key_padding_mask=padding)
print(f"grad    {grad[0, -1, :3].detach()}")
print(f"no_grad {no_grad[0, -1, :3]}")

# real positions agree; at padding one path computes, one fills in 0
torch.testing.assert_close(no_grad[~padding], grad[~padding])
assert not torch.allclose(no_grad[padding], grad[padding], atol=0.1)
print(maps["layers.0.self_attn"][0, 0])
# --8<-- [end:padding]


def packed(padding=padding, mask=None, nhead=H, nest=True, eps=1e-5, **options):
    """Whether the layers of such an encoder are given a nested tensor."""
    made = {"batch_first": True, **options}
    layer = nn.TransformerEncoderLayer(E, nhead, 2 * E, 0, **made)
    layer.norm1.eps = eps
    with mock.patch("warnings.warn"):  # why an encoder packs nothing
        model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=nest).eval()
    inputs, (first,) = x if made["batch_first"] else x.transpose(0, 1), model.layers
    with torch.no_grad(), mock.patch.object(first, "forward", wraps=first.forward) as forward:
        model(inputs, mask=mask, src_key_padding_mask=padding)
    return forward.call_args.args[0].is_nested


unlike = [
    {"batch_first": False}, {"norm_first": True}, {"bias": False}, {"nhead": 3}, {"activation": nn.functional.silu},
    {"nest": False}, {"eps": 1e-6},
    {"padding": padding.flip(1)}, {"mask": torch.zeros(padding.shape[1], padding.shape[1], dtype=torch.bool)},
]  # fmt: skip
with torch.random.fork_rng():
    assert all(packed(activation=name) for name in ("relu", "gelu"))  # guard: packed_if_all_hold
    assert not any(packed(**option) for option in unlike)  # guard: not_packed_where_one_does_not


def under_autocast(nest):
    layer = nn.TransformerEncoderLayer(E, H, 2 * E, 0, batch_first=True, dtype=torch.float32)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=nest).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return model(x.float(), src_key_padding_mask=padding)


with torch.random.fork_rng():
    assert under_autocast(False).isfinite().all()  # guard: unpacked_runs_under_autocast
    try:
        under_autocast(True)  # guard: packed_raises_under_autocast
    except RuntimeError as error:
        assert "expected scalar type" in str(error)
    else:
        raise AssertionError("a packed batch runs under autocast")
assert no_grad[padding].count_nonzero() == 0 < grad[padding].abs().min()  # guard: zeros_at_padding
sums = maps["layers.0.self_attn"].sum(-1)  # (B, H, L): 1 at a real query
torch.testing.assert_close(sums, (~padding)[:, None].expand(B, H, L).to(sums.dtype))  # guard: rows_of_zeros
assert maps["layers.0.self_attn"].shape == (B, H, L, L)  # guard: size_is_kept
with attention_weights(model) as kept:
    model(x, src_key_padding_mask=padding)
assert kept["layers.0.self_attn"].transpose(1, 2)[padding].sum(-1).min() > 0.9  # guard: padded_rows_are_filled
with torch.no_grad():
    stock = model(x, src_key_padding_mask=padding)  # two positions are padding in every sample
assert stock.shape == x.shape  # guard: padded_size
assert torch.equal(stock[padding], torch.zeros_like(stock[padding]))  # guard: padded_zeros

# --8<-- [start:question]
def calls(model, run, name):
    """How often a model calls one of torch's fused functions."""
    fused = getattr(torch, name)
    with mock.patch.object(torch, name, wraps=fused) as f:
        run()
    return f.call_count


def counts(model, run):
    """(replaced forwards, fused layers, fused attentions)"""
    with torch.no_grad():
        layers = calls(model, run, "_transformer_encoder_layer_fwd")
        attentions = calls(model, run, "_native_multi_head_attention")
        return len(patch(model, run)), layers, attentions


layer = nn.TransformerDecoderLayer(E, H, 2 * E, 0, batch_first=True)
decoder = redrawn(nn.TransformerDecoder(layer, num_layers=2))
model = encoder(H)
in_encoder = counts(model, lambda: model(x))
in_decoder = counts(decoder, lambda: decoder(x, memory))
print(f"encoder {in_encoder}\ndecoder {in_decoder}")
assert in_encoder == (0, 2, 0)
assert in_decoder == (2, 0, 2)
# --8<-- [end:question]
