# --8<-- [start:setup]
import textwrap
import torch
import torch.nn.functional as F
from capture import attention_weights
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

torch.set_printoptions(precision=2, sci_mode=False)
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 7, 24, 4
D = E // H
# --8<-- [end:setup]


# --8<-- [start:layer]
class Layer(nn.Module):
    """Projects, cuts into heads, and attends as it is told.

    K heads of keys and values serve H heads of queries.
    """

    def __init__(self, attend, K=H):
        super().__init__()
        self.q, self.out = nn.Linear(E, E), nn.Linear(E, E)
        self.k, self.v = nn.Linear(E, K * D), nn.Linear(E, K * D)
        self.attend = attend
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def heads(self, x):
        """Queries (B, H, L, D); keys, values (B, K, L, D)."""
        return [
            project(x).unflatten(-1, (-1, D)).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        ]

    def forward(self, x):
        z = self.attend(*self.heads(x))  # (B, H, L, D)
        return self.out(z.transpose(1, 2).flatten(2))
# --8<-- [end:layer]


# --8<-- [start:listen]
class Listen(TorchFunctionMode):
    """Hears each call of SDPA, and computes its weights beside it."""

    def __init__(self):
        super().__init__()
        self.maps = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            q, k = args[:2]
            self.maps.append((q @ k.mT / D**0.5).softmax(-1))
        return func(*args, **kwargs or {})


model = nn.Sequential(
    Layer(lambda q, k, v: scaled_dot_product_attention(q, k, v)),
    Layer(lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
)
x = torch.randn(B, L, E)
with Listen() as listener:
    output = model(x)
with attention_weights(model) as maps:
    assert torch.equal(model(x), output)
print(f"heard {len(listener.maps)}, recorded {len(maps)}")
for heard, recorded in zip(listener.maps, maps.values(), strict=True):
    torch.testing.assert_close(heard, recorded)
# --8<-- [end:listen]
assert torch.equal(output, model(x))  # guard: hearing_changes_nothing

# --8<-- [start:replaced]
original, calls = F.scaled_dot_product_attention, []


def replaced(*args, **kwargs):
    calls.append(args)
    return original(*args, **kwargs)


F.scaled_dot_product_attention = replaced
model(x)
F.scaled_dot_product_attention = original
print(f"calls {len(calls)}, layers {len(model)}")
assert len(calls) < len(model)
# --8<-- [end:replaced]
assert torch.equal(calls[0][0], model[1].heads(model[0](x))[0])  # guard: the_imported_name_is_missed


# --8<-- [start:silent]
class Switch(nn.Module):
    """As in many libraries: one of its two ways has weights."""

    def __init__(self, eager):
        super().__init__()
        self.attention = Layer(self.way)
        self.eager, self.last = eager, None

    def way(self, q, k, v):
        self.last = None
        if not self.eager:
            return F.scaled_dot_product_attention(q, k, v)
        self.last = (q @ k.mT / D**0.5).softmax(-1)
        return self.last @ v

    def forward(self, x, output_attentions=False):
        y, kept = self.attention(x), self.last
        asked = output_attentions and kept is not None
        return y, (kept,) if asked else ()


switch = Switch(eager=True)
_, attentions = switch(x, output_attentions=True)
switch.eager = False
with attention_weights(switch) as maps:
    _, nothing = switch(x, output_attentions=True)
print(f"eager {len(attentions)}, fused {nothing}, recorded {[*maps]}")
assert len(nothing) < len(attentions)
torch.testing.assert_close(maps["attention"], attentions[0])
# --8<-- [end:silent]


# --8<-- [start:grouped]
def grouped(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


K = 2  # heads of keys: two heads of queries share one
layer = Layer(grouped, K)
with attention_weights(layer) as maps:
    layer(x)
A = maps[""]
q, k, _ = layer.heads(x)
for i in range(H):
    own = q[:, i] @ k[:, i // (H // K)].mT / D**0.5
    torch.testing.assert_close(A[:, i], own.softmax(-1))
print(f"keys {tuple(k.shape)} maps {tuple(A.shape)}")
# the other way to deal out two heads of keys: 0 1 0 1
wrong = (q @ k.repeat(1, H // K, 1, 1).mT / D**0.5).softmax(-1)
assert wrong.shape == A.shape
assert not torch.allclose(wrong, A, atol=0.1)
# --8<-- [end:grouped]
for i, served in enumerate([0, 1, 0, 1]):
    torch.testing.assert_close(wrong[:, i], (q[:, i] @ k[:, served].mT / D**0.5).softmax(-1))  # guard: dealt_out_in_turn
torch.testing.assert_close(A.sum(-1), torch.ones(B, H, L))  # guard: rows_of_groups_sum_to_1

# --8<-- [start:window]
W = 3  # a token sees itself and the two before it
i = torch.arange(L)
seen = (i[:, None] >= i) & (i[:, None] - i < W)


def window(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


layer = Layer(window)
with attention_weights(layer) as maps:
    layer(x)
print("keys", (maps[""][0, 0] != 0).sum(-1).tolist())
torch.testing.assert_close(maps[""].sum(-1), torch.ones(B, H, L))
assert torch.all(maps[""][..., ~seen] == 0)
# --8<-- [end:window]
show("before", W - 1)
with torch.random.fork_rng():  # what is drawn between the sections is not drawn where they are pasted
    stacked = nn.Sequential(layer, Layer(window))
moved = x.clone()
moved[:, 0] += 1  # token 0 is another one
reached = (stacked(moved) - stacked(x)).abs().amax((0, 2)) > 1e-6
alone = (layer(moved) - layer(x)).abs().amax((0, 2)) > 1e-6
assert alone.sum() == W < reached.sum() == 2 * W - 1  # guard: two_layers_reach_further
assert torch.equal((maps[""] != 0).sum(-1), seen.sum(-1).expand(B, H, L))  # guard: all_that_is_seen_has_weight
figure("window", "attention", {"window": maps[""][0, 0]})


# --8<-- [start:softcap]
cap = 2.0


def softcapped(q, k, v):
    scores = cap * torch.tanh(q @ k.mT / D**0.5 / cap)
    return scores.softmax(-1) @ v


layer = Layer(softcapped)
with attention_weights(layer) as maps:
    layer(x)
A = maps[""]
torch.testing.assert_close(A.sum(-1), torch.ones(B, H, L))
# no score is further than 2 * cap from another
ratio = A.amax(-1) / A.amin(-1)
print(f"max / min {ratio.max():.2f}")
assert ratio.max() < torch.tensor(2 * cap).exp()
# recomputed without the cap
q, k, v = layer.heads(x)
wrong = (q @ k.mT / D**0.5).softmax(-1)
assert not torch.allclose(wrong, A, atol=0.1)
assert wrong.amax() > A.amax()
# --8<-- [end:softcap]
torch.testing.assert_close(wrong @ v, F.scaled_dot_product_attention(q, k, v))  # guard: as_without_a_cap
show("cap_bound", f"{torch.tensor(2 * cap).exp():.2f}")

# --8<-- [start:sink]
sink = torch.randn(H, 1, 1)  # learned, one number for each head


def with_sink(q, k, v):
    scores = q @ k.mT / D**0.5
    more = torch.cat([scores, sink.expand(B, H, L, 1)], dim=-1)
    return more.softmax(-1)[..., :-1] @ v  # it has no value


sunk_layer = Layer(with_sink)
with attention_weights(sunk_layer) as maps:
    sunk_layer(x)
sunk = maps[""]
print(tuple(sunk.shape))
print(sunk[0].sum(-1))
assert sunk.sum(-1).max() < 1
# --8<-- [end:sink]
q, k, v = sunk_layer.heads(x)
exps = (q @ k.mT / D**0.5).exp()
torch.testing.assert_close(sunk, exps / (exps.sum(-1, keepdim=True) + sink.exp()))  # guard: the_sink_takes_the_rest
torch.testing.assert_close(sunk_layer.out((sunk @ v).transpose(1, 2).flatten(2)), sunk_layer(x))  # guard: what_values_are_multiplied_by


# --8<-- [start:cache]
class Cached(nn.Module):
    """Attends from new tokens to all tokens so far."""

    def __init__(self):
        super().__init__()
        self.attention = Layer(self.extended)
        self.forget()

    def forget(self):
        self.k = self.v = torch.empty(B, H, 0, D)

    def extended(self, q, k, v):
        self.k = torch.cat([self.k, k], dim=2)
        self.v = torch.cat([self.v, v], dim=2)
        L, S = q.shape[2], self.k.shape[2]
        seen = torch.ones(L, S).bool().tril(S - L)  # lower right
        return F.scaled_dot_product_attention(
            q, self.k, self.v, attn_mask=seen
        )

    def forward(self, x):
        return self.attention(x)
# --8<-- [end:cache]


# --8<-- [start:generation]
model = Cached()
with attention_weights(model) as maps:
    model(x[:, :3])  # what is given
    for i in range(3, L):  # one token after another
        model(x[:, i : i + 1])
steps = maps["attention"]
for step in steps:
    print(tuple(step.shape))

# side by side in one map, they are those of all tokens at once
rows = [F.pad(step, (0, L - step.shape[-1])) for step in steps]
whole = torch.cat(rows, dim=2)
model.forget()
with attention_weights(model) as maps:
    model(x)
torch.testing.assert_close(whole, maps["attention"])
# --8<-- [end:generation]
assert torch.all(whole.triu(1) == 0)  # guard: nothing_from_the_future
assert len(steps) == 5  # guard: five_calls


def forgetful(q, k, v):
    """As a cache of a window: what was kept and what is new is seen, then W - 1 keys are kept."""
    found = model.extended(q, k, v)
    model.k, model.v = model.k[:, :, 1 - W :], model.v[:, :, 1 - W :]
    return found


model.forget()
model.attention.attend = forgetful
with attention_weights(model) as maps:
    model(x[:, :W])
    for j in range(W, L):
        model(x[:, j : j + 1])
kept = [F.pad(step, (end - step.shape[-1], L - end)) for end, step in zip(range(W, L + 1), maps["attention"], strict=True)]
model.attention.attend = window
with attention_weights(model) as maps:
    model(x)
torch.testing.assert_close(torch.cat(kept, dim=2), maps["attention"])  # guard: dropped_keys_are_on_the_left
model.attention.attend = model.extended
figure("steps", "attention", {"steps": whole[0, 0]}, labels={"queries": list(range(L)), "keys": list(range(L))})

# --8<-- [start:causal_step]
q, k, v = model.attention.heads(x)
step = q[:, :, -1:]  # the newest token
right = F.scaled_dot_product_attention(step, k, v)
wrong = F.scaled_dot_product_attention(step, k, v, is_causal=True)
assert wrong.shape == right.shape
assert not torch.allclose(wrong, right, atol=0.1)
# its only key is the first
torch.testing.assert_close(wrong, v[:, :, :1])
# --8<-- [end:causal_step]

# --8<-- [start:few]
model.forget()
options = {"queries": [-1], "last": True, "dtype": torch.float16}
with attention_weights(model, **options) as maps:
    model(x[:, :3])
    model(x[:, 3:])
print(tuple(maps["attention"].shape), maps["attention"].dtype)
torch.testing.assert_close(
    maps["attention"], whole[:, :, -1:].half()
)
# --8<-- [end:few]


# --8<-- [start:gate]
class Odd(nn.Module):
    """Its weights are no softmax; its softmax gives no weights."""

    def __init__(self):
        super().__init__()
        self.attention = Layer(
            lambda q, k, v: (q @ k.mT / D**0.5).sigmoid() @ v
        )
        self.gate = nn.Linear(E, 3)

    def forward(self, x):
        shares = self.gate(x).softmax(-1)  # over 3 experts
        return self.attention(x) * shares[..., :1]


odd = Odd()
try:
    with attention_weights(odd):
        odd(x)
except RuntimeError as error:
    print(textwrap.fill(str(error), 70))
else:
    raise AssertionError("it was recorded")
# --8<-- [end:gate]



# Rotary positions: pairs of numbers are turned by an angle that grows with the place.
def turned(t):
    angles = torch.arange(L)[:, None] / 10.0 ** torch.arange(D // 2)
    even, odd = t[..., 0::2], t[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


with torch.random.fork_rng():
    rotary = Layer(lambda q, k, v: F.scaled_dot_product_attention(turned(q), turned(k), v))
with attention_weights(rotary) as maps:
    rotary(x)
rotary_q, rotary_k, rotary_v = rotary.heads(x)
unturned = (rotary_q @ rotary_k.mT / D**0.5).softmax(-1)
torch.testing.assert_close(maps[""], (turned(rotary_q) @ turned(rotary_k).mT / D**0.5).softmax(-1))  # guard: heard_with_their_places
assert not torch.allclose(unturned, maps[""], atol=0.1)  # guard: turned_after_the_projections
torch.testing.assert_close(unturned @ rotary_v, F.scaled_dot_product_attention(rotary_q, rotary_k, rotary_v))  # guard: without_places
alike = turned(torch.ones(L, D)) @ turned(torch.ones(L, D)).mT
torch.testing.assert_close(alike[1:, 1:], alike[:-1, :-1])  # guard: turning_knows_distances_only

# --8<-- [start:question]
q, k, _ = sunk_layer.heads(x)
plain = (q @ k.mT / D**0.5).softmax(-1)
again = sunk / sunk.sum(-1, keepdim=True)
torch.testing.assert_close(again, plain)
assert not torch.allclose(again, sunk, atol=0.1)
# --8<-- [end:question]

# What libraries give when asked, beside what capture.py records: compared by `make libraries`, which keeps this record.
import json
import re
from pathlib import Path

record = json.loads((Path(__file__).parents[1] / "libraries.json").read_text(encoding="utf-8"))
entries = record["architectures"]
show("libraries_day", record["day"])
show("libraries_torch", record["torch"])
show("cases", len(entries))
show("packages", len({one["library"] for one in entries}))
show("compared_maps", sum(one["calls"] for one in entries))
of_transformers = [one for one in entries if one["library"] == "transformers"]
generating = [one for one in of_transformers if one["architecture"].endswith(".generate")]
at_once = [one for one in of_transformers if one not in generating]
on_sdpa = [one for one in at_once if "scaled_dot_product_attention" in one["kernel"]]
on_flex = [one for one in at_once if one["kernel"] == ["flex_attention"]]
rows = {
    "sdpa": on_sdpa,
    "written": [one for one in at_once if one not in [*on_sdpa, *on_flex]],
    "flex": on_flex,
    "generate": generating,
    "timm": [one for one in entries if one["library"] == "timm"],
    "open_clip": [one for one in entries if one["library"] == "open_clip_torch"],
    "sam": [one for one in entries if one["library"] == "segment-anything"],
    "diffusers": [one for one in entries if one["library"] == "diffusers"],
    "x": [one for one in entries if one["library"] == "x-transformers"],
}
for name, row in rows.items():
    worst = max(one["greatest_error"] for one in row)
    show(f"{name}_version", row[0]["version"])
    show(f"{name}_models", "; ".join(re.sub(r"\.generate$| on flex_attention$", "", one["architecture"]) for one in row))
    show(f"{name}_error", f"{worst:.0e}" if worst else "0")
assert sum(map(len, rows.values())) == len(entries)  # guard: each_in_one_row
assert max(one["greatest_error"] for one in entries) < record["rounding"]  # guard: equal_to_rounding
moved = [one for one in entries if one["output_error"]]
assert [one["library"] for one in moved] == ["open_clip_torch"]  # guard: outputs_stay
show("open_clip_output", f"{moved[0]['output_error']:.0e}")
show("on_sdpa", len(on_sdpa))
assert {one["asked_as_it_is"] for one in on_sdpa} == {"()"}  # guard: asked_on_sdpa_all_are_silent
assert {one["asked_as_it_is"] for one in on_flex} == {"()"}  # guard: asked_on_flex_all_are_silent
assert {one["asked_as_it_is"] for one in rows["written"]} == {"weights"}  # guard: asked_as_written_all_answer
assert [one["architecture"] for one in entries if one["beyond"]] == ["Swin", "SigLIP"]  # guard: more_than_the_library_gives
assert all(one["greatest_error"] == 0 for one in entries if one["kernel"] == ["softmax"])  # guard: the_models_own
assert record["torch"] == torch.__version__.split("+")[0]  # guard: the_pytorch_of_this_build
