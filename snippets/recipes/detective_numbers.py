"""What the numbers of a file say where the detective finds several readings, or no number of heads.

    (layer,) = find({name: tensor.shape for name, tensor in state.items()})
    print(*numbers(layer, state), sep="\\n")  # by the numbers, number of heads: 12 (z 29.4)

Needs layout_trace.py and attention_layer.py beside it, and PyTorch.
"""

from attention_layer import Layer
from layout_trace import heads, orientation, packing, rotary, together

# the orders of atlas.py as layout_trace.py writes them: t which of the three, h the head, d the number in it
ROWS = {"blocks qkv": "(t h d)", "groups": "(h t d)"}


def numbers(layer: Layer, state: dict, num_heads: int | None = None) -> list[str]:
    """What the numbers of trained layers say, all that are alike together; layout_trace.py says how, and how often it is right."""
    H = num_heads or layer.num_heads
    every = [{role: state[name].float() for role, name in names.items()} for names in layer.alike]
    asked: dict[str, list] = {}
    if "qkv" in layer.names and H:
        packed = [one["qkv"] if len(one["qkv"]) == max(one["qkv"].shape) else one["qkv"].T for one in every]
        asked["order of its rows"] = [packing(one, H) for one in packed if len(one) == 3 * one.shape[1]]
    elif {"q", "k", "v", "o"} <= set(layer.names) and all(one[role].dim() == 2 for one in every for role in "qkvo"):
        square = all(one["q"].shape == one["k"].shape == (len(one["q"]),) * 2 for one in every)
        if H and square:
            asked["orientation of q and k"] = [orientation(one["q"], one["k"], H) for one in every]
        if not H and square:
            asked["number of heads"] = [heads(*(one[role] for role in "qkvo")) for one in every]
        if H:
            asked["rotary pairs"] = [rotary(one["q"], one["k"], H) for one in every]
    told = []
    for question, verdicts in asked.items():
        if verdicts:
            found = together(verdicts)
            told.append(f"  by the numbers, {question}: {found.answer if found.sure else 'cannot be told'} (z {found.z:.1f})")
            named = {ROWS.get(reading.layout.order.__name__) for reading in layer.readings}
            if question.startswith("order") and found.sure and found.answer not in named:
                told.append("  the names say otherwise: packed in another order, then renamed? convert() takes a Layout of your own")
    return told
