# --8<-- [start:setup]
import os
import re
import tempfile
from pathlib import Path

import torch
from atlas import layouts
from convert import to_paper
from detective import find, lines
from headers import header
from torch import nn

torch.manual_seed(0)
E, H = 24, 4
D = E // H
# --8<-- [end:setup]

# --8<-- [start:ask]
encoder = nn.TransformerEncoder(
    nn.TransformerEncoderLayer(E, H, batch_first=True), num_layers=2)
state = encoder.state_dict()
shapes = {name: tensor.shape for name, tensor in state.items()}
(layer,) = find(shapes, num_heads=H)
print(*lines(layer, head=2), sep="\n")
# --8<-- [end:ask]
assert layer.sure  # guard: one_reading
assert layer.number == 2  # guard: both_layers

# --8<-- [start:where]
paper = to_paper(state, "torch", H, prefix=layer.prefix)
for role in "qkvo":
    expression = layer.where(role, 2, H)
    print(expression)
    matrix = eval(expression, {"state": state})
    assert torch.equal(matrix, getattr(paper, f"W_{role}")[2])
# --8<-- [end:where]

# --8<-- [start:several]
neox = {
    "layers.0.attention.query_key_value.weight": (3 * E, E),
    "layers.0.attention.dense.weight": (E, E),
}
(layer,) = find(neox, num_heads=H)
for reading in layer.readings:
    print(*reading.layouts, "->", layer.where("k", 0, H, reading))
config = {"model_type": "gpt_neox", "num_attention_heads": H}
(told,) = find(neox, config)
print(*told.readings[0].layouts, "->", told.where("k", 0, H))
# --8<-- [end:several]
assert len(layer.readings) > 1  # guard: names_do_not_tell
assert told.sure  # guard: the_config_tells

# --8<-- [start:headers]
folder = Path(tempfile.mkdtemp())
torch.save(state, folder / "encoder.pt")
tensors, config = header(folder / "encoder.pt")
print(len(tensors), "tensors,", config or "no config.json")
assert tensors == {name: tuple(t.shape) for name, t in state.items()}
# --8<-- [end:headers]


# --8<-- [start:attack]
class Attack:
    def __reduce__(self):
        return (os.mkdir, (folder / "ran",))


torch.save(state | {"more": Attack()}, folder / "attack.pt")
try:
    header(folder / "attack.pt")
except ValueError as error:
    print(*re.findall(r"GLOBAL \S+", str(error)))
else:
    raise AssertionError("what is no tensor was taken")
assert not (folder / "ran").exists()
# --8<-- [end:attack]
torch.load(folder / "attack.pt", weights_only=False)
assert (folder / "ran").exists()  # guard: without_it_the_file_acts


# --8<-- [start:numbers]
from convert import convert
from detective_numbers import numbers
from trained import rxnmapper_files

stored, _ = rxnmapper_files()
(layer,) = find({n: t.shape for n, t in stored.items()})
print(*layer.readings[0].layouts, layer.num_heads)
counted = numbers(layer, stored)
print(*counted, sep="\n")
to = "curated-transformers, split before"
packed = convert(stored, "ALBERT", to, num_heads=8)
(layer,) = find({n: t.shape for n, t in packed.items()}, num_heads=8)
print(*(reading.layout.order.__name__ for reading in layer.readings))
cut = numbers(layer, packed)
print(*cut, sep="\n")
# --8<-- [end:numbers]
from atlas import bias_of

assert "number of heads: 8 " in counted[0]  # guard: heads_are_counted
(apart,) = find({n: t.shape for n, t in stored.items()})
its_output = apart.names["o"]
assert numbers(apart, stored | {its_output: stored[its_output].T})[0] == counted[0]  # guard: counted_with_a_turned_output
assert "(h t d)" in cut[0]  # guard: the_order_is_told
renamed = {"in_proj_weight": packed[layer.names["qkv"]], "out_proj.weight": packed[layer.names["o"]]}
(believed,) = find({n: t.shape for n, t in renamed.items()}, num_heads=8)
assert [one.layout.order.__name__ for one in believed.readings] == ["blocks qkv"]  # guard: names_may_be_wrong
disagreeing = numbers(believed, renamed)
assert "(h t d)" in disagreeing[0]  # guard: the_numbers_disagree
assert any("names say otherwise" in line for line in disagreeing)  # guard: which_is_told
# under names of nobody's: what it writes is Python, and converts the file back
weights = {"qkv.weight": layer.names["qkv"], "out.weight": layer.names["o"]}
nobodys = {new: packed[old] for new, old in weights.items()}
nobodys |= {bias_of(new): packed[bias_of(old)] for new, old in weights.items()}
(unknown,) = find({n: t.shape for n, t in nobodys.items()})
told = numbers(unknown, nobodys)
assert told[0] == "  by the numbers, number of heads: 8"  # guard: packed_heads_are_counted
scope = {"state": nobodys}
exec("\n".join(told[next(n for n, line in enumerate(told) if line.startswith("from atlas")) :]), scope)
original = convert(stored, "ALBERT", "torch", num_heads=8)
(prefix,) = {name.removesuffix("in_proj_weight") for name in original if name.endswith("in_proj_weight")}
assert len(scope["made"]) == 4
for name, tensor in scope["made"].items():
    assert torch.equal(tensor, original[prefix + name])  # guard: the_layout_it_writes
q, k, v = nobodys["qkv.weight"].unflatten(0, (8, 3, -1)).unbind(1)
exchanged = nobodys | {"qkv.weight": torch.stack([k, q, v], 1).flatten(0, 2)}
assert numbers(unknown, exchanged) == told  # guard: queries_for_keys
turned = nobodys | {"out.weight": nobodys["out.weight"].T}
seen = numbers(unknown, turned)
assert any("o (in, out)" in line for line in seen)  # guard: a_turned_output
assert '"out.weight": Part("o", "(n d) e")' in "\n".join(seen)  # guard: which_is_written

# --8<-- [start:all]
from atlas import shapes_of

alone, several = 0, {}
for name, layout in layouts().items():
    K = 1 if layout.one else 2 if layout.grouped else H
    shapes = dict.fromkeys(layout.signs, (D,))
    shapes |= shapes_of(layout, E, H, K)
    found = find(shapes, num_heads=H)
    if not found:
        print("no names of its own:", name)
        continue
    readings = [reading.layouts for reading in found[0].readings]
    assert any(name in reading for reading in readings)
    alone += len(readings) == 1
    several.setdefault(str(readings), readings)
for readings in several.values():
    if len(readings) > 1:
        print(*(", ".join(one) for one in readings), sep="  |  ")
# --8<-- [end:all]
show("alone", alone)
show("layouts", len(layouts()))

# --8<-- [start:question]
shapes = {"c_attn.weight": (3 * E, E), "c_proj.weight": (E, E)}
(layer,) = find(shapes, num_heads=H)
for reading in layer.readings:
    print(*reading.layouts, "->", layer.where("q", 1, H, reading))
shapes["c_attn.weight"] = (E, 3 * E)
(layer,) = find(shapes, num_heads=H)
print(*layer.readings[0].layouts, "->", layer.where("q", 1, H))
# --8<-- [end:question]
assert layer.sure  # guard: turned_it_is_gpt_2
assert layer.readings[0].layouts == ("GPT-2",)  # guard: turned_it_has_one_name

import json

# All model types of transformers: a record that `make libraries` makes
record = json.loads((Path(__file__).parents[1] / "model_types.json").read_text(encoding="utf-8"))
with_attention = record["named"] + len(record["missed"])
for name in ("day", "transformers", "types", "built", "named"):
    show(f"types_{name}", record[name])
show("with_attention", with_attention)
show("missed", ", ".join(record["missed"]))
show("extra", ", ".join(record["named_without_attention"]))
show("packed", len(record["packed"]))
assert record["named"] / with_attention > 0.97  # guard: nearly_all_are_named
assert set(record["packed"].values()) <= {"blocks qkv", "groups", "shards 4 qvk"}  # guard: orders_that_were_read

# What the explorer reads: the same layouts and the same words for names
from attention_names import FILLERS, HALVES, HEADS, OUT, ROLES, WHOLE

show(
    "atlas",
    json.dumps({
        "names": {
            "fillers": sorted(FILLERS), "whole": sorted(WHOLE), "out": OUT.pattern, "heads": HEADS, "halves": HALVES,
            "roles": {role: sorted(words) for role, words in ROLES.items()},
        },
        "layouts": [
            {
                "name": one.name, "library": one.library, "order": one.order.__name__, "grouped": one.grouped,
                "one": one.one, "tiled": one.tiled,
                "tensors": [[name, part.roles, part.axes] for name, part in one.tensors.items()],
                "rotary": one.rotary, "scale": one.scale, "beside": one.beside, "mask": one.mask, "models": one.models,
                "signs": one.signs,
            }
            for one in layouts().values()
        ],
    }),
)  # fmt: skip
