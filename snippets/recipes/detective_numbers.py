"""What the numbers of a file say where the detective finds several readings, or no number of heads.

    (layer,) = find({name: tensor.shape for name, tensor in state.items()})
    print(*numbers(layer, state), sep="\\n")  # by the numbers, number of heads: 12 (z 29.4)

Needs layout_trace.py, atlas.py and attention_layer.py beside it, and PyTorch.
"""

from itertools import takewhile

from atlas import bias_of
from attention_layer import Layer
from layout_trace import Verdict, decide, heads, orders, orientation, packing, relation, rotary, together

# the orders of atlas.py as layout_trace.py writes them: t which of the three, h the head, d the number in it
ROWS = {"blocks qkv": "(t h d)", "groups": "(h t d)"}
AXES = {"(out, in)": ("(n d) e", "e (n d)"), "(in, out)": ("e (n d)", "(n d) e")}  # of q, k and v; of o
LEAD = 3  # how many times as sure a number of heads has to be as any other
OTHERWISE = "  the names say otherwise: packed in another order or turned, then renamed? Do not convert by the names"


def numbers(layer: Layer, state: dict, num_heads: int | None = None) -> list[str]:
    """What the numbers of trained layers say, all that are alike together; layout_trace.py says how, and how often it is right."""
    H = num_heads or layer.num_heads
    every = [{role: state[name].float() for role, name in names.items()} for names in layer.alike]
    told: list[str] = []
    width = max(next(iter(every[0].values())).shape)
    width = width // 3 if "qkv" in layer.names and width % 3 == 0 else width
    if H and not 1 < H < width:
        return [f"  by the numbers: rows of {H} head(s) in a width of {width} have nothing to be compared with"]
    if H and width % H:
        return [f"  by the numbers: {H} heads do not fit a width of {width}"]
    if "qkv" in layer.names:
        turned = every[0]["qkv"].shape[0] < every[0]["qkv"].shape[-1]
        packed = [one["qkv"].T if turned else one["qkv"] for one in every if one["qkv"].dim() == 2]
        outs = [one.get("o") for one in every]
        if not packed or any(len(one) != 3 * one.shape[1] for one in packed):
            return told
        if not H and (H := counted(packed) or counted_in_blocks(packed, outs)):
            told.append(f"  by the numbers, number of heads: {H}")
        if not H:
            return ["  by the numbers, number of heads: cannot be told"]
        found, lines = answered("order of its rows", [packing(one, H) for one in packed])
        told += lines
        if found:
            own = [rows_of(one, found, H) for one in packed]
            way, lines = answered("orientation of its output", sides(own, outs, H, ["(out, in)"]))
            told += [*lines, *verdict(layer, state, found, H, turned, way and way.split("; o ")[1])]
    elif {"q", "k", "v", "o"} <= set(layer.names) and all(one[role].dim() == 2 for one in every for role in "qkvo"):
        square = all(one[role].shape == (len(one["q"]),) * 2 for one in every for role in "qkvo")
        if H and square:
            found, lines = answered("orientation of q and k", [orientation(one["q"], one["k"], H) for one in every])
            way, more = answered("orientation of v and o", sides([(0, 0, one["v"]) for one in every], [one["o"] for one in every], H, AXES))
            told += [*lines, *more]
            v, o = way.removeprefix("v ").split("; o ") if way else (None, None)
            said = {role: AXES[side][role == "o"] for role, side in (("q", found), ("v", v), ("o", o)) if side}
            fits = [all(one.part(layer.names[role]).axes == axes for role, axes in said.items()) for one in layer.readings]
            told += [OTHERWISE] * (any(layer.readings) and not any(fits))
        if not H and square and len([n for n in range(2, width // 4 + 1) if width % n == 0]) > 1:
            told.append(line("number of heads", heads_either_way([[one[role] for role in "qkvo"] for one in every])))
        if H and (len(every[0]["q"]) // H) % 2 == 0:
            told += answered("rotary pairs", [rotary(one["q"], one["k"], H) for one in every])[1]
    return told


def line(question: str, found) -> str:
    return f"  by the numbers, {question}: {found.answer if found.sure else 'cannot be told'} (z {found.z:.1f})"


def answered(question: str, verdicts: list) -> tuple:
    """(the answer of all layers together, None where it is not sure or layers contradict it; what is to be said)."""
    if not verdicts:
        return None, []
    found = together(verdicts)
    told = [line(question, found)]
    others = [n for n, one in enumerate(verdicts) if one.sure and one.answer != found.answer]
    if others:
        some = f"{len(others)} of {len(verdicts)} layers say otherwise, number {others[0]} first"
        told.append(f"  but by themselves {some}: no single layout")
    return (found.answer if found.sure and not others else None), told


def rows_of(packed, answer: str, H: int) -> tuple:
    """q, k and v (E, E) of a packed matrix (3E, E) in that order."""
    return tuple(packed[rows] for rows in orders(H, packed.shape[1] // H)[answer])


def sides(own: list, outs: list, H: int, of_values) -> list:
    """A verdict for each layer: how v and o are stored, of the ways that v may be."""
    found = []
    for (_, _, v), o in zip(own, outs, strict=True):
        if o is None or o.shape != v.shape:
            return []
        D = len(v) // H
        ways = {f"v {a}; o {b}": relation(v if a == "(out, in)" else v.T, o.T if b == "(out, in)" else o, D) ** 2
                for a in of_values for b in AXES}  # fmt: skip
        found.append(decide(ways))
    return found


def counted(packed: list) -> int | None:
    """The number of heads of matrices [(3E, E)] that are packed head by head: one that is far surer than all others."""
    E = packed[0].shape[1]
    tried = {H: together([packing(one, H) for one in packed]) for H in range(2, E // 4 + 1) if E % H == 0}
    best, *others = sorted(tried, key=lambda H: -tried[H].z) or [None]
    if best is None or not tried[best].sure or tried[best].answer != ROWS["groups"]:
        return None
    return best if all(tried[best].z > LEAD * tried[H].z for H in others) else None


def counted_in_blocks(packed: list, outs: list) -> int | None:
    """The same of matrices with all queries first, then all keys, by their outputs as well."""
    if any(o is None or o.shape != (o.shape[0],) * 2 for o in outs) or packed[0].shape[1] < 16:
        return None
    best = heads_either_way([(*one.chunk(3), o) for one, o in zip(packed, outs, strict=True)])
    order = together([packing(one, best.answer) for one in packed])
    return best.answer if best.sure and order.sure and order.answer == ROWS["blocks qkv"] else None


def heads_either_way(layers: list) -> Verdict:
    """The number of heads of layers [(q, k, v, o)], with their outputs (out, in) or (in, out): the one that shows more."""
    either = [together([heads(q, k, v, o.T if turned else o) for q, k, v, o in layers]) for turned in (False, True)]
    return max(either, key=lambda found: max(found.evidence.values()))


def verdict(layer: Layer, state: dict, answer: str, H: int, turned: bool, out: str | None) -> list[str]:
    """Which reading that is, and a Layout to be pasted where the atlas has none, or none that says so."""
    order = next((order for order, rows in ROWS.items() if rows == answer), None)
    told = ["  queries and keys exchanged would give the same numbers: compare an output"]
    if order is None:
        return [OTHERWISE, f"  rows {answer}: those of W_q are [0::3], of W_k [1::3], of W_v [2::3], head after head", *told]
    for number, reading in enumerate(layer.readings, 1):
        o = reading.part(layer.names["o"]).axes if "o" in layer.names else None
        if reading.layout.order.__name__ == order and (out is None or o is None or o == AXES[out][1]):
            told.insert(0, f"  so it is {order}, reading {number} of {len(layer.readings)}")
            return told if reading.layouts else [*told, *own(layer, state, H, order, turned, out)]
    return [OTHERWISE, f"  so it is {order}, and no reading above", *told, *own(layer, state, H, order, turned, out)]


def own(layer: Layer, state: dict, H: int, order: str, turned: bool, out: str | None) -> list[str]:
    """Python: the layout of such names, with the biases beside them, and its use."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*layer.names.values(), strict=False))
    common = "".join(letters[0] for letters in alike)
    prefix = common[: max(common.rfind("."), common.rfind("/")) + 1]
    axes = {"qkv": "e (n d)" if turned else "(n d) e", "o": AXES[out or ("(in, out)" if turned else "(out, in)")][1]}
    parts = []
    for role, name in layer.names.items():
        parts.append((name.removeprefix(prefix), role, axes[role]))
        bias = bias_of(name)
        if bias != name and bias in state:
            parts.append((bias.removeprefix(prefix), role, "e" if role == "o" else "(n d)"))
    tensors = ",\n    ".join(f'"{name}": Part("{role}", "{given}")' for name, role, given in parts)
    kind = order.split()[0]
    made = "blocks()" if kind == "blocks" else kind  # the one makes an order, the other is one
    return [
        f"from atlas import Layout, Part, {kind}",
        "from convert import convert",
        f'mine = Layout("mine", "", {{\n    {tensors},\n}}, order={made})',
        f'made = convert(state, mine, "torch", num_heads={H})',
    ]
