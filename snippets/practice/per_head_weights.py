from exercises import Like, exercise, outcomes

# --8<-- [start:setup]
import warnings
import torch
from capture import attention_weights, sdpa_weights
from exercises import check
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore", "The PyTorch API of nested")
torch.set_printoptions(precision=3, sci_mode=False)
torch.manual_seed(12)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
x = torch.randn(B, L, E, dtype=torch.float64) / 2
options = {"dropout": 0.3, "batch_first": True}
layer = nn.TransformerEncoderLayer(E, H, 36, **options)
model = nn.TransformerEncoder(layer, 2).double().eval()
for name, parameter in model.named_parameters():
    if "self_attn" in name:
        nn.init.normal_(parameter, std=0.5)
mha = model.layers[0].self_attn
print("x", tuple(x.shape))
# --8<-- [end:setup]
with torch.random.fork_rng():
    fresh = nn.TransformerEncoderLayer(E, H, 36, **options).double().eval().self_attn
_, initial = fresh(x, x, x, average_attn_weights=False)
_, drawn = mha(x, x, x, average_attn_weights=False)
assert 3 * initial.std() < drawn.std()  # guard: closer_to_equal


# --8<-- [start:refused]
def refused(answer, right):
    """Fail unless the answer has the right shape and wrong numbers."""
    assert answer.shape == right.shape
    try:
        torch.testing.assert_close(answer, right)
    except AssertionError as error:
        print(str(error).splitlines()[2])
    else:
        raise AssertionError("this answer is right")
# --8<-- [end:refused]


# --8<-- [start:every_head_try]
weights = None  # (B, H, L, L)
check("every-head", weights)
# --8<-- [end:every_head_try]

# --8<-- [start:every_head]
out, weights = mha(x, x, x, average_attn_weights=False)
_, mean = mha(x, x, x)
print("weights", tuple(weights.shape), "mean", tuple(mean.shape))
torch.testing.assert_close(weights.mean(dim=1), mean)
# each row is a distribution over the keys
rows = weights.sum(dim=-1)
torch.testing.assert_close(rows, torch.ones_like(rows))
# --8<-- [end:every_head]

# --8<-- [start:every_head_wrong]
_, nothing = mha(
    x, x, x, need_weights=False, average_attn_weights=False
)
assert nothing is None
print(nothing)
# not the heads again, but the rows of the mean
refused(mean[:, None].expand(B, H, L, L), weights)
# --8<-- [end:every_head_wrong]
assert not any(torch.allclose(mean, weights[:, i], atol=0.1) for i in range(H))  # guard: none_of_the_heads
exercise(
    "every-head",
    weights,
    mean=mean,
    mean_for_each=mean[:, None].expand(B, H, L, L),
    transposed=weights.mT,
)


# --8<-- [start:encoder_try]
both = None  # two of (B, H, L, L), layer 0 first
check("encoder", both)
# --8<-- [end:encoder_try]

# --8<-- [start:encoder]
with attention_weights(model) as maps:
    recorded = model(x)
for name, seen in maps.items():
    print(name, tuple(seen.shape))
# the model puts out what it put out before
assert torch.equal(recorded, model(x))
# x goes into layer 0 as it is
torch.testing.assert_close(maps["layers.0.self_attn"], weights)
# --8<-- [end:encoder]

# --8<-- [start:encoder_wrong]
results = []
hooks = [
    layer.self_attn.register_forward_hook(
        lambda module, args, result: results.append(result[1])
    )
    for layer in model.layers
]
model(x)
for hook in hooks:
    hook.remove()
assert len(results) == len(maps)
assert all(result is None for result in results)
print(results)
# --8<-- [end:encoder_wrong]
seen = list(maps.values())
_, of_x = model.layers[1].self_attn(x, x, x, average_attn_weights=False)
exercise(
    "encoder",
    seen,
    nothing=[None, None],
    mean=[one.mean(1) for one in seen],
    first_twice=[seen[0], seen[0]],
    of_x=[seen[0], of_x],
    last_first=seen[::-1],
)


# --8<-- [start:hooks_try]
by_two_hooks = None  # a function: model, x -> a list of (B, H, L, L)
check("hooks", by_two_hooks)
# --8<-- [end:hooks_try]


# --8<-- [start:hooks]
def ask(module, args, kwargs):
    """Every head, please."""
    wanted = {"need_weights": True, "average_attn_weights": False}
    return args, {**kwargs, **wanted}


def by_two_hooks(model, x):
    """The weights of each layer, (B, H, L, L), in their order."""
    seen, hooks = [], []
    for layer in model.layers:
        attention = layer.self_attn
        hooks += [
            attention.register_forward_pre_hook(ask, with_kwargs=True),
            attention.register_forward_hook(
                lambda module, args, result: seen.append(result[1])
            ),
        ]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen
# --8<-- [end:hooks]


# --8<-- [start:hooks_agree]
ours = by_two_hooks(model, x)
for seen, (name, right) in zip(ours, maps.items(), strict=True):
    print(name, tuple(seen.shape))
    torch.testing.assert_close(seen, right)
# they are gone: a second call adds nothing
model(x)
assert len(ours) == len(model.layers)
# --8<-- [end:hooks_agree]

# --8<-- [start:patched]
calls = []
original = mha.forward


def forward(*args, **kwargs):
    kwargs = ask(mha, args, kwargs)[1]
    result = original(*args, **kwargs)
    calls.append(result[1])
    return result


mha.forward = forward
model(x)
torch.testing.assert_close(calls[0], weights)
print("with gradients", len(calls))
calls.clear()
with torch.no_grad():
    model(x)
mha.forward = original
print("without", len(calls))
assert calls == []
# --8<-- [end:patched]

import copy


def is_called(model):
    """Whether the forward of the first layer's attention runs in a call of a model, gradients recorded or not."""
    attention, seen = model.layers[0].self_attn, []
    usual = attention.forward
    attention.forward = lambda *args, **kwargs: seen.append(args) or usual(*args, **kwargs)
    model(x)
    del attention.forward
    return len(seen) > 0


def silent_hook(module, args, result):
    pass


frozen = copy.deepcopy(model).requires_grad_(False)
assert is_called(model)  # guard: with_gradients
assert not is_called(frozen)  # guard: frozen_alike
hook = frozen.layers[0].register_forward_hook(silent_hook)
assert is_called(frozen)  # guard: hooks_prevent_it
hook.remove()
assert not is_called(frozen)  # guard: hook_gone
with torch.random.fork_rng(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says that the number of heads is odd
    odd = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, 1, 36, **options), 1)
assert is_called(odd.double().eval().requires_grad_(False))  # guard: one_head


def by_one_hook(model, x):
    """Hooks behind the call alone."""
    seen = []
    hooks = [
        layer.self_attn.register_forward_hook(lambda module, args, result: seen.append(result[1]))
        for layer in model.layers
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen


exercise(
    "hooks",
    by_two_hooks,
    given=[(model, x)],
    nothing=by_one_hook,
    never_called=lambda model, x: [],
    mean=lambda model, x: [one.mean(1) for one in by_two_hooks(model, x)],
    called_twice=lambda model, x: [one for one in by_two_hooks(model, x) for _ in range(2)],
)


# --8<-- [start:padding_try]
lengths = torch.tensor([5, 3])
padding = torch.arange(L) >= lengths[:, None]  # (B, L), True hides
received = None  # (B, H), what key 0 gets from a query of layer 0
check("padding", received)
# --8<-- [end:padding_try]

# --8<-- [start:padding]
with attention_weights(model) as maps, torch.no_grad():
    model(x, src_key_padding_mask=padding)
padded = maps["layers.0.self_attn"]
assert padded[1, ..., 3:].abs().max() == 0
# head 2 of sample 1, real tokens only
print(tuple(padded.shape), tuple(padded[1, 2, :3, :3].shape))
# how much key 0 gets from one query, for each sample and head
real = (~padding)[:, None]  # (B, 1, L)
received = (padded[..., 0] * real).sum(-1) / lengths[:, None]
torch.testing.assert_close(received[1], padded[1, :, :3, 0].mean(-1))
print(received)
# --8<-- [end:padding]
torch.testing.assert_close(received[0], padded[0, :, :, 0].mean(-1))  # guard: received_in_sample_0
# the rows of padded queries: zeros where the batch was nested, weights where gradients were recorded
assert not padded[1, :, 3:].any()  # guard: rows_of_zeros
with attention_weights(model) as maps:
    model(x, src_key_padding_mask=padding)
rows = maps["layers.0.self_attn"][1, :, 3:].sum(-1)
torch.testing.assert_close(rows, torch.ones_like(rows))  # guard: rows_of_weights

# --8<-- [start:padding_wrong]
over_all = padded[..., 0].mean(-1)
refused(over_all, received)
torch.testing.assert_close(over_all[0], received[0])
assert not torch.allclose(over_all[1], received[1])
# --8<-- [end:padding_wrong]
torch.testing.assert_close(over_all[1] * L, received[1] * lengths[1])  # guard: divided_by_all_rows
with torch.no_grad():
    _, unmasked = mha(x, x, x, average_attn_weights=False)
exercise(
    "padding",
    received,
    over_all=over_all,
    total=received * lengths[:, None],
    query=padded[:, :, 0].mean(-1),
    no_padding=unmasked[..., 0].mean(-1),
    no_padding_but_real=(unmasked[..., 0] * real).sum(-1) / lengths[:, None],
)


# --8<-- [start:dropout_try]
recorded = None  # (B, H, L, L), of layer 0 in training mode
check("dropout", recorded)
# --8<-- [end:dropout_try]

# --8<-- [start:dropout]
model.train()
with attention_weights(model, before_dropout=True) as maps:
    model(x)
before = maps["layers.0.self_attn"]
with attention_weights(model) as maps:
    model(x)
after = maps["layers.0.self_attn"]
model.eval()
torch.testing.assert_close(before, weights)
for seen in (before, after):
    sums = seen.sum(-1)
    print(f"rows sum to {sums.min():.2f} .. {sums.max():.2f}")
# what is left is scaled up
left = after != 0
torch.testing.assert_close(after[left], before[left] / (1 - 0.3))
# --8<-- [end:dropout]
torch.testing.assert_close(before.sum(-1), torch.ones_like(before.sum(-1)))  # guard: softmax_itself
assert after.sum(-1).min() < 0.5 < 1.2 < after.sum(-1).max()  # guard: sums_after_dropout

# --8<-- [start:dropout_wrong]
total = after.sum(-1, keepdim=True)
scaled = after / total
rows = scaled.sum(-1)
torch.testing.assert_close(rows, torch.ones_like(rows))
refused(scaled, before)
assert not torch.allclose(scaled, before)
# --8<-- [end:dropout_wrong]
assert torch.equal(scaled == 0, after == 0)  # guard: dropped_stays_lost
exercise(
    "dropout",
    before,
    divided=Like(scaled, lambda a: bool((a == 0).any()) and bool(((a.sum(-1) - 1).abs() < 1e-6).all())),
    dropped=Like(after, lambda a: bool((a == 0).any())),
    mean=before.mean(1),
)


# --8<-- [start:sdpa_try]
torch.manual_seed(6)
q, k, v = torch.randn(3, B, H, L, D, dtype=torch.float64)
inside = None  # (B, H, L, L)
check("sdpa", inside)
# --8<-- [end:sdpa_try]

# --8<-- [start:sdpa]
heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
# the identity as values: the output is the weights
identity = torch.eye(L, dtype=torch.float64).expand(B, H, L, L)
inside = F.scaled_dot_product_attention(
    q, k, identity, is_causal=True
)
torch.testing.assert_close(inside @ v, heads)
torch.testing.assert_close(
    sdpa_weights(q, k, is_causal=True), inside
)
print(tuple(heads.shape), tuple(inside.shape))
# --8<-- [end:sdpa]

# --8<-- [start:sdpa_wrong]
scores = q @ k.mT / D**0.5
without_mask = scores.softmax(-1)
refused(without_mask, inside)
assert not torch.allclose(without_mask @ v, heads)
# the mask, but behind the softmax
cut = without_mask.tril()
refused(cut, inside)
assert not torch.allclose(cut @ v, heads)
# --8<-- [end:sdpa_wrong]
torch.testing.assert_close(F.scaled_dot_product_attention(q, k, identity), without_mask)  # guard: no_mask
assert (cut.sum(-1)[..., :-1] < 0.999).all()  # guard: rows_below_one
torch.testing.assert_close(cut / cut.sum(-1, keepdim=True), inside)  # guard: right_up_to_the_sum
exercise(
    "sdpa",
    inside,
    no_mask=without_mask,
    behind=cut,
    no_scale=sdpa_weights(q, k, is_causal=True, scale=1.0),
    backwards=scores.masked_fill(torch.ones(L, L, dtype=torch.bool).tril(-1), -torch.inf).softmax(-1),
)


# --8<-- [start:decoder_try]
torch.manual_seed(7)
layer = nn.TransformerDecoderLayer(E, H, 36, **options)
decoder = nn.TransformerDecoder(layer, 2).double().eval()
for name, parameter in decoder.named_parameters():
    if "attn" in name:
        nn.init.normal_(parameter, std=0.5)
memory = torch.randn(B, S, E, dtype=torch.float64)
most = None  # (B, H, L), numbers of memory tokens, layer 1
check("decoder", most)
# --8<-- [end:decoder_try]

# --8<-- [start:decoder]
with attention_weights(decoder) as maps:
    decoder(x, memory)
for name, seen in maps.items():
    print(name, tuple(seen.shape))
cross = maps["layers.1.multihead_attn"]
most = cross.argmax(dim=-1)  # (B, H, L), numbers of memory tokens
picked = cross.gather(-1, most[..., None])
assert (picked >= cross).all()
print(most[0])
# --8<-- [end:decoder]

# --8<-- [start:decoder_wrong]
other_way = cross.argmax(dim=-2)
print(tuple(most.shape), tuple(other_way.shape))
assert other_way.shape != most.shape
# the same slip where queries and keys are the same tokens
own = maps["layers.1.self_attn"]
refused(own.argmax(dim=-2), own.argmax(dim=-1))
# --8<-- [end:decoder_wrong]
for maps_of, found in ((cross, other_way), (own, own.argmax(dim=-2))):
    greatest = maps_of.gather(-2, found[:, :, None])
    assert (greatest >= maps_of).all()  # guard: greatest_of_each_column
with attention_weights(decoder) as maps:
    decoder(x, memory)
exercise(
    "decoder",
    most,
    columns=other_way,
    first_layer=maps["layers.0.multihead_attn"].argmax(-1),
    self_attention=own.argmax(-1),
    of_the_mean=cross.mean(1).argmax(-1),
    least=cross.argmin(-1),
)


# --8<-- [start:removed_try]
removed = None  # (B, L, E), the output of mha without head 2
check("take-away", removed)
# --8<-- [end:removed_try]

# --8<-- [start:removed]
values = F.linear(x, mha.in_proj_weight, mha.in_proj_bias)[..., 2 * E :]
v = values.unflatten(-1, (H, D)).transpose(1, 2)
parts = [
    (weights[:, i] @ v[:, i])
    @ mha.out_proj.weight[:, i * D : (i + 1) * D].T
    for i in range(H)
]
torch.testing.assert_close(sum(parts) + mha.out_proj.bias, out)
expected = out - parts[2]
kept = mha.out_proj.weight.detach().clone()
with torch.no_grad():
    # head 2 goes in through its columns
    mha.out_proj.weight[:, 2 * D : 3 * D] = 0
    removed = mha(x, x, x)[0]
    mha.out_proj.weight.copy_(kept)
torch.testing.assert_close(removed, expected)
print(f"moved by {(removed - out).abs().max():.2f}")
# --8<-- [end:removed]

# --8<-- [start:removed_wrong]
packed = mha.in_proj_weight.detach().clone()
bias = mha.in_proj_bias.detach().clone()
with torch.no_grad():
    # rows instead of columns: some outputs are missing, of all heads
    mha.out_proj.weight[2 * D : 3 * D] = 0
    by_rows = mha(x, x, x)[0]
    mha.out_proj.weight.copy_(kept)
    # no query: head 2 looks at everything alike, and still speaks
    mha.in_proj_weight[2 * D : 3 * D] = 0
    mha.in_proj_bias[2 * D : 3 * D] = 0
    by_query, uniform = mha(x, x, x, average_attn_weights=False)
    mha.in_proj_weight.copy_(packed)
    mha.in_proj_bias.copy_(bias)
refused(by_rows, expected)
refused(by_query, expected)
torch.testing.assert_close(
    uniform[:, 2], torch.full_like(uniform[:, 2], 1 / L)
)
# --8<-- [end:removed_wrong]
silenced = out.clone()
silenced[..., 2 * D : 3 * D] = mha.out_proj.bias[2 * D : 3 * D]
torch.testing.assert_close(by_rows, silenced)  # guard: some_outputs_of_all_heads
speaks = v[:, 2].mean(dim=1, keepdim=True) @ mha.out_proj.weight[:, 2 * D : 3 * D].T
torch.testing.assert_close(by_query, expected + speaks)  # guard: mean_of_the_values
assert speaks.abs().max() > 0.1  # guard: goes_on_speaking
exercise(
    "take-away",
    removed,
    rows=by_rows,
    query=by_query,
    alone=parts[2],
    alone_with_bias=parts[2] + mha.out_proj.bias,
    no_bias=removed - mha.out_proj.bias,
    other_head=out - parts[1],
)


# --8<-- [start:own]
class Own(nn.Module):
    """Causal attention; the rows of qkv are cut as (3, H, D)."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(E, 3 * E), nn.Linear(E, E)

    def forward(self, x, past=None):
        q, k, v = (
            self.qkv(x).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
        )  # each (B, H, L, D)
        if past is not None:
            k = torch.cat([past[0], k], dim=2)
            v = torch.cat([past[1], v], dim=2)
        heads = F.scaled_dot_product_attention(
            q, k, v, is_causal=past is None
        )
        return self.out(heads.transpose(1, 2).flatten(2)), (k, v)


torch.manual_seed(9)
own = Own().double().eval()
for parameter in own.parameters():
    nn.init.normal_(parameter, std=0.3)
# --8<-- [end:own]

# --8<-- [start:own_try]
of_head_2 = None  # (B, L, L)
check("own", of_head_2)
# --8<-- [end:own_try]

# --8<-- [start:own_recorded]
with attention_weights(own) as maps:
    own(x)
recorded = maps[""]
print(tuple(recorded.shape))

W_q, W_k, _ = own.qkv.weight.unflatten(0, (3, H, D))
b_q, b_k, _ = own.qkv.bias.unflatten(0, (3, H, D))
q, k = x @ W_q[2].T + b_q[2], x @ W_k[2].T + b_k[2]  # (B, L, D)
future = torch.ones(L, L, dtype=torch.bool).triu(1)
scores = (q @ k.mT / D**0.5).masked_fill(future, -torch.inf)
torch.testing.assert_close(scores.softmax(-1), recorded[:, 2])
# --8<-- [end:own_recorded]

# --8<-- [start:own_wrong]
by_head = own.qkv.weight.unflatten(0, (H, 3, D))
b_by_head = own.qkv.bias.unflatten(0, (H, 3, D))
q, k = (x @ by_head[2, j].T + b_by_head[2, j] for j in (0, 1))
scores = (q @ k.mT / D**0.5).masked_fill(future, -torch.inf)
by_head_2 = scores.softmax(-1)
refused(by_head_2, recorded[:, 2])
assert not torch.allclose(by_head_2, recorded[:, 2])
# --8<-- [end:own_wrong]
torch.testing.assert_close(q, x @ W_k[2].T + b_k[2])  # guard: its_query_is_a_key
torch.testing.assert_close(k, x @ W_k[3].T + b_k[3])  # guard: its_key_is_the_next_heads
q, k = x @ W_q[2].T + b_q[2], x @ W_k[2].T + b_k[2]
exercise(
    "own",
    recorded[:, 2],
    by_head=by_head_2,
    no_mask=(q @ k.mT / D**0.5).softmax(-1),
    no_bias=((x @ W_q[2].T) @ (x @ W_k[2].T).mT / D**0.5).masked_fill(future, -torch.inf).softmax(-1),
    head_1=recorded[:, 1],
)


# --8<-- [start:steps_try]
whole = None  # (B, H, L, L)
check("steps", whole)
# --8<-- [end:steps_try]

# --8<-- [start:steps]
with attention_weights(own) as maps:
    _, past = own(x[:, :3])
    for i in range(3, L):
        _, past = own(x[:, i : i + 1], past)
rows = []
for seen in maps[""]:
    print(tuple(seen.shape))
    rows.append(F.pad(seen, (0, L - seen.shape[-1])))
whole = torch.cat(rows, dim=2)
torch.testing.assert_close(whole, recorded)
# --8<-- [end:steps]

# --8<-- [start:steps_wrong]
keys = past[0]  # (B, H, L, D)
q = own.qkv(x)[..., :E].unflatten(-1, (H, D)).transpose(1, 2)
step = sdpa_weights(q[:, :, -1:], keys, is_causal=True)
refused(step, recorded[:, :, -1:])
print(step[0, 0, 0].tolist())
assert step[..., 0].min() > step[..., 1:].max()
# --8<-- [end:steps_wrong]
torch.testing.assert_close(step[..., 0], torch.ones_like(step[..., 0]))  # guard: all_on_the_first_key
torch.testing.assert_close(sdpa_weights(q[:, :, -1:], keys), recorded[:, :, -1:])  # guard: without_a_mask_it_is_right
first_key = whole.clone()
first_key[:, :, 3:] = 0
first_key[:, :, 3:, 0] = 1
flush_right = [F.pad(seen, (L - seen.shape[-1], 0)) for seen in maps[""]]
exercise(
    "steps",
    whole,
    first_key=first_key,
    flush_right=torch.cat(flush_right, dim=2),
    last_step_only=F.pad(whole[:, :, -1:], (0, 0, L - 1, 0)),
    transposed=whole.mT,
)


# --8<-- [start:slopes_try]
torch.manual_seed(11)
u = torch.randn(E, dtype=torch.float64)
most = None  # (B, H), the key that contributes most
check("slopes", most)
# --8<-- [end:slopes_try]

# --8<-- [start:slopes]
with attention_weights(own, keep_grad=True) as maps:
    number = own(x)[0][:, -1] @ u  # (B,), of the last token
A = maps[""]
(slopes,) = torch.autograd.grad(number.sum(), A)
# linear in A: weight times slope, added up, is the number
parts = slopes * A  # (B, H, L, L)
torch.testing.assert_close(
    parts.sum((1, 2, 3)), number - own.out.bias @ u
)
# the last token's output uses the last row only
assert slopes[:, :, :-1].abs().max() == 0
most = parts[:, :, -1].abs().argmax(-1)
print(most)
# --8<-- [end:slopes]

# --8<-- [start:slopes_wrong]
refused(A[:, :, -1].argmax(-1), most)
# a map computed beside the model is no part of its output
number = own(x)[0][:, -1] @ u
q, k, _ = own.qkv(x).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
beside = sdpa_weights(q, k, is_causal=True)
torch.testing.assert_close(beside, A)
try:
    torch.autograd.grad(number.sum(), beside)
except RuntimeError as error:
    print(str(error).split(".")[0])
else:
    raise AssertionError("it was part of the output")
# --8<-- [end:slopes_wrong]
values = own.qkv(x)[..., 2 * E :].unflatten(-1, (H, D)).transpose(1, 2)  # (B, H, L, D)
head_of_u = (own.out.weight.T @ u).view(H, 1, D)
torch.testing.assert_close(slopes[:, :, -1], (values * head_of_u).sum(-1))  # guard: a_slope_is_what_the_value_says
others = (A[:, :, -1].argmax(-1) != most).sum().item()
assert others > 0  # guard: another_key
show("others", others)
show("cases", most.numel())
exercise(
    "slopes",
    most,
    weight=A[:, :, -1].argmax(-1),
    slope=slopes[:, :, -1].abs().argmax(-1),
    signed=parts[:, :, -1].argmax(-1),
)

for expected, told in outcomes():
    assert told == expected  # guard: every_answer_is_told
