# --8<-- [start:setup]
import textwrap
import torch
from atlas import layouts
from convert import convert, from_paper, to_paper
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H


def redrawn(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()
# --8<-- [end:setup]


# --8<-- [start:source]
class PerHead(nn.Module):
    """One Linear for all; a head's q, k and v lie together."""

    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(E, 3 * E), nn.Linear(E, E)

    def forward(self, x):  # (B, L, E)
        qkv = self.c_attn(x).unflatten(-1, (H, 3, D))
        q, k, v = qkv.transpose(1, 2).unbind(-2)  # (B, H, L, D)
        z = scaled_dot_product_attention(q, k, v)
        return self.c_proj(z.transpose(1, 2).flatten(2))
# --8<-- [end:source]


# --8<-- [start:convert]
theirs, x = redrawn(PerHead()), torch.randn(B, L, E)
given = theirs.state_dict()
state = convert(given, "GPT-BigCode", "torch", num_heads=H)
mha = nn.MultiheadAttention(E, H, batch_first=True)
print(mha.load_state_dict(state))
torch.testing.assert_close(mha(x, x, x)[0], theirs(x))
# --8<-- [end:convert]

# --8<-- [start:renamed]
names = {
    "c_attn.weight": "in_proj_weight", "c_attn.bias": "in_proj_bias"}
renamed = {
    names.get(name, name.replace("c_proj", "out_proj")): tensor
    for name, tensor in given.items()
}
wrong = nn.MultiheadAttention(E, H, batch_first=True)
print(wrong.load_state_dict(renamed))
assert not torch.allclose(wrong(x, x, x)[0], theirs(x), atol=1)
# --8<-- [end:renamed]

# --8<-- [start:mended]
from dataclasses import replace
from atlas import groups

# the names of nn.MultiheadAttention, its rows head by head
as_it_is = replace(layouts()["torch"], order=groups)
mended = convert(renamed, as_it_is, "torch", num_heads=H)
print(wrong.load_state_dict(mended))
torch.testing.assert_close(wrong(x, x, x)[0], theirs(x))
# --8<-- [end:mended]

# --8<-- [start:back]
again = convert(state, "torch", "GPT-BigCode", num_heads=H)
for name, tensor in given.items():
    assert torch.equal(again[name], tensor)
# --8<-- [end:back]

# --8<-- [start:row]
layout = layouts()["GPT-BigCode"]
for name, part in layout.tensors.items():
    print(f"{name:15} {part.roles:4} {part.axes}")
print(*(f"{role}{head}" for role, head in layout.order(H, H)))
# --8<-- [end:row]

# --8<-- [start:paper]
paper = to_paper(given, "GPT-BigCode", num_heads=H)
print("W_q", tuple(paper.W_q.shape), "W_o", tuple(paper.W_o.shape))
output, A = paper.attend(x)  # (B, L, E), (B, H, L, L)
torch.testing.assert_close(output, theirs(x))
h = 2
rows = given["c_attn.weight"][3 * D * h : 3 * D * h + D]  # (D, E)
assert torch.equal(paper.W_q[h], rows.T)
# --8<-- [end:paper]

of_head = [("q", paper.W_q), ("k", paper.W_k), ("v", paper.W_v)]
by_head = [(role, i, W[i].T) for i in range(H) for role, W in of_head]
by_role = [(role, i, W[i].T) for role, W in of_head for i in range(H)]
figure(
    "rows", "blocks", {"GPT-BigCode": given["c_attn.weight"], "PyTorch": state["in_proj_weight"]},
    labels={"groups": {
        name: [
            {"rows": [n * D, n * D + D], "role": role, "head": i, "text": f"{role}{i}", "of": of}
            for n, (role, i, of) in enumerate(order)
        ]
        for name, order in (("GPT-BigCode", by_head), ("PyTorch", by_role))
    }},
)  # fmt: skip

# --8<-- [start:whole]
model = nn.Sequential(PerHead(), nn.LayerNorm(E), PerHead())
whole = redrawn(model).state_dict()
made = convert(whole, "GPT-BigCode", "torch", num_heads=H)
print(*made, sep="\n")
last = to_paper(made, "torch", num_heads=H, prefix="2.")
torch.testing.assert_close(last.attend(x)[0], model[2](x))
# --8<-- [end:whole]
assert len(made) == len(whole)  # guard: nothing_is_lost

# --8<-- [start:biases]
bert = {
    name: torch.randn(E, E) if "weight" in name else torch.randn(E)
    for name in layouts()["BERT"].tensors
}
whisper = convert(bert, "BERT", "Whisper", num_heads=H)
print(*(name for name in whisper if "bias" in name))
before = to_paper(bert, "BERT", num_heads=H)
after = to_paper(whisper, "Whisper", num_heads=H)
torch.testing.assert_close(after.attend(x), before.attend(x))
# --8<-- [end:biases]
assert before.b_k.any()  # guard: there_was_a_key_bias
assert not after.b_k.any()  # guard: and_it_is_gone

# --8<-- [start:grouped]
K = 2
few = {"query.weight": H, "key.weight": K, "value.weight": K}
few = {name: torch.randn(n * D, E) for name, n in few.items()}
few["output.weight"] = torch.randn(E, E)
more = convert(few, "curated-transformers", "torch", H, K)
print(*few["key.weight"].shape, "->", *more["in_proj_weight"].shape)
mha.load_state_dict(more)
grouped = to_paper(few, "curated-transformers", H, K)
torch.testing.assert_close(mha(x, x, x)[0], grouped.attend(x)[0])
# --8<-- [end:grouped]
key_rows = more["in_proj_weight"][E : 2 * E].unflatten(0, (H, D))
for h in (2, 3):
    assert torch.equal(key_rows[h], few["key.weight"][D:])  # guard: neighbours_read_one_head
tiled = few["key.weight"].unflatten(0, (K, D)).repeat(2, 1, 1)
assert tiled.shape == key_rows.shape  # guard: tiled_has_the_shape
assert not torch.equal(tiled[2], key_rows[2])  # guard: tiled_is_another_head

# --8<-- [start:refused]
llama = {name: torch.randn(E, E) for name in (
    "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")}
asked = [
    (given, "torch", H), (given, "GPT-BigCode", 5), (llama, "LLaMA", H)]
for tensors, source, heads in asked:
    try:
        convert(tensors, source, "torch", heads)
    except ValueError as error:
        print(textwrap.fill(str(error), 72), end="\n\n")
    else:
        raise AssertionError(f"{source} was taken")
# --8<-- [end:refused]

# --8<-- [start:linears]
from refit import FourLinears

four = FourLinears(mha)
print(*(n for n, m in four.named_modules() if type(m) is nn.Linear))
hidden = torch.tensor([[False] * L, [False] * 3 + [True] * 2])
torch.testing.assert_close(
    four(x, x, x, hidden)[0],
    mha(x, x, x, key_padding_mask=hidden)[0])
# --8<-- [end:linears]

# --8<-- [start:lora]
from refit import fuse_lora, split_lora

r, alpha = 2, 3.0
parts = {role: (torch.randn(r, E), torch.randn(E, r)) for role in "qkv"}
wide_A, wide_B, factor = fuse_lora(parts, "torch", H)
wide = wide_B @ wide_A * (factor * alpha / len(wide_A))
change = torch.cat([b @ a * (alpha / r) for a, b in parts.values()])
torch.testing.assert_close(wide, change)
print(f"rank {r} each, {len(wide_A)} together, alpha {factor} times")
halves = split_lora(wide_A, wide_B, "torch", H)
for role, of_role in zip("qkv", change.chunk(3), strict=True):
    _, b = halves[role]
    torch.testing.assert_close(b @ wide_A * (alpha / r), of_role)
# --8<-- [end:lora]
assert torch.linalg.matrix_rank(change) == 3 * r  # guard: less_would_not_do

# --8<-- [start:ranks]
from refit import shard

output, _ = grouped.attend(x)
sharded = [shard(grouped, rank, 4) for rank in range(4)]
total = sum(part.attend(x)[0] for part in sharded)
torch.testing.assert_close(total, output)
print("keys of a rank", tuple(sharded[0].W_k.shape))
# --8<-- [end:ranks]
for rank in (2, 3):
    assert torch.equal(sharded[rank].W_k[0].T, few["key.weight"][D:])  # guard: neighbours_share_a_head

# --8<-- [start:real]
from copy import deepcopy
from compare_models import check
from detective import find
from reactions import REACTIONS
from trained import rxnmapper, rxnmapper_files

stored, _ = rxnmapper_files()
(found,) = find({n: t.shape for n, t in stored.items()}, num_heads=8)
print(found.prefix, *found.readings[0].layouts)
made = convert(stored, "ALBERT", "torch", num_heads=8)
ours = nn.MultiheadAttention(256, 8, batch_first=True)
ours.load_state_dict({
    name: made[found.prefix + name] for name in ours.state_dict()})

model = rxnmapper().double()
with_ours = deepcopy(model)
for layer in with_ours.layers:
    layer.self_attn = ours.eval()
for reaction, _ in REACTIONS.values():
    ids = model.ids(model.split(reaction))
    assert check(with_ours, model, ids, tolerance=1e-12)
# --8<-- [end:real]
show("reactions", len(REACTIONS))
# the twin: queries and keys change places, which no shape tells
swapped = {n: made[found.prefix + n].clone() for n in ours.state_dict()}
swapped["in_proj_weight"] = swapped["in_proj_weight"][torch.arange(768).unflatten(0, (3, 256))[[1, 0, 2]].flatten()]
ours.load_state_dict(swapped)
report = check(with_ours, model, ids, layers=("layers.?", "layers.?"))
assert not report  # guard: swapped_is_another
assert report.parts_at == "layers.0 and layers.0"  # guard: at_the_first_layer
show("swapped", f"{report.error:.1f}")

# --8<-- [start:list]
for name, one in layouts().items():
    order = one.order.__name__.removesuffix(" qkv")
    order = f"{order}, K < H" if one.grouped else order
    more = ", ".join(filter(None, [one.rotary, *one.beside]))
    print(f"{name:42}{order:16}{more}".rstrip())
# --8<-- [end:list]

# Every layout's layer as its library writes it, beside the paper's: no function of convert.py is used for the first.
import math

from atlas import shapes_of
from torch.nn import functional as F


def projected(x, weight, axes):
    """x (B, L, E) by a matrix of those axes: (B, L, n * D)."""
    if axes == "(n d) e":
        return F.linear(x, weight)
    if axes == "e (n d)":
        return x @ weight
    return torch.einsum({"e n d": "ble,end->blnd", "n e d": "ble,ned->blnd"}[axes], x, weight).flatten(2)


def turned(x, rotary):
    """Rotary embedding, by halves as transformers writes it, and in pairs as Meta does, by complex numbers."""
    angles = torch.outer(torch.arange(L, dtype=x.dtype), 10000.0 ** (-torch.arange(0, D, 2) / D))
    if rotary == "half":
        a, b = x.chunk(2, -1)
        wide = torch.cat([angles, angles], -1)
        return x * wide.cos() + torch.cat([-b, a], -1) * wide.sin()
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def split(fused, layout, K):
    """(B, L, rows) -> q, k, v (B, L, heads, D), by views."""
    if layout.order is groups:
        each = fused.unflatten(-1, (K, H // K + 2, D))
        return each[..., :-2, :].flatten(2, 3), each[..., -2, :], each[..., -1, :]
    if layout.name == "CodeGen":
        q, v, k = fused.unflatten(-1, (4, -1)).chunk(3, -1)
        return [part.flatten(2).unflatten(-1, (-1, D)) for part in (q, k, v)]
    return [part.unflatten(-1, (-1, D)) for part in fused.split([H * D, K * D, K * D], -1)]


def in_its_own_way(layout, state, x, K):
    parts, biases = {}, {}
    for name, part in layout.tensors.items():
        if part.roles == "o":
            continue
        if "e" not in part.axes:
            biases[part.roles] = state[name].flatten()
            continue
        fused = projected(x, state[name], part.axes)
        fused = fused + sum(state[n].flatten() for n, p in layout.tensors.items() if p.roles == part.roles and "e" not in p.axes)
        if part.roles == "qkv":
            parts |= zip("qkv", split(fused, layout, K), strict=True)
        else:
            parts |= zip(part.roles, (p.unflatten(-1, (-1, D)) for p in fused.chunk(len(part.roles), -1)), strict=True)
    whole = {part.roles for part in layout.tensors.values() if "e" in part.axes}
    for roles, bias in biases.items():  # of other parts than the weights: in_proj_bias beside q_proj_weight
        if roles not in whole:
            for role, vector in zip(roles, bias.view(-1, D).split([H if r == "q" else K for r in roles]), strict=True):
                parts[role] = parts[role] + vector
    q, k, v = (parts[role].transpose(1, 2) for role in "qkv")
    if layout.rotary:
        q, k = turned(q, layout.rotary), turned(k, layout.rotary)
    k, v = (t.repeat(1, H // K, 1, 1) if layout.tiled else t.repeat_interleave(H // K, 1) for t in (k, v))
    scale = {"1/sqrt(d)": D**-0.5, "1/sqrt(e)": E**-0.5, "1": 1.0}[layout.scale]
    z = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)  # (B, L, H, D)
    ((name, axes),) = ((n, p.axes) for n, p in layout.tensors.items() if p.roles == "o" and "n" in p.axes)
    formula = {"e (n d)": "blm,em->ble", "(n d) e": "blm,me->ble", "e n d": "blhd,ehd->ble", "n d e": "blhd,hde->ble"}
    output = torch.einsum(formula[axes], z.flatten(2) if "(" in axes else z, state[name])
    return output + sum(state[n] for n, p in layout.tensors.items() if p.axes == "e")


worst, least, misread = 0.0, math.inf, 0
for layout in layouts().values():
    K = 1 if layout.one else 2 if layout.grouped else H
    state = {name: torch.randn(shape) / 2 for name, shape in shapes_of(layout, E, H, K).items()}
    paper = to_paper(state, layout, H, K)
    output, _ = paper.attend(x)
    own = in_its_own_way(layout, state, x, K)
    torch.testing.assert_close(output, own)  # guard: every_layout_is_the_papers
    for name, tensor in from_paper(paper, layout).items():
        assert torch.equal(tensor, state[name])  # guard: there_and_back_bit_for_bit
    if layout.misread:
        wrong, _ = to_paper(state, replace(layout, **layout.misread), H, K).attend(x)
        assert not torch.allclose(wrong, output, atol=0.5)  # guard: the_wrong_reading_differs
        least, misread = min(least, (wrong - output).abs().max().item()), misread + 1
    worst = max(worst, (output - own).abs().max().item())
assert worst < 1e-12  # guard: to_rounding
show("layouts", len(layouts()))
show("libraries", len({layout.library for layout in layouts().values()}))
show("misread", misread)
show("least_wrong", f"{least:.1f}")
