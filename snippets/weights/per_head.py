# --8<-- [start:setup]
import torch
import torch.nn.functional as F
from attention_map import attention_map
from capture import attention_weights, sdpa_weights
from head_view import head_view
from torch import nn

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H


def drawn(model):
    """Parameters drawn anew, evaluation mode."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()
# --8<-- [end:setup]


# --8<-- [start:yours]
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(E, 3 * E), nn.Linear(E, E)

    def forward(self, x):
        qkv = self.qkv(x).unflatten(-1, (3, H, D))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, L, D)
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.out(heads.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(E), Attention()

    def forward(self, x):
        return x + self.attention(self.norm(x))


model = drawn(nn.Sequential(Block(), Block()))
x = torch.randn(B, L, E)
# --8<-- [end:yours]

# --8<-- [start:record]
with attention_weights(model) as maps:
    output = model(x)
A = maps["0.attention"]  # (B, H, L, L)

for name, weights in maps.items():
    print(f"{name} {tuple(weights.shape)}")
# the model does not notice
assert torch.equal(output, model(x))
# --8<-- [end:record]

from itertools import combinations

shared = torch.stack([torch.minimum(A[0, i], A[0, j]).sum(-1).mean() for i, j in combinations(range(H), 2)])
assert shared.max() < 0.8  # guard: heads_look_elsewhere
drawn_parameters = torch.cat([parameter.flatten() for parameter in model.parameters()])
assert abs(drawn_parameters.std() - 0.5) < 0.01  # guard: spread_of_the_parameters
W_q, W_k, _ = model[0].attention.qkv.weight.unflatten(0, (3, H, D))
b_q, b_k, _ = model[0].attention.qkv.bias.view(3, H, 1, D)
seen = model[0].norm(x)[:, None]
formula = ((seen @ W_q.mT + b_q) @ (seen @ W_k.mT + b_k).mT / D**0.5).softmax(-1)
torch.testing.assert_close(A, formula)  # guard: recorded_is_the_formula
with torch.random.fork_rng():  # what is drawn between the sections is not drawn where they are pasted
    default = nn.Sequential(Block(), Block()).eval()
    with attention_weights(default) as fresh:
        default(x)
assert 2 * (fresh["0.attention"] - 1 / L).abs().mean() < (A - 1 / L).abs().mean()  # guard: default_is_nearer_to_uniform
figure("heads", "attention", {"A": A[0]})

# --8<-- [start:encoder]
def encoder(H, dropout=0.0):
    options = {"dropout": dropout, "batch_first": True}
    layer = nn.TransformerEncoderLayer(E, H, 2 * E, **options)
    return drawn(nn.TransformerEncoder(layer, num_layers=2))


model = encoder(H)
with attention_weights(model) as maps:
    output = model(x)
A = maps["layers.0.self_attn"]  # (B, H, L, L)
print(*maps)
assert torch.equal(output, model(x))
# the fast path for inference has other last digits
with torch.no_grad():
    torch.testing.assert_close(output, model(x))
# --8<-- [end:encoder]

# --8<-- [start:flag]
mha = model.layers[0].self_attn  # its input is x
_, asked = mha(x, x, x, average_attn_weights=False)
torch.testing.assert_close(asked, A)

_, average = mha(x, x, x)  # the default
print(f"asked   {tuple(asked.shape)}")
print(f"average {tuple(average.shape)}")
torch.testing.assert_close(average, A.mean(1))
# --8<-- [end:flag]
assert mha(x, x, x, need_weights=False, average_attn_weights=False)[1] is None  # guard: nothing_to_average

# --8<-- [start:own]
# rows of head i in each third of the packed matrix
W_q, W_k, _ = mha.in_proj_weight.unflatten(0, (3, H, D))
b_q, b_k, _ = mha.in_proj_bias.view(3, H, 1, D)
# (B, H, L, D)
q = x[:, None] @ W_q.mT + b_q
k = x[:, None] @ W_k.mT + b_k
own = (q @ k.mT / D**0.5).softmax(-1)
torch.testing.assert_close(own, A)
# --8<-- [end:own]

# --8<-- [start:sdpa]
v = torch.randn(B, H, L, D)
head = F.scaled_dot_product_attention(q, k, v)

# what it used, recomputed: (B, H, L, L)
used = sdpa_weights(q, k)
torch.testing.assert_close(used @ v, head)
# or handed out: the values are the identity
eye = torch.eye(L).expand(B, H, L, L)
out = F.scaled_dot_product_attention(q, k, eye)  # (1)!
torch.testing.assert_close(out, used)
torch.testing.assert_close(used, A)
# --8<-- [end:sdpa]

# --8<-- [start:average]
W_v = mha.in_proj_weight[2 * E :]
b_v = mha.in_proj_bias[2 * E :]
# (B, H, L, D)
V = (x @ W_v.T + b_v).unflatten(-1, (H, D)).transpose(1, 2)
right = mha.out_proj((A @ V).transpose(1, 2).flatten(2))
torch.testing.assert_close(right, mha(x, x, x)[0])

# one averaged map for all heads: another layer
mean = A.mean(1, keepdim=True)  # (B, 1, L, L)
wrong = mha.out_proj((mean @ V).transpose(1, 2).flatten(2))
assert wrong.shape == right.shape
assert not torch.allclose(wrong, right, atol=0.1)
far = (wrong - right).norm() / right.norm()
# --8<-- [end:average]
W_o = mha.out_proj.weight.T.unflatten(0, (H, D))  # (H, D, E): W_i^O
torch.testing.assert_close((mean @ V @ W_o).sum(1) + mha.out_proj.bias, wrong)  # guard: average_in_place_of_each
torch.testing.assert_close(far**2, (wrong - right).square().mean() / right.square().mean())  # guard: share_of_the_norm
show("far", f"{100 * far.item():.0f}")

# --8<-- [start:hook]
seen = []
handle = mha.register_forward_hook(
    lambda module, args, result: seen.append(result[1])
)
model(x)
handle.remove()
print(seen)  # the hook ran; there was nothing to see
assert seen == [None]
# --8<-- [end:hook]


# --8<-- [start:monkeypatch]
def recorded(H, frozen=False):
    """Maps that a patched forward sees where no gradient is needed."""
    model, seen = encoder(H).requires_grad_(not frozen), []
    for layer in model.layers:
        forward = layer.self_attn.forward

        def patched(*args, forward=forward, **kwargs):
            kwargs["need_weights"] = True
            kwargs["average_attn_weights"] = False
            result = forward(*args, **kwargs)
            seen.append(result[1])
            return result

        layer.self_attn.forward = patched
    with torch.set_grad_enabled(frozen):
        model(x)
    return sum(weights.shape[1] == H for weights in seen)


for heads in 1, 3, 4, 8:
    print(f"H = {heads}: {recorded(heads)} of 2 layers")
assert recorded(3) == 2
assert recorded(4) == recorded(4, frozen=True) == 0
# --8<-- [end:monkeypatch]
with torch.random.fork_rng():
    assert recorded(1) == recorded(3, frozen=True) == 2  # guard: odd_heads_are_seen
    for option in ({"batch_first": False}, {"bias": False}, {"activation": F.silu}):
        layer, calls = nn.TransformerEncoderLayer(E, H, 2 * E, 0, **{"batch_first": True, **option}).eval(), []
        forward = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, forward=forward, calls=calls, **kwargs: calls.append(1) or forward(*args, **kwargs)
        with torch.no_grad():
            layer(x)
        assert calls == [1]  # guard: other_layers_are_seen

# --8<-- [start:out_proj]
calls = []
for module in mha.modules():
    handle = module.register_forward_hook(
        lambda module, args, result: calls.append(type(module))
    )
mha(x, x, x)
print(*(kind.__name__ for kind in calls))
# out_proj lends its weight, and is never called
assert nn.modules.linear.NonDynamicallyQuantizableLinear not in calls
# --8<-- [end:out_proj]

# --8<-- [start:dropout]
p = 0.3
model = encoder(H, dropout=p).train()
torch.manual_seed(1)
output = model(x)
torch.manual_seed(1)
with attention_weights(model) as maps:
    assert torch.equal(model(x), output)  # the same are dropped
torch.manual_seed(1)
with attention_weights(model, before_dropout=True) as whole:
    assert torch.equal(model(x), output)

dropped, A = (m["layers.0.self_attn"] for m in (maps, whole))
print("after ", *(f"{s:.2f}" for s in dropped[0, 0].sum(-1)))
print("before", *(f"{s:.2f}" for s in A[0, 0].sum(-1)))
torch.testing.assert_close(A.sum(-1), torch.ones(B, H, L))
left = dropped != 0
torch.testing.assert_close(dropped[left], A[left] / (1 - p))
# --8<-- [end:dropout]
assert 0.1 < (~left).double().mean() < 0.5  # guard: some_are_dropped
assert not torch.allclose(dropped.sum(-1), A.sum(-1), atol=0.1)  # guard: rows_no_longer_sum_to_1
with attention_weights(model.eval()) as evaluation:
    model(x)
first, second = ((whole[name] - evaluation[name]).abs().max() for name in evaluation)
assert first < 1e-9  # guard: the_first_layer_is_that_of_evaluation
assert second > 0.01  # guard: the_next_one_is_not

# --8<-- [start:memory]
def size(layers, B, H, L, S, each):
    """Bytes of the maps, `each` of one weight."""
    return layers * B * H * L * S * each


kept = [maps.untyped_storage().nbytes() for maps in whole.values()]
print(f"bytes {sum(kept)}")
assert sum(kept) == size(2, B, H, L, L, each=8)
# --8<-- [end:memory]
show("stock", f"{size(12, 32, 12, 512, 512, each=4) / 2**30:.1f}")

# --8<-- [start:draw]
tokens = ["the", "cat", "sat", "on", "it"]
picture = attention_map(A[0], tokens)
print(len(picture.axes) - 1, "panels")  # and a colour bar
assert len(picture.axes) - 1 == H

try:
    attention_map(dropped[0], tokens)
except ValueError as error:
    print(error)
else:
    raise AssertionError("rows that do not sum to 1 were drawn")
# --8<-- [end:draw]

# --8<-- [start:see]
with attention_weights(model.eval()) as maps:
    model(x)
view = head_view(maps, tokens)  # view.save("heads.html")
print(f"{len(view.html().encode()) / 1000:.0f} kB")
# --8<-- [end:see]

# --8<-- [start:question]
with torch.inference_mode(), attention_weights(model.eval()) as maps:
    model(x)
    model(x[:, :3])
first, second = maps["layers.0.self_attn"]
print(f"first  {tuple(first.shape)}")
print(f"second {tuple(second.shape)}")
torch.testing.assert_close(first, A)

# renormalised, the first three keys are as they were alone
three = first[:, :, :3, :3]
assert not torch.allclose(three, second, atol=1e-3)
torch.testing.assert_close(three / three.sum(-1, keepdim=True), second)
# not so in the second layer
deep, short = maps["layers.1.self_attn"]
three = deep[:, :, :3, :3]
again = three / three.sum(-1, keepdim=True)
assert not torch.allclose(again, short, atol=0.1)
# --8<-- [end:question]
torch.testing.assert_close(again.sum(-1), short.sum(-1))  # guard: renormalised_and_yet_another


# What runs under which PyTorch: recorded by `make versions`.
import json
from pathlib import Path

records = json.loads((Path(__file__).parents[1] / "versions.json").read_text(encoding="utf-8"))
under = list(records["capture"])
failed = {}
for i, version in enumerate(under):
    show(f"torch_{i}", version)
    show(f"day_{i}", min(found[version]["day"] for found in records.values()))
    for recipe, found in records.items():
        one = found[version]
        run = one["passed"] + one["failed"]
        show(f"{recipe}_{i}", f"{one['passed']} / {run}")
        failed |= {(recipe, version): one["failed"]} if one["failed"] else {}
days = [min(found[version]["day"] for found in records.values()) for version in under]
assert days[0] == min(days)  # guard: the_oldest_day_first
show("skipped", records["capture"][under[0]]["skipped"])
assert all(list(found) == under for found in records.values())  # guard: every_file_under_every_version
assert len(under) == 4  # guard: a_column_for_each_version
assert len(records) == 9  # guard: a_row_for_each_file
assert torch.__version__.split("+")[0] in under  # guard: the_version_of_this_build_is_among_them
assert failed == {("paper_attention", under[0]): 1}  # guard: one_test_failed_under_the_oldest
