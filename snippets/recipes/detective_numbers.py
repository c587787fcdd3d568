"""What the numbers of a file say where the detective finds several readings, or no number of heads.

    (layer,) = find({name: tensor.shape for name, tensor in state.items()})
    print(*numbers(layer, state), sep="\\n")  # by the numbers, number of heads: 12 (z 29.4)

Needs layout_trace.py and attention_layer.py beside it, and PyTorch.
"""

from dataclasses import replace

from attention_layer import Layer
from layout_trace import heads, orientation, packing, rotary, together

# the orders of atlas.py as layout_trace.py writes them: t which of the three, h the head, d the number in it
ROWS = {"blocks qkv": "(t h d)", "groups": "(h t d)"}
LEAD = 3  # how many times as sure a number of heads has to be as any other
OTHERWISE = "  the names say otherwise: packed in another order, then renamed? convert() takes a Layout of your own"


def numbers(layer: Layer, state: dict, num_heads: int | None = None) -> list[str]:
    """What the numbers of trained layers say, all that are alike together; layout_trace.py says how, and how often it is right."""
    H = num_heads or layer.num_heads
    every = [{role: state[name].float() for role, name in names.items()} for names in layer.alike]
    asked: dict[str, list] = {}
    told: list[str] = []
    width = min(next(iter(every[0].values())).shape[:2], default=0)
    if H and not 1 < H < width:
        return [f"  by the numbers: rows of {H} head(s) in a width of {width} have nothing to be compared with"]
    if H and width % H:
        return [f"  by the numbers: {H} heads do not fit a width of {width}"]
    if "qkv" in layer.names:
        packed = [one["qkv"] if len(one["qkv"]) == max(one["qkv"].shape) else one["qkv"].T for one in every]
        packed = [one for one in packed if len(one) == 3 * one.shape[1]]
        if packed and not H and (H := counted(packed)):
            told.append(f"  by the numbers, number of heads: {H}")
            layer = replace(layer, num_heads=H)
        if H:
            asked["order of its rows"] = [packing(one, H) for one in packed]
    elif {"q", "k", "v", "o"} <= set(layer.names) and all(one[role].dim() == 2 for one in every for role in "qkvo"):
        square = all(one["q"].shape == one["k"].shape == (len(one["q"]),) * 2 for one in every)
        if H and square:
            asked["orientation of q and k"] = [orientation(one["q"], one["k"], H) for one in every]
        if not H and square:
            asked["number of heads"] = [heads(*(one[role] for role in "qkvo")) for one in every]
        if H:
            asked["rotary pairs"] = [rotary(one["q"], one["k"], H) for one in every]
    for question, verdicts in asked.items():
        if verdicts:
            found = together(verdicts)
            told.append(f"  by the numbers, {question}: {found.answer if found.sure else 'cannot be told'} (z {found.z:.1f})")
            if question.startswith("order") and found.sure:
                told += verdict(layer, state, found.answer, H)
    return told


def counted(packed: list) -> int | None:
    """The number of heads of packed matrices [(3E, E)] which do not say it: one that is far surer than all others."""
    E = packed[0].shape[1]
    tried = {H: together([packing(one, H) for one in packed]) for H in range(2, E // 4 + 1) if E % H == 0}
    best, *others = sorted(tried, key=lambda H: -tried[H].z)
    far = all(tried[best].z > LEAD * tried[H].z for H in others)
    return best if tried[best].sure and tried[best].answer == ROWS["groups"] and far else None


def verdict(layer: Layer, state: dict, answer: str, H: int) -> list[str]:
    """Which reading that is, and a Layout to be pasted where none of the atlas has the names."""
    told = ["  queries and keys exchanged would give the same numbers: compare an output"]
    for number, reading in enumerate(layer.readings, 1):
        order = reading.layout.order.__name__
        if ROWS.get(order) != answer:
            continue
        told.insert(0, f"  so it is {order}, reading {number} of {len(layer.readings)}; biases are cut alike")
        if not reading.layouts:
            told += own(layer, reading, state, H)
        return told
    return [OTHERWISE, *told]


def own(layer: Layer, reading, state: dict, H: int) -> list[str]:
    """Lines of Python: the layout of such names, biases too, and its use."""
    parts = []
    for name, part in sorted(reading.layout.tensors.items()):
        short = name.removeprefix(layer.prefix)
        parts.append(f'"{short}": Part("{part.roles}", "{part.axes}")')
        if short.endswith("weight") and layer.prefix + (bias := f"{short[:-6]}bias") in state:
            axes = "e" if part.roles == "o" else part.axes.replace("e", "").strip()
            parts.append(f'"{bias}": Part("{part.roles}", "{axes}")')
    kind = reading.layout.order.__name__.split()[0]
    order = "blocks()" if kind == "blocks" else kind  # the one makes an order, the other is one
    return [
        f"    from atlas import Layout, Part, {kind}",
        f'    mine = Layout("mine", "", {{{", ".join(parts)}}}, order={order}, grouped=True)',
        f'    convert(state, mine, "torch", num_heads={H})',
    ]
