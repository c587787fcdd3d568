# --8<-- [start:setup]
import inspect
import math
import random
import textwrap
from itertools import combinations

import torch
import torch.nn.functional as F
from option_grid import (
    BOUNDS, OPTIONS, Cell, cells, compare, excluded, fast_path, index,
)  # fmt: skip
from paper_layout import paper_layout
from torch.overrides import TorchFunctionMode

torch.backends.mha.set_fastpath_enabled(True)
# --8<-- [end:setup]

# --8<-- [start:product]
for name, values in OPTIONS.items():
    line = f"{name:15} {len(values):2}  {', '.join(map(str, values))}"
    print(textwrap.fill(line, 66, subsequent_indent=" " * 20))
grid = cells()
left_out = [c for c in grid if excluded(c)]
print(f"{'cells':15} {len(grid)}, excluded {len(left_out)}")
# --8<-- [end:product]
compared = sum(not excluded(c) for c in grid)
assert len(set(grid)) == math.prod(map(len, OPTIONS.values()))  # guard: every_combination
assert compared + len(left_out) == len(grid)  # guard: compared_or_left_out
show("cells", f"{len(grid):,}")
show("excluded", len(left_out))
show("compared", f"{compared:,}")
show("options", len(OPTIONS))
for dtype, (of_values, of_gradients) in BOUNDS.items():
    show(f"bound_values_{dtype}", f"{of_values:.0e}")
    show(f"bound_gradients_{dtype}", f"{of_gradients:.0e}")

# --8<-- [start:sample]
def fours(cell):
    """What four options say together, each four of the cell's."""
    return set(combinations(zip(OPTIONS, cell, strict=True), 4))


fused = [c for c in grid if fast_path(c) and not excluded(c)]
chosen, met = [*fused], set().union(*map(fours, fused))
for cell in random.Random(0).sample(grid, 4000):
    if not excluded(cell) and not fours(cell) <= met:
        chosen.append(cell)
        met |= fours(cell)
lengths = map(len, OPTIONS.values())
assert len(met) == sum(map(math.prod, combinations(lengths, 4)))
chosen.sort(key=index)
print(f"chosen {len(chosen)}, of these on the fast path {len(fused)}")
# --8<-- [end:sample]
show("chosen", f"{len(chosen):,}")
assert {c for c in grid if fast_path(c)} - set(left_out) <= set(chosen)  # guard: all_of_the_fast_path
assert len(set(chosen)) == len(chosen)  # guard: each_cell_once

# --8<-- [start:run]
errors = {}
for cell in chosen:
    pairs = compare(cell, paper_layout)
    errors[cell] = []
    for pair, bound in zip(pairs, BOUNDS[cell.dtype], strict=True):
        if pair is not None:  # without grad there are no gradients
            torch.testing.assert_close(
                *pair, rtol=0, atol=bound, equal_nan=True
            )
            error = (pair[0] - pair[1]).abs().nan_to_num().max()
            errors[cell].append(error.item())
# --8<-- [end:run]

# --8<-- [start:table]
def greatest(group):
    """{(group of the cell, "values" or "gradients"): error}"""
    worst, kinds = {}, ("values", "gradients")
    for c, found in errors.items():
        for what, e in zip(kinds, found, strict=False):
            key = group(c), what
            worst[key] = max(e, worst.get(key, 0))
    return worst


def by_path(c):
    return f"{c.dtype} {'fast' if fast_path(c) else 'slow'} path"


for (group, what), error in sorted(greatest(by_path).items()):
    print(f"{group}, {what:9} {error:.0e}")
# --8<-- [end:table]
for (dtype, what), error in greatest(lambda c: c.dtype).items():
    show(f"{what}_{dtype}", f"{error:.0e}")
# log10 of the greatest error: a row for each mask, a column for each mode, gradients behind; then the fast path
by_mode, fast = greatest(lambda c: c[:3]), greatest(lambda c: (c.mask, c.dtype, fast_path(c)))
parts = [(mode, "values") for mode in OPTIONS["mode"]] + [(mode, "gradients") for mode in OPTIONS["mode"][:2]]
folded = {
    dtype: [[math.log10(by_mode[(mask, dtype, mode), what]) for mode, what in parts] for mask in OPTIONS["mask"]]
    for dtype in BOUNDS
}
fused_masks = [mask for mask in OPTIONS["mask"] if ((mask, "float32", True), "values") in fast]
folded["fast path"] = [[math.log10(fast[(mask, dtype, True), "values"]) for dtype in BOUNDS] for mask in fused_masks]
columns = ["∇ " * (what == "gradients") + mode.replace("eval ", "") for mode, what in parts]
for dtype, (of_values, of_gradients) in BOUNDS.items():
    found = [entry for row in folded[dtype] for entry in row]
    assert max(found) < math.log10(max(of_values, of_gradients))  # guard: below_the_bounds
    show(f"rounding_lowest_{dtype}", f"−{-math.floor(min(found))}")
    show(f"rounding_highest_{dtype}", f"−{-math.ceil(max(found))}")
figure(
    "errors",
    "matrix",
    {name: torch.tensor(rows) for name, rows in folded.items()},
    {
        "rows": {name: fused_masks if name == "fast path" else OPTIONS["mask"] for name in folded},
        "columns": {name: list(BOUNDS) if name == "fast path" else columns for name in folded},
        "groups": {dtype: [{"columns": [3, 5], "role": "x"}] for dtype in BOUNDS},
        "digits": 1,
        "rounding": True,
    },
)
# for the explorer: of each cell the step from the last one, and minus ten times log10 of its errors, two digits each
digits = "0123456789abcdefghijklmnopqrstuvwxyz"
code, last = "", 0
for cell in chosen:
    tenths = [min(1294, round(-10 * math.log10(e))) if e else 1294 for e in errors[cell]]
    for number in (index(cell) - last, *tenths, 1295)[:3]:
        code += digits[number // 36] + digits[number % 36]
    last = index(cell)
show("rounding_cells", code)
show("option_values", ";".join(f"{name}={'|'.join(map(str, values))}" for name, values in OPTIONS.items()))


# --8<-- [start:slow]
class slow_path:
    """A context in which PyTorch leaves its fused kernel aside."""

    def __enter__(self):
        torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *_):
        torch.backends.mha.set_fastpath_enabled(True)


for cell in left_out:
    slow, fast = compare(cell, slow_path)[0]
    assert not torch.allclose(slow, fast.nan_to_num(0)), (
        f"so it was in torch 2.13, this is {torch.__version__}"
    )
    with slow_path():  # now it is PyTorch's slow path that ours meets
        pair = compare(cell, paper_layout)[0]
    bound, _ = BOUNDS[cell.dtype]
    torch.testing.assert_close(*pair, rtol=0, atol=bound)
    nan, apart = fast.isnan().sum(), (slow - fast).nan_to_num().abs()
    print(f"{cell.mask:10} {cell.dtype}", end=", fast path: ")
    print(f"NaN {nan:2}, the rest {apart.max():.0e} apart")
# --8<-- [end:slow]

import contextlib
import warnings

from kernels import fused_calls
from option_grid import B, E, H, inputs, layer, masks, outcome, seed
from torch import nn

for cell in left_out:  # the one kind by the mask, the other by NaN
    fast = compare(cell, slow_path)[0][1]
    assert fast.isnan().any() == (cell.mask == "empty row")  # guard: nan_of_the_empty_row
assert {cell.need_weights for cell in left_out} == {"no"}  # guard: no_weights_asked_for


def kernels_of(call, grad=False):
    with torch.set_grad_enabled(grad), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # masks of two types, nested tensors
        return fused_calls(call).attention


def of_cell(c):
    mha, given, options = layer(c), inputs(c), masks(c)
    return kernels_of(lambda: mha(*given, need_weights=c.need_weights != "no", **options), c.mode != "eval no_grad")


for cell in [*random.Random(2).sample(chosen, 200), *fused, *left_out]:
    assert of_cell(cell) == fast_path(cell)  # guard: fast_path_is_counted
with slow_path():
    assert not any(map(of_cell, fused))  # guard: never_on_request
fresh = nn.MultiheadAttention(12, 2)
assert not torch.cat([fresh.in_proj_bias, fresh.out_proj.bias]).any()  # guard: biases_start_at_zero
# conditions that no cell touches
heads = {H: nn.MultiheadAttention(12, H, batch_first=True).eval() for H in (2, 3)}
x = torch.randn(2, 4, 12)


class subclass(torch.Tensor):
    pass


def self_attention(a, H=2, **options):
    return heads[H](a, a, a, **options)[0]


assert kernels_of(lambda: self_attention(x)) == 1  # guard: the_layer_is_fused
assert kernels_of(lambda: self_attention(x, 3)) == 0  # guard: odd_heads
assert kernels_of(lambda: self_attention(x.as_subclass(subclass))) == 0  # guard: a_subclass_of_tensor
on = {}
for device in ("cuda", "cpu"):
    torch.set_autocast_enabled(device, True)
    on[device] = kernels_of(lambda: self_attention(x))
    torch.set_autocast_enabled(device, False)
assert on == {"cuda": 0, "cpu": 1}  # guard: autocast
assert kernels_of(lambda: self_attention(x), grad=True) == 0  # guard: gradients_asked_for
heads[2].requires_grad_(False)
assert kernels_of(lambda: self_attention(x), grad=True) == 1  # guard: a_frozen_layer
# nested tensors: sample 0 is 3 long
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    nested = torch.nested.nested_tensor([x[0, :3], x[1]])
results = []
assert kernels_of(lambda: results.extend(self_attention(nested, need_weights=False).unbind())) == 1  # guard: nested_is_fused
torch.testing.assert_close(results[0], self_attention(x[:1, :3])[0])  # guard: nested_is_the_same
for context in (slow_path, paper_layout):
    try:
        with context():
            self_attention(nested, need_weights=False)  # guard: nested_on_the_slow_path
    except AssertionError as error:
        print(error)
    else:
        raise AssertionError("the slow path took a nested tensor")
static = {"static_k", "static_v"}
assert static <= set(inspect.signature(F.multi_head_attention_forward).parameters)  # guard: static_of_the_function
assert static.isdisjoint(inspect.signature(nn.MultiheadAttention.forward).parameters)  # guard: not_of_the_layer


# --8<-- [start:planted]
class planted(TorchFunctionMode):
    """A context in which PyTorch's own function makes a mistake."""

    def __init__(self, mistake):
        super().__init__()
        self.mistake = mistake

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.multi_head_attention_forward:
            return func(*args, **(kwargs or {}))
        given = inspect.signature(func).bind(*args, **(kwargs or {}))
        return self.mistake(func, given.arguments)
# --8<-- [end:planted]


# --8<-- [start:mistakes]
def key_bias_lost(f, a):
    b = a["in_proj_bias"]
    if b is not None:
        q, k, v = b.chunk(3)
        a["in_proj_bias"] = torch.cat([q, 0 * k, v])
    return f(**a)


def samples_and_heads_swapped(f, a):
    mask, H = a["attn_mask"], a["num_heads"]
    if mask is not None and mask.dim() == 3:
        a["attn_mask"] = mask.unflatten(0, (-1, H)).transpose(
            0, 1
        ).flatten(0, 1)
    return f(**a)
# --8<-- [end:mistakes]


# --8<-- [start:more_mistakes]
def extra_keys_swapped(f, a):
    output, weights = f(**a)
    both = a["bias_k"] is not None and a["add_zero_attn"]
    if both and weights is not None:
        weights = torch.cat(
            [weights[..., :-2], weights[..., -2:].flip(-1)], -1
        )
    return output, weights


def bias_not_trained(f, a):
    b = a["in_proj_bias"]
    a["in_proj_bias"] = b if b is None else b.detach()
    return f(**a)
# --8<-- [end:more_mistakes]


# --8<-- [start:notice]
def notices(cell, mistake):
    """Whether the cell goes out of bounds."""
    pairs = compare(cell, lambda: planted(mistake))
    return not all(
        torch.allclose(*pair, rtol=0, atol=bound, equal_nan=True)
        for pair, bound in zip(pairs, BOUNDS[cell.dtype], strict=True)
        if pair is not None
    )
# --8<-- [end:notice]


# --8<-- [start:visible]
def more_keys(c):  # seen by a softmax row beside the S keys
    hidden = "hint" in c.mask and c.need_weights == "no"
    return (c.add_bias_kv or c.add_zero_attn) and not hidden


visible = {
    key_bias_lost: lambda c: c.bias and more_keys(c),
    samples_and_heads_swapped: lambda c: "3-D" in c.mask and c.batched,
    extra_keys_swapped: lambda c: (
        c.add_bias_kv and c.add_zero_attn and c.need_weights != "no"
    ),
    bias_not_trained: lambda c: c.bias and c.mode != "eval no_grad",
}
# --8<-- [end:visible]

# --8<-- [start:noticed]
some = random.Random(1).sample(chosen, 300)
for mistake, expected in visible.items():
    seen = [notices(cell, mistake) for cell in some]
    assert seen == [expected(cell) for cell in some]
    print(f"{mistake.__name__:26} {sum(seen):3} of {len(some)} cells")
# --8<-- [end:noticed]

# --8<-- [start:answer]
usual = Cell(*(values[0] for values in OPTIONS.values()))
one_change = {usual} | {
    usual._replace(**{name: value})
    for name, values in OPTIONS.items()
    for value in values
}
found = {}
for mistake in visible:
    seen = [notices(cell, mistake) for cell in one_change]
    print(f"{mistake.__name__:26} {sum(seen):3} of {len(seen)} cells")
    found[mistake] = any(seen)
assert [m for m in visible if not found[m]] == [extra_keys_swapped]
# --8<-- [end:answer]


def ran(cell, mistake=None, order=None, key_bias=True):
    """Outputs and gradients of a cell: with a mistake planted, or with the slices of the mask, or a bias, changed by hand."""
    seed(index(cell))
    mha, given, options = layer(cell), inputs(cell), masks(cell)
    if order is not None:
        options["attn_mask"] = options["attn_mask"][order]
    if not key_bias:
        mha.in_proj_bias.data[E : 2 * E] = 0
    with planted(mistake) if mistake else contextlib.nullcontext():
        return outcome(cell, mha, given, options)


both = usual._replace(mode="eval grad", add_bias_kv=True, add_zero_attn=True, need_weights="heads")
(_, plain), _ = ran(both)
(_, swapped), _ = ran(both, extra_keys_swapped)
columns = [*range(plain.shape[-1] - 2), plain.shape[-1] - 1, plain.shape[-1] - 2]
torch.testing.assert_close(swapped, plain[..., columns])  # guard: the_last_two_columns_change_places
torch.testing.assert_close(ran(both, key_bias_lost)[0], ran(both, key_bias=False)[0])  # guard: the_key_bias_is_zero
by_sample = usual._replace(mode="eval grad", mask="bool 3-D")
by_head = [i % B * H + i // B for i in range(B * H)]  # slice i is of head i // B and sample i % B
torch.testing.assert_close(  # guard: the_mask_is_ordered_by_head
    ran(by_sample, samples_and_heads_swapped)[0], ran(by_sample, order=by_head)[0])
names = [name for name, _ in layer(usual).named_parameters()]
slopes, untrained = (dict(zip(names, ran(usual, m)[1][1:], strict=True)) for m in (None, bias_not_trained))
assert not untrained.pop("in_proj_bias").any()  # guard: the_input_biases_get_no_gradient
for name, slope in untrained.items():
    torch.testing.assert_close(slope, slopes[name])  # guard: and_nothing_else
