# --8<-- [start:setup]
import copy
import math

import torch
from cached import cached
from capture import attention_weights
from kaomoji import faces, interval, leave_one_out
from kaomoji import tensors, trained, vocabulary

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
parts = cached(faces)
vocab = vocabulary(parts["train"])
ids, labels = tensors(parts["test"], vocab)
real = ids > 0  # (N, L)
model = trained(seed=0)
attend = [layer.self_attn for layer in model.encoder.layers]
H, E = attend[0].num_heads, attend[0].embed_dim
D = E // H
# --8<-- [end:setup]

# --8<-- [start:record]
entered, left = [], []
hooks = []
for layer in attend:
    hooks += [
        layer.register_forward_pre_hook(
            lambda _, x: entered.append(x[0])
        ),
        layer.register_forward_hook(lambda _, x, y: left.append(y[0])),
    ]
with attention_weights(model) as maps, torch.no_grad():
    logits = model(ids)
for hook in hooks:
    hook.remove()
# (layers, N, H, L, L) and twice (layers, N, L, E)
maps = torch.stack(list(maps.values()))
layers, N, _, L, _ = maps.shape
entered, left = torch.stack(entered), torch.stack(left)
print(tuple(maps.shape), tuple(entered.shape), tuple(left.shape))
# --8<-- [end:record]
texts = [text for text, _ in parts["test"]]
n = texts.index(list("ヽ(`Д´)ノ"))
face, size = texts[n], len(texts[n])

# --8<-- [start:averaged]
def entropy(weights):
    """(..., S) -> (...), in bits."""
    return torch.special.entr(weights).sum(-1) / math.log(2)


# (layers, N, L, L)
mean = maps.mean(2)
rows = real.expand(layers, N, L)
of_mean = entropy(mean)[rows]
of_heads = entropy(maps).mean(2)[rows]
assert (of_mean > of_heads - 1e-12).all()
print(f"bits: {of_mean.mean():.2f}, heads {of_heads.mean():.2f}")

# the key that the mean prefers: how many heads prefer it?
same = maps.argmax(-1) == mean.argmax(-1)[:, :, None]
agree = same.sum(2)[rows]
for count in range(H + 1):
    share = (agree == count).double().mean()
    print(f"{count} of {H} heads: {share:.3f} of the rows")
assert (agree < H).double().mean() > 0.9
# --8<-- [end:averaged]
show("bits_mean", f"{of_mean.mean():.2f}")
show("bits_heads", f"{of_heads.mean():.2f}")
show("whole", f"{100 * (agree == H).double().mean():.0f}")
show("few", f"{100 * (agree <= 1).double().mean():.0f}")
one = maps[0, n, :, :size, :size]
assert entropy(one.mean(0)).mean() > entropy(one).mean(-1).max()  # guard: mean_is_more_spread_here
five = torch.cat([one, one.mean(0, keepdim=True)])
figure("averaged", "attention", {"weights": five}, labels={"queries": face, "keys": face})

# --8<-- [start:padded]
padded = (~real).expand(layers, H, N, L).transpose(1, 2)
sums = maps.sum(-1)[padded]
torch.testing.assert_close(sums, torch.ones_like(sums))
print(f"rows that are padding: {(~real).double().mean():.2f}")

# attention that the first token receives, over all rows and real ones
first = maps[..., 0].mean(2)  # (layers, N, L)
careless = first.mean()
careful = first[rows].mean()
print(f"with padded rows {careless:.3f}, without {careful:.3f}")
assert not torch.allclose(careless, careful, rtol=0.02)

# what stands there reaches no answer
other = copy.deepcopy(model)
with torch.no_grad():
    other.tokens.weight[0].normal_(std=5)
    torch.testing.assert_close(other(ids), logits)
# --8<-- [end:padded]
show("padding", f"{100 * (~real).double().mean():.0f}")
show("careless", f"{careless:.3f}")
show("careful", f"{careful:.3f}")

# --8<-- [start:contribution]
def contributions(layer, x):
    """(N, L, E) -> (N, H, L, E): what each token's value would add."""
    w_v = layer.in_proj_weight[2 * E :]
    b_v = layer.in_proj_bias[2 * E :]
    # (N, H, L, D)
    v = (x @ w_v.T + b_v).unflatten(-1, (H, D)).transpose(1, 2)
    # (H, D, E)
    w_o = layer.out_proj.weight.T.unflatten(0, (H, D))
    return v @ w_o


with torch.no_grad():
    pairs = zip(attend, entered, strict=True)
    added = torch.stack([contributions(*pair) for pair in pairs])
    # sum over heads and keys: the layer's own output
    bias = torch.stack([m.out_proj.bias for m in attend])[:, None, None]
    torch.testing.assert_close((maps @ added).sum(2) + bias, left)
# (layers, N, H, L, L): weight times length of what it lets through
reach = maps * added.norm(dim=-1)[:, :, :, None]
# --8<-- [end:contribution]
through = maps[:, n, :, 0, :, None] * added[:, n]  # (layers, H, L, E): what each key gives the first query
torch.testing.assert_close(reach[:, n, :, 0], through.norm(dim=-1))  # guard: reach_is_a_length

# --8<-- [start:small_values]
far = added.norm(dim=-1)  # (layers, N, H, L)
keys = real[:, None].expand(layers, N, H, L)
for layer in range(layers):
    ends = torch.tensor([0.05, 0.95])
    spread = far[layer][keys[layer]].quantile(ends)
    print(f"layer {layer}: length {spread[0]:.2f} .. {spread[1]:.2f}")
    assert spread[1] > 2 * spread[0]
queries = real[:, None].expand(layers, N, H, L)
changed = (maps.argmax(-1) != reach.argmax(-1))[queries].double()
print(f"another key comes first in {changed.mean():.3f} of the rows")
assert changed.mean() > 0.05
# --8<-- [end:small_values]
of_heaviest = reach.gather(-1, maps.argmax(-1, keepdim=True)).squeeze(-1)
beaten = of_heaviest < reach.amax(-1)
assert torch.equal(beaten[queries], changed.bool())  # guard: another_key_reaches_farther
show("changed", f"{100 * changed.mean():.1f}")

# --8<-- [start:kendall]
def kendall(a, b, real):
    """(N, L) twice -> (N,): rank correlation over a face's characters.

    The share of pairs in the same order, less that of the others.
    """
    order = (a[:, :, None] - a[:, None]).sign()
    other = (b[:, :, None] - b[:, None]).sign()
    pairs = (real[:, :, None] & real[:, None]).triu(1)
    return (order * other * pairs).sum((1, 2)) / pairs.sum((1, 2))


def received(maps):
    """(N, H, L, L) -> (N, L): mean over heads and real queries."""
    weights = (maps * real[:, None, :, None]).sum((1, 2))
    return weights / (H * real.sum(1, keepdim=True))
# --8<-- [end:kendall]
torch.testing.assert_close(received(maps[1])[n, :size], maps[1, n, :, :size, :size].mean((0, 1)))  # guard: received_is_a_mean

# --8<-- [start:leave_one_out]
moved = leave_one_out(model, ids)
measures = {
    "attention, layer 0": received(maps[0]),
    "attention, layer 1": received(maps[1]),
    "weight x length, layer 0": received(reach[0]),
    "weight x length, layer 1": received(reach[1]),
    "leave-one-out, seed 1": leave_one_out(trained(seed=1), ids),
}
taus = {}
for name, measure in measures.items():
    tau = kendall(measure, moved, real)
    taus[name] = tau.mean().item(), *interval(tau)
    print("{:26}{:.2f}  [{:.2f}, {:.2f}]".format(name, *taus[name]))
# more than chance, and far from the same
assert all(low > 0 and high < 0.5 for _, low, high in taus.values())
# --8<-- [end:leave_one_out]

for name, short in zip(measures, ("a0", "a1", "r0", "r1", "seed"), strict=True):
    tau, low, high = taus[name]
    show(f"{short}_tau", f"{tau:.2f}")
    show(f"{short}_low", f"{low:.2f}")
    show(f"{short}_high", f"{high:.2f}")
# the same correlation of one face, pair by pair, as the formula has it
ranks = list(zip(received(maps[1])[n].tolist(), moved[n].tolist(), strict=True))[:size]
signs = [math.copysign(1, (a - b) * (c - d)) for s, (a, c) in enumerate(ranks) for b, d in ranks[s + 1 :]]
by_hand = torch.tensor(sum(signs) / math.comb(size, 2))
torch.testing.assert_close(kendall(received(maps[1]), moved, real)[n], by_hand)  # guard: kendall_by_hand
# of the faces with 6 to 9 different characters, the one whose correlation is nearest to the mean
tau = kendall(measures["attention, layer 1"], moved, real)
plain = torch.tensor([6 <= len(set(text)) == len(text) <= 9 and set(text) <= set(vocab) for text in texts])
usual = (tau - tau.mean()).abs().masked_fill(~plain, 9).argmin()
shares = [m[usual, real[usual]] / m[usual].sum() for m in (measures["attention, layer 1"], moved)]
torch.testing.assert_close(torch.stack(shares).sum(-1), torch.ones(2))  # guard: shares_sum_to_1
labels_of_face = {"categories": texts[usual]}
figure("face", "bars", {"attention": shares[0], "leave_one_out": shares[1]}, labels=labels_of_face)
assert 0 < tau[usual] < 0.5  # guard: ranks_differ_in_places
show("usual_tau", f"{tau[usual]:.2f}")

# --8<-- [start:ablation]
@torch.no_grad()
def without(layer, heads):
    """(N,) booleans: right answers when these heads are removed."""
    pruned = copy.deepcopy(model)
    w_o = pruned.encoder.layers[layer].self_attn.out_proj.weight
    for i in heads:
        w_o[:, i * D : (i + 1) * D] = 0
    return pruned(ids).argmax(1) == labels


right = logits.argmax(1) == labels
change = {}
for layer in range(layers):
    for heads in [[i] for i in range(H)] + [list(range(H))]:
        gain = without(layer, heads).int() - right.int()
        name = f"{layer}.{heads[0] if len(heads) == 1 else 'all'}"
        change[name] = gain.double().mean().item(), *interval(gain)
        line = "{:6}{:+.3f}  [{:+.3f}, {:+.3f}]"
        print(line.format(name, *change[name]))
# --8<-- [end:ablation]

# --8<-- [start:ablation_claims]
single = [c for name, c in change.items() if "all" not in name]
both = [c for name, c in change.items() if "all" in name]
# heads whose removal cannot be told from nothing
harmless = [low <= 0 <= high for _, low, high in single]
print(sum(harmless), "of", len(single))
assert sum(harmless) >= len(single) // 2
# more than any head by itself: all of a layer
assert min(c for c, _, _ in both) < min(c for c, _, _ in single)
# --8<-- [end:ablation_claims]
show("harmless", sum(harmless))
show("heads", len(single))
for layer, (change_of_all, low, high) in enumerate(both):
    show(f"all_{layer}", f"{100 * change_of_all:+.1f}".replace("-", "−"))
    show(f"all_{layer}_holds_0", low <= 0 <= high)
columns = 100 * torch.tensor([change[name] for name in change]).T
figure(
    "ablation", "bars", {"change": columns[0], "low": columns[1], "high": columns[2]},
    labels={"categories": list(change), "low": "low", "high": "high"},
)

# --8<-- [start:answer]
even = copy.deepcopy(model)
with torch.no_grad():
    for layer in even.encoder.layers:
        # queries of 0, bias too: every score is 0
        layer.self_attn.in_proj_weight[:E] = 0
        layer.self_attn.in_proj_bias[:E] = 0
    with attention_weights(even) as flat:
        blank = even(ids)
flat = torch.stack(list(flat.values()))  # (layers, N, H, L, L)
uniform = real[:, None, None] / real.sum(1)[:, None, None, None]
torch.testing.assert_close(flat, uniform.expand_as(flat))
kept = (blank.argmax(1) == labels).double().mean()
print(f"{right.double().mean():.3f} -> {kept:.3f}")
assert kept < right.double().mean() - 0.05
# --8<-- [end:answer]
majority = labels.bincount().max() / len(labels)
assert kept > majority + 0.1  # guard: uniform_still_answers
assert interval((blank.argmax(1) == labels).int() - right.int())[1] < 0  # guard: choosing_is_of_use
show("majority", f"{majority:.3f}")
show("right", f"{right.double().mean():.3f}")
show("kept", f"{kept:.3f}")
