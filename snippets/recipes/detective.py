"""Which layout a checkpoint has, from the names and shapes of its tensors: no number is read, nothing is loaded.

    tensors, config = header("model.safetensors")  # {name: shape}, and config.json beside it
    for layer in find(tensors, config):
        print(layer.prefix, layer.number, [reading.layouts for reading in layer.readings])
        print(layer.where("q", 2, num_heads=12))  # state["..."][24:36].T

One reading: names and shapes allow no other that atlas.py knows. Several: they do not tell, and what does is said.
The browser's detective has the same rules and the same layouts. Needs headers.py, attention_layer.py,
attention_names.py, atlas.py and layouts_*.py beside it; with --numbers also detective_numbers.py and convert_file.py.
"""

import argparse
import re

from atlas import Layout, Part, axes_of, bias_of, blocks, groups, layouts
from attention_layer import Layer, Reading, sizes
from attention_names import Shapes, heads_in, heads_said, stem
from attention_names import layers as layers_of

COMMON = ("torch", "transformers")  # named first
ELSEWHERE = {
    "query_key_value",  # of GLM and of old Megatron files too, in other orders
    "qkv_proj",  # of much code written by hand, head by head or in blocks
}


def fits(layout: Layout, main: str, tensors: Shapes) -> str | None:
    """What the names begin with, if all matrices of a layout are there; main: the tensor of the queries."""
    first = next(name for name, part in layout.matrices.items() if "q" in part.roles)
    base = main.removesuffix(first)
    if not main.endswith(first) or (base and base[-1] not in "./"):
        return None
    if any(len(tensors.get(base + name, ())) != len(axes_of(part.axes)) for name, part in layout.matrices.items()):
        return None
    of = {part.roles: sizes(part.axes, tensors[base + name]) for name, part in layout.matrices.items()}
    width = of["o"]["nd"]
    if "qkv" in of:
        rows = of["qkv"]["nd"]
        fitting = (rows == 3 * width and not layout.one) or (layout.grouped and width < rows < 3 * width)
    elif "kv" in of:
        fitting = of["q"]["nd"] == width and of["kv"]["nd"] == 2 * width
    else:
        q, k, v = (of[role]["nd"] for role in "qkv")
        fitting = q == width and k == v and (k == q or (layout.grouped and q % k == 0))
    return base if fitting else None


def one_width(layout: Layout, base: str, tensors: Shapes) -> bool:
    """Whether queries, keys, values and output are read as of one width: what comes from elsewhere may have another."""
    return len({sizes(part.axes, tensors[base + name])["e"] for name, part in layout.matrices.items()}) == 1


def biases_agree(layout: Layout, base: str, tensors: Shapes) -> bool:
    """Whether the layer has the biases of the layout and no other, or none at all."""
    declared = layout.tensors.keys() - layout.matrices.keys()
    other = set(map(bias_of, layout.tensors))
    return {name for name in declared | other if base + name in tensors} in (declared, set())


def readings_of(layer: Layer, tensors: Shapes, model_type: str) -> list[Reading]:
    main = layer.names.get("q") or layer.names["qkv"]
    there = sorted(layouts().values(), key=lambda one: COMMON.index(one.library) if one.library in COMMON else len(COMMON))
    found = [(one, base) for one in there if (base := fits(one, main, tensors)) is not None]
    signed = [(one, base) for one, base in found if one.signs and all(base + sign in tensors for sign in one.signs)]
    found = signed or [(one, base) for one, base in found if not one.signs]
    found = [(one, base) for one, base in found if model_type in one.models] or found
    narrow = [(one, base) for one, base in found if one_width(one, base, tensors)]
    either = usual(layer)
    plain = [reading for reading in either if one_width(reading.layout, "", tensors)]
    if found and plain and not narrow:
        return plain
    found = narrow or found
    found = [(one, base) for one, base in found if biases_agree(one, base, tensors)] or found
    merged: dict[tuple, Reading] = {}
    for one, base in found:
        reading = Reading(one, base, (one.name,))
        axes = [(name, part.axes) for name, part in sorted(one.matrices.items())]
        try:
            key = (order_of(layer, reading), base, *axes)
        except ValueError:
            continue
        before = merged[key].layouts if key in merged else ()
        merged[key] = Reading(one, base, (*before, one.name))
    known = sorted(merged.values(), key=lambda reading: -len(reading.layouts))
    if known and "o" not in layer.names:  # under a name that the layout alone knows
        one = known[0]
        name = next(one.base + name for name, part in one.layout.matrices.items() if part.roles == "o")
        layer.names["o"], layer.shapes[name] = name, tensors[name]
    decided = known and not unexplained(layer, known[0], tensors)
    if decided and (stem(main)[1] not in ELSEWHERE or any(model_type in one.models for one, _ in found)):
        return known
    there = {order_of(layer, reading) for reading in known}
    return [*known, *(reading for reading in either if order_of(layer, reading) not in there)]


def unexplained(layer: Layer, reading: Reading, tensors: Shapes) -> bool:
    """Whether a packed matrix has company that its layout knows nothing of: then it may be another layer's."""
    names = [name for name, shape in tensors.items() if name.startswith(layer.prefix) and len(shape) > 1]
    own = {reading.base + name for name in reading.layout.tensors}
    return "qkv" in layer.names and any(name not in own and not re.search("rel|pos|bias|scale", name) for name in names)


def order_of(layer: Layer, reading: Reading) -> str:
    """What tells two orders apart: the heads themselves if their number is known. Apart, heads lie in one order only."""
    apart = "qkv" not in layer.names
    if apart and (not reading.layout.tiled or len({layer.size(reading, role, "nd") for role in ("q", "k")}) == 1):
        return ""
    if not layer.num_heads:
        return reading.layout.order.__name__
    K, _ = layer.heads_of_keys(reading, layer.num_heads)
    if reading.layout.one and K > 1:
        raise ValueError(f"{reading.layout.name}: expected one head of keys, got {K}")
    return str(reading.layout.order(layer.num_heads, K))


def usual(layer: Layer) -> list[Reading]:
    """What such matrices are where no layout has their names: apart, in one way; together, in at least two."""

    packed = layer.shapes.get(layer.names.get("qkv"), ())
    turned = len(packed) == 2 and packed[1] == 3 * packed[0]  # (E, 3E), as in GPT-2

    def part(role, name):
        kernel = turned or name.endswith(("kernel", "/w", ".w"))
        if len(layer.shapes[name]) == 3:
            return Part(role, "n d e" if role == "o" and kernel else "e n d")
        return Part(role, "(n d) e" if kernel == (role == "o") else "e (n d)")

    tensors = {name: part(role, name) for role, name in layer.names.items()}
    orders = [blocks(), groups] if "qkv" in layer.names else [blocks()]
    return [Reading(Layout("", "", tensors, order, grouped=True), "") for order in orders]


def find(tensors: Shapes, config: dict | None = None, num_heads: int | None = None) -> list[Layer]:
    """The attention layers of a checkpoint, those that are alike as one.

    tensors: {name: shape}. config: what config.json beside the file says. num_heads: if you know it.
    """
    tensors, config = {name: tuple(shape) for name, shape in tensors.items()}, config or {}
    kinds: dict[tuple, Layer] = {}
    for prefix, names in layers_of(tensors).items():
        shapes = {name: tensors[name] for name in names.values()}
        there = tuple(sorted(name[len(prefix) :] for name in tensors if name.startswith(prefix)))
        kind = (re.sub(r"\d+", "#", prefix), *names, *shapes.values(), there)
        if kind in kinds:
            kinds[kind].alike.append(names)
            continue
        layer = kinds[kind] = Layer(prefix, names, shapes, alike=[names])
        if "low rank" in names:
            continue
        layer.num_heads = num_heads or heads_said(config, prefix, next(iter(shapes.values()))) or heads_in(prefix, names, tensors)
        if layer.num_heads:  # or it is that of another part of the model
            try:
                layer.heads_of_keys(usual(layer)[0], layer.num_heads)
            except ValueError:
                layer.num_heads = None
        layer.readings = readings_of(layer, tensors, config.get("model_type", ""))
    return list(kinds.values())


def lines(layer: Layer, num_heads: int | None = None, head: int = 0) -> list[str]:
    """What is to be said of a layer, for a terminal."""
    told = [f"{layer.number} layer(s) like {layer.prefix or 'the only one'}"]
    told += [f"    {roles:4} {name[len(layer.prefix) :] if name.startswith(layer.prefix) else name}  {layer.shapes[name]}"
             for roles, name in layer.names.items()]  # fmt: skip
    if not layer.readings:
        return [*told, "  keys and values come out of one matrix of low rank: no head has a W_k (E, D) of its own"]
    H = layer.num_heads
    if num_heads and num_heads != H:
        told.append(f"  {num_heads} heads do not fit these shapes")
    if not layer.sure:
        told.append("  names and shapes allow several readings; config.json beside the file, or the numbers, can tell:")
    for reading in layer.readings:
        known = ", ".join(reading.layouts) or "no layout of the atlas has these names"
        order = reading.layout.order.__name__
        told.append(f"  {known}{f' ({order})' if 'qkv' in layer.names else ''}")
        if H:
            told += [f"    W_{role} of head {head}: {layer.where(role, head, H, reading)}" for role in "qkv"]
        told += [f"    {note}" for note in notes(reading)]
        if reading.layouts:
            K = f", num_key_value_heads={layer.heads_of_keys(reading, H)[0]}" if H and reading.layout.grouped else ""
            for name in one_a_rotary(reading):
                alone = not (layouts()[name].rotary or layouts()[name].beside)  # torch has no place for pairs, norms, sinks
                call, to, within = ("convert", ', "torch"', "") if alone else ("to_paper", "", f', prefix="{reading.base}"')
                told.append(f'    {call}(state, "{name}"{to}, num_heads={H or "..."}{K}{within})')
    if not H and not num_heads:
        told.append("  the number of heads is not in the file: --heads H, or config.json beside it")
    return told


def one_a_rotary(reading: Reading) -> list[str]:
    """A layout of each kind of rotary pairs, among those that read so: matrices are theirs alike, the function is not."""
    kinds: dict[str, str] = {}
    for name in reading.layouts:
        kinds.setdefault(layouts()[name].rotary, name)
    return list(kinds.values())


def nothing(tensors: Shapes) -> str:
    """Why no attention was found, where names tell it."""
    ends = {
        "LoRA": "lora_[AB]|lora_(up|down)", "quantised": "qweight|scales|absmax|weight_packed",
        "wrapped": "base_layer|_fsdp_wrapped_module|_checkpoint_wrapped_module|_?flat_param",
    }  # fmt: skip
    there = {kind: next((name for name in tensors if re.search(rf"(^|[._])({end})($|[._])", name)), "") for kind, end in ends.items()}
    found = [f"{kind}: {name}" for kind, name in there.items() if name]
    return f"no attention found among {len(tensors)} tensors{''.join(f'; {one}' for one in found)}"


def notes(reading: Reading) -> list[str]:
    """What the matrices do not say, of the layouts that read so."""
    there = [layouts()[name] for name in reading.layouts]
    told = []
    if len(rotary := {one.rotary or "none" for one in there}) > 1 or rotary - {"none"}:
        each = ", ".join(f"{one.name}: {one.rotary or 'none'}" for one in there)
        told.append(f"rotary pairs  {each}")
    for one in there:
        if one.beside or one.scale != "1/sqrt(d)":
            scale = [f"scale {one.scale}"] if one.scale != "1/sqrt(d)" else []
            told.append(f"{one.name} also has  {', '.join([*scale, *one.beside])}")
    return told


if __name__ == "__main__":
    from headers import header

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a checkpoint; config.json beside it is read too")
    parser.add_argument("--heads", type=int, help="the number of heads, if no file says it")
    parser.add_argument("--head", type=int, default=0, help="the head to be found")
    parser.add_argument("--numbers", action="store_true", help="read the numbers too, and say what training left in them")
    asked, OTHERWISE = parser.parse_args(), None
    if asked.heads is not None and asked.heads < 1:
        parser.error(f"--heads: expected 1 or more, got {asked.heads}")
    if asked.heads and not 0 <= asked.head < asked.heads:
        parser.error(f"--head: expected 0 to {asked.heads - 1}, got {asked.head}")
    try:
        if asked.numbers:
            from convert_file import read
            from detective_numbers import OTHERWISE, numbers

            state, config = read(asked.file)
            tensors = {name: tensor.shape for name, tensor in state.items()}
        else:
            tensors, config = header(asked.file)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")
    found = find(tensors, config, asked.heads)
    told = []
    for layer in found:
        here, more = lines(layer, asked.heads, asked.head), []
        if asked.numbers and layer.readings:
            more = numbers(layer, state)
        if OTHERWISE in more:  # then what was read off the names would be wrong
            here = [line for line in here if not re.search(r"(convert|to_paper)\(|W_[qkv] of", line)]
        told += [*here, *more]
    print(*told or [nothing(tensors)], sep="\n")
