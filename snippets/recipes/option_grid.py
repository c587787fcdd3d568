"""Every option of nn.MultiheadAttention with every other: the cells of the product, and what two functions do in one.

    grid = cells()                            # nearly thirty thousand
    values, gradients = compare(grid[0], paper_layout)

Needs PyTorch 2.13 alone; a cell is run twice, plainly and inside the context that you give. Letters: B samples,
L queries, S keys, E embed_dim, H heads. Nothing has a unit.
"""

import itertools
import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

B, L, S, E, H, KDIM, VDIM = 3, 4, 5, 12, 2, 9, 11

# --8<-- [start:options]
OPTIONS = {
    "mask": (
        "none", "bool 2-D", "float 2-D", "bool 3-D", "float 3-D",
        "bool padding", "float padding", "bool both", "float both",
        "mixed both", "causal hint", "wrong hint", "empty row",
    ),
    "dtype": ("float32", "float64"),
    "mode": ("train", "eval grad", "eval no_grad"),
    "bias": (True, False),
    "add_bias_kv": (False, True),
    "add_zero_attn": (False, True),
    "kdim_vdim": (False, True),
    "batch_first": (False, True),
    "batched": (True, False),
    "self_attention": (True, False),  # L = S, or L < S
    "need_weights": ("mean", "heads", "no"),
}  # fmt: skip
FIELDS = [(name, type(values[0])) for name, values in OPTIONS.items()]
Cell = NamedTuple("Cell", FIELDS)
# --8<-- [end:options]
BOUNDS = {"float32": (2e-5, 1e-4), "float64": (1e-12, 1e-10)}  # outputs and attention weights, gradients


# --8<-- [start:excluded]
def fast_path(c: Cell) -> bool:
    """Whether nn.MultiheadAttention takes its fused kernel."""
    plain = c.bias and not (c.add_bias_kv or c.add_zero_attn)
    layout = c.batch_first and c.batched and not c.kdim_vdim
    floats = c.mask.startswith(("float", "mixed"))
    still = c.mode == "eval no_grad" and c.self_attention
    return plain and layout and still and not floats


def excluded(c: Cell) -> bool:
    """Whether PyTorch's own two paths disagree in this cell."""
    odd = c.mask in ("wrong hint", "empty row")
    return fast_path(c) and odd and c.need_weights == "no"
# --8<-- [end:excluded]


def cells() -> list[Cell]:
    """The whole product, the last option running fastest; excluded cells are in it."""
    return list(itertools.starmap(Cell, itertools.product(*OPTIONS.values())))


def index(cell: Cell) -> int:
    """The cell's place in `cells()`: also the seed that it is drawn with."""
    place = 0
    for value, values in zip(cell, OPTIONS.values(), strict=True):
        place = place * len(values) + values.index(value)
    return place


# --8<-- [start:layer]
def layer(c: Cell) -> nn.MultiheadAttention:
    """A layer with the cell's options, all parameters N(0, 0.5²)."""
    widths = {"kdim": KDIM, "vdim": VDIM} if c.kdim_vdim else {}
    made = nn.MultiheadAttention(
        E, H, dropout=0.25, bias=c.bias, add_bias_kv=c.add_bias_kv,
        add_zero_attn=c.add_zero_attn, batch_first=c.batch_first,
        dtype=getattr(torch, c.dtype), **widths,
    ).train(c.mode == "train")  # fmt: skip
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made
# --8<-- [end:layer]


def inputs(c: Cell) -> list[Tensor]:
    """Query, key, value; one and the same tensor in self-attention, unless kdim and vdim forbid it."""

    def draw(length, width):
        shape = (B, length, width) if c.batch_first else (length, B, width)
        shape = shape if c.batched else (length, width)
        return torch.randn(shape, dtype=getattr(torch, c.dtype), requires_grad=c.mode != "eval no_grad")

    if c.self_attention and not c.kdim_vdim:
        return [draw(L, E)] * 3
    keys = L if c.self_attention else S
    return [draw(L, E), draw(keys, KDIM if c.kdim_vdim else E), draw(keys, VDIM if c.kdim_vdim else E)]


def masks(c: Cell) -> dict[str, Tensor | bool]:
    """The masks of the cell, drawn at random, as arguments of forward; every row keeps a key, except in "empty row"."""
    if c.mask == "none":
        return {}
    dtype, keys, samples = getattr(torch, c.dtype), L if c.self_attention else S, B if c.batched else 1
    rows = (samples * H, L, keys) if "3-D" in c.mask else (L, keys)
    hidden, padded = torch.rand(rows) < 0.4, torch.rand((samples, keys) if c.batched else (keys,)) < 0.4
    hidden[..., 0] = padded[..., 0] = False
    if c.mask == "causal hint":
        hidden = torch.ones(rows, dtype=torch.bool).triu(1)
    if c.mask == "empty row":
        hidden[1] = True

    def added(mask):
        return torch.randn(mask.shape, dtype=dtype).masked_fill(mask, -math.inf)

    first, _, place = c.mask.partition(" ")
    found = {}
    if place != "padding":
        found["attn_mask"] = added(hidden) if first == "float" else hidden
    if place in ("padding", "both"):
        found["key_padding_mask"] = padded if first == "bool" else added(padded)
    return found | ({"is_causal": True} if place == "hint" else {})


# torch.manual_seed seeds every device, which takes as long as a cell
seed = torch.default_generator.manual_seed


# --8<-- [start:outcome]
def outcome(c: Cell, mha, given: list, options: dict):
    """What a call returns, and its gradients: two lists of tensors."""
    seed(index(c))  # of the dropout
    options = options | {
        "need_weights": c.need_weights != "no",
        "average_attn_weights": c.need_weights == "mean",
    }
    with torch.set_grad_enabled(c.mode != "eval no_grad"):
        output, weights = mha(*given, **options)
    results = [output] if weights is None else [output, weights]
    if c.mode == "eval no_grad":
        return results, []
    total = sum((x * torch.rand_like(x)).sum() for x in results)
    leaves = [*dict.fromkeys(given), *mha.parameters()]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    pairs = zip(found, leaves, strict=True)
    return results, [
        torch.zeros_like(x) if g is None else g for g, x in pairs
    ]
# --8<-- [end:outcome]


# --8<-- [start:compare]
def scaled(tensors: list[Tensor], reference: list[Tensor]) -> Tensor:
    """One vector, each tensor divided by its reference's largest."""
    sizes = (x.detach().abs().nan_to_num().max() for x in reference)
    pairs = zip(tensors, sizes, strict=True)
    flat = [x.detach().flatten() / m.clamp(min=1) for x, m in pairs]
    return torch.cat(flat)


def compare(c: Cell, context):
    """The cell in `context()` and plainly: two pairs of vectors.

    The pair of outputs and attention weights, then that of gradients,
    which is None where there are none. Raises what the call raises.
    """
    seed(index(c))
    mha, given, options = layer(c), inputs(c), masks(c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two mask types
        with context():
            mine = outcome(c, mha, given, options)
        theirs = outcome(c, mha, given, options)
    same = [[x.shape for x in side[0]] for side in (mine, theirs)]
    if same[0] != same[1]:
        raise ValueError(f"{c}: shapes {same[0]}, expected {same[1]}")
    pairs = [
        [scaled(m, t), scaled(t, t)] if t else None
        for m, t in zip(mine, theirs, strict=True)
    ]
    return pairs[0], pairs[1]
# --8<-- [end:compare]
