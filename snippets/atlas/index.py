# --8<-- [start:setup]

import torch
from atlas import axes_of, layouts
from convert import convert, from_paper, to_paper
from torch import nn

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H
x = torch.randn(B, L, E)
mha = nn.MultiheadAttention(E, H, batch_first=True).eval()
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
# --8<-- [end:setup]

# --8<-- [start:speechbrain]
names = (
    "SpeechBrain RelPosMHAXL, query is key",
    "SpeechBrain RelPosMHAXL, query is not key")
state = {
    "in_proj_weight": torch.randn(3 * E, E) / 2,
    "out_proj.weight": torch.randn(E, E) / 2}
one, other = (to_paper(state, name, H).attend(x)[0] for name in names)
print(f"outputs up to {(one - other).abs().max():.1f} apart")
assert not torch.allclose(one, other, atol=1)
# --8<-- [end:speechbrain]

# --8<-- [start:quantizable]
from torch.ao.nn.quantizable import MultiheadAttention

theirs = MultiheadAttention(E, H, batch_first=True).eval()
made = convert(mha.state_dict(), "torch", "torch.ao quantizable", H)
theirs.load_state_dict(made, strict=False)
expected, A = mha(x, x, x, average_attn_weights=False)
output, weights = theirs(x, x, x, average_attn_weights=False)
torch.testing.assert_close(weights, A)
assert not torch.allclose(output, expected, atol=1)
# --8<-- [end:quantizable]
show("quantizable", f"{(output - expected).abs().max():.0f}")
turned = MultiheadAttention(E, H).eval()  # batch second, as it was first written
turned.load_state_dict(made, strict=False)
outside = x.transpose(0, 1)
torch.testing.assert_close(turned(outside, outside, outside)[0].transpose(0, 1), expected)  # guard: batch_second_is_right

# --8<-- [start:paddle]
paper = to_paper(mha.state_dict(), "torch", H)
state = from_paper(paper, "Paddle")
bart = to_paper(state, "BART", H)
right = to_paper(state, "Paddle", H)
torch.testing.assert_close(right.attend(x)[0], mha(x, x, x)[0])
difference = (bart.attend(x)[0] - right.attend(x)[0]).abs().max()
print(f"read as BART's: up to {difference:.1f} apart")
assert difference > 1
# --8<-- [end:paddle]

# The table: names and shapes as formulas of E, H, K, D


def formula(roles, axes, grouped):
    """'(3HD, E)'"""
    queries, keys = sum(role in "qo" for role in roles), sum(role in "kv" for role in roles)
    if not (queries and keys):
        heads = f"{queries or keys or ''}{'H' if queries or not grouped else 'K'}".removeprefix("1")
    else:
        heads = "(H+2K)" if grouped else "3H"
    return "(" + ", ".join({"e": "E", "n": heads, "d": "D", "n d": f"{heads}D"}[" ".join(axis)] for axis in axes_of(axes)) + ")"


def names_of(layout):
    """'`q.weight` `k.weight` (HD, E)', tensors of one shape together."""
    by_shape = {}
    for name, part in layout.matrices.items():
        by_shape.setdefault(formula(part.roles, part.axes, layout.grouped), []).append(f"`{name}`")
    return " ".join(f"{' '.join(names)} `{shape}`" for shape, names in by_shape.items())


import json
from pathlib import Path

from atlas import declared

record = json.loads((Path(__file__).parent / "compared.json").read_text(encoding="utf-8"))
# a layout that says something else by now was not compared
current = {name: one for name, one in record["layouts"].items() if name in layouts() and one["of"] == declared(layouts()[name])}
READ = {"nanoGPT", "GGUF", "GGUF, llama"}  # from the source, or the converter's; what is neither was compared by hand


def proof(layout):
    one = current.get(layout.name)
    if one is None:
        return "read" if layout.name in READ else "by hand"
    weights = "" if one["weights"] is None else f", {one['weights']:.0e}"
    return f"{one['output']:.0e}{weights}"


def row(layout):
    order = layout.order.__name__.removesuffix(" qkv")
    turns = f"rotary {layout.rotary}" if layout.rotary else ""
    scale = "" if layout.scale == "1/sqrt(d)" else f"scale {layout.scale}"
    more = ", ".join(filter(None, [turns, scale, *layout.beside]))
    library = f"{layout.library} {layout.version}".strip()
    mask = f"`{layout.mask}`" if layout.mask else ""
    return f"| {layout.name} | {names_of(layout)} | `{order}` | {more} | {mask} | {library} | {proof(layout)} |"


FIRST = ("torch", "transformers")  # then by the alphabet
listed = sorted(layouts().values(), key=lambda one: (one.library not in FIRST, one.library.lower(), one.name.lower()))
show("rows", "\n".join(map(row, listed)))
asks = {one.library: one.asks for one in layouts().values() if one.asks}
show("asks", "\n".join(f"| {library} | `{how}` |" for library, how in sorted(asks.items())))
show("layouts", len(layouts()))
show("day", record["day"])
show("compared", len(current))
show("packages", len({one["package"] for one in current.values()}))
show("with_weights", sum(one["weights"] is not None for one in current.values()))
show("by_hand", len(layouts()) - len(current) - len(READ))
show("read", len(READ))
show("worst", f"{max(one['output'] for one in current.values()):.0e}")
show("least_wrong", f"{min(one['wrong'] for one in current.values() if one['wrong'] is not None):.2f}")
assert len(current) >= 45  # guard: most_are_compared
assert all(one["output"] <= one["bound"] <= 1e-5 for one in current.values())  # guard: within_bounds
assert all(one["wrong"] > 0.01 for one in current.values() if one["wrong"] is not None)  # guard: wrong_readings_differ
show("libraries", len({layout.library for layout in layouts().values()}))
