# --8<-- [start:setup]
import torch
from six_ways import WAYS, fast_path, loop, packed, sdpa
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
B, L, E, H = 2, 5, 24, 4


def layer(H):
    mha = nn.MultiheadAttention(
        E, H, batch_first=True, dtype=torch.float64
    )
    for parameter in mha.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mha.eval()
# --8<-- [end:setup]

# --8<-- [start:same]
mha = layer(H)
x = torch.randn(B, L, E, dtype=torch.float64, requires_grad=True)
leaves = [x, *mha.parameters()]
paper = loop(mha, x)
slopes = torch.autograd.grad(paper.square().sum(), leaves)
for way in WAYS:
    if way is not loop:
        output = way(mha, x)
        torch.testing.assert_close(output, paper)
        if way is not fast_path:  # it has no gradients
            found = torch.autograd.grad(output.square().sum(), leaves)
            for mine, theirs in zip(found, slopes, strict=True):
                torch.testing.assert_close(mine, theirs)
# --8<-- [end:same]


# --8<-- [start:counters]
class Operations(TorchDispatchMode):
    """Counts what Python asks PyTorch's kernels to do."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def counted(mode, way, mha, x):
    with torch.no_grad(), mode:
        way(mha, x)
    return mode


def multiply_adds(way, mha, x):
    counter = FlopCounterMode(display=False)  # counts 2 for each
    return counted(counter, way, mha, x).get_total_flops() // 2
# --8<-- [end:counters]

# --8<-- [start:counts]
projections, attention = 4 * B * L * E * E, 2 * B * L * L * E
print(f"projections {projections}, attention {attention}")
found, operations = {}, {}
for way in WAYS:
    found[way] = multiply_adds(way, mha, x)
    operations[way] = counted(Operations(), way, mha, x).count
    print(f"{way.__name__:12} multiply-adds {found[way]:6}", end="")
    print(f", operations {operations[way]:3}")
visible = [way for way in WAYS if way not in (sdpa, fast_path)]
for way in visible:
    assert found[way] == projections + attention
# --8<-- [end:counts]
show("operations_loop", operations[loop])
show("operations_sdpa", operations[sdpa])
assert operations[loop] == max(operations.values())  # guard: the_loop_issues_most
assert operations[sdpa] < min(operations[way] for way in visible)  # guard: sdpa_gets_by_with_fewer

# --8<-- [start:blind]
version = f"so it was in torch 2.13, this is {torch.__version__}"
assert found[sdpa] == projections, version
assert found[fast_path] == 0, version
# --8<-- [end:blind]
import inspect
import warnings

from kernels import fused_calls
from torch.utils.flop_counter import flop_registry

known = {str(kernel) for kernel in flop_registry}
assert "aten._scaled_dot_product_flash_attention" in known  # guard: the_kernel_of_gpus
assert "aten._scaled_dot_product_flash_attention_for_cpu" not in known  # guard: not_that_of_the_cpu
assert found[sdpa] < found[packed]  # guard: as_if_it_worked_less
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for way in (sdpa, fast_path):
        multiply_adds(way, mha, x)
assert told == []  # guard: nothing_warns

# --8<-- [start:heads]
calls = {}
for heads in (2, 3, 6, 12):
    other = layer(heads)
    calls[heads] = [counted(Operations(), f, other, x).count
                    for f in WAYS]
    for way in visible:
        assert multiply_adds(way, other, x) == found[way]
    print(f"H {heads:2}  operations {calls[heads]}")
# --8<-- [end:heads]
calls_of = dict(zip(WAYS, zip(*calls.values(), strict=True), strict=True))
grows = calls_of[loop]
assert sorted(set(grows)) == list(grows)  # guard: the_loop_needs_more
assert {way for way in WAYS if len(set(calls_of[way])) > 1} == {loop, fast_path}  # guard: the_others_do_not
with torch.no_grad():
    taken = {heads: fused_calls(lambda n=heads: fast_path(layer(n), x.detach())).attention for heads in calls}
assert taken == {2: 1, 3: 0, 6: 1, 12: 1}  # guard: an_odd_h_switches_it_off
without = counted(Operations(), lambda m, a: m(a, a, a, need_weights=False), layer(3), x).count
assert calls[3][WAYS.index(fast_path)] == without  # guard: it_asks_for_no_weights


# --8<-- [start:kept]
def kept(way, mha, x):
    """Bytes that autograd keeps for the way back, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in mha.parameters()}
    sizes = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        output = way(mha, x)  # alive until the sizes are added up
    return output.numel() and sum(sizes.values())
# --8<-- [end:kept]


# --8<-- [start:bytes]
lengths = [16, 32, 64, 128, 256]
memory = {way.__name__: [] for way in WAYS if way is not fast_path}
for length in lengths:
    tokens = torch.randn(B, length, E, dtype=x.dtype).requires_grad_()
    for way in WAYS:
        if way is not fast_path:
            memory[way.__name__].append(kept(way, mha, tokens))
for name, row in memory.items():
    print(f"{name:12} {row}  last/first {row[-1] / row[0]:.0f}")
# twice the length costs twice as much, and what grows with L * L
weights = B * H * lengths[-2] ** 2 * x.element_size()
copies = {name: (row[-1] - 2 * row[-2]) / (2 * weights)
          for name, row in memory.items()}
assert copies == {"loop": 2, "per_matrix": 1, "packed": 1,
                  "with_weights": 1, "sdpa": 0}
# --8<-- [end:bytes]
kib = {name: torch.tensor(row) / 1024 for name, row in memory.items()}
figure("kept", "curves", {"x": torch.tensor(lengths), **kib}, {"log": ["x", "y"]})
for name, row in memory.items():
    assert (kib[name] * 2**10).tolist() == row  # guard: kibibytes
assert [2 * a for a in memory["sdpa"][:-1]] == memory["sdpa"][1:]  # guard: in_proportion_to_the_length
for name in memory.keys() - {"sdpa"}:
    first, *_, before, last = memory[name]
    assert 3.5 < last / before < 4  # guard: towards_the_square
    assert memory[name][1] / first < last / before  # guard: turning
for i in range(len(lengths)):
    assert memory["loop"][i] == max(row[i] for row in memory.values())  # guard: the_loop_highest


def copies_of(way, layer):
    """How many times (B, L, L) numbers are kept for the way back."""
    row = [kept(way, layer, torch.zeros(B, n, E, dtype=x.dtype, requires_grad=True)) for n in (64, 128)]
    return (row[1] - 2 * row[0]) / (2 * B * 64**2 * x.element_size())


assert [copies_of(packed, layer(h)) for h in (1, 2, 4)] == [1, 2, 4]  # guard: memory_grows_with_the_heads
by_default = inspect.signature(nn.MultiheadAttention.forward).parameters["need_weights"].default
assert by_default is True  # guard: weights_are_asked_for_by_default
asked = {need: copies_of(lambda m, a, n=need: m(a, a, a, need_weights=n)[0], mha) for need in (True, False)}
assert asked == {True: H, False: 0}  # guard: weights_of_every_head

# --8<-- [start:answer]
wide = nn.MultiheadAttention(
    512, 8, batch_first=True, device="meta"
).eval()  # shapes without numbers
shares = {}
for length in (128, 1024, 2048, 4096):
    tokens = torch.empty(1, length, 512, device="meta")
    total = multiply_adds(packed, wide, tokens)
    shares[length] = 1 - 4 * length * 512**2 / total
    print(f"L {length:4}  attention {shares[length]:.0%}")
assert shares[2 * 512] == 1 / 2
# --8<-- [end:answer]
assert all((share < 1 / 2) == (length < 2 * 512) for length, share in shares.items() if length != 2 * 512)  # guard: up_to_there

# The times: measured once by `make bench-layouts`, on the machine that the file names.
import json
from pathlib import Path
from typing import NamedTuple

data = json.loads(Path(__file__).with_name("cost.json").read_text(encoding="utf-8"))
for name, value in data["machine"].items():
    show(name, value)


class Quartiles(NamedTuple):
    low: float
    median: float
    high: float


def of_way(ways, way, what="ratio"):
    """Of one way at one size: the time over that of with_weights in the same round, or the milliseconds."""
    return Quartiles(*ways[way][what])


def median(ways, way):
    return of_way(ways, way).median


NAMES = {"forward": "", "forward_backward": "_backward"}
for kind, suffix in NAMES.items():
    ways = data["reference"][kind]
    times = Quartiles(*torch.tensor([of_way(ways, way, "ms") for way in ways]).unbind(1))
    figure(
        f"ways{suffix}",
        "bars",
        {"median": times.median, "low": times.low, "high": times.high},
        {"categories": list(ways), "low": "low", "high": "high"},
    )
    for way in ways:
        show(f"{way}{suffix}", f"{median(ways, way):.2f}")
    for part, letter in (("heads", "H"), ("lengths", "L")):
        rows, curves, band = data[part][kind], {}, {}
        for way in rows[0]:
            if way != "with_weights":  # what the others are divided by
                low, middle, high = torch.tensor([of_way(row, way) for row in rows]).unbind(1)
                curves |= {way: middle, f"{way}_low": low, f"{way}_high": high}
                band[way] = [f"{way}_low", f"{way}_high"]
        figure(
            f"{part}{suffix}",
            "curves",
            {"x": torch.tensor(data[part][letter]), **curves},
            {"log": ["x", "y"], "band": band},
        )
for name, value in data["reference"]["sizes"].items():
    show(f"reference_{name}", value)
show("lengths_B", data["lengths"]["sizes"]["B"])
forward, heads, long = data["reference"]["forward"], data["heads"]["forward"], data["lengths"]["forward"]
back = {name: data[name]["forward_backward"] for name in ("reference", "heads", "lengths")}
show("most_heads", max(data["heads"]["H"]))
show("loop_most_heads", f"{median(heads[-1], 'loop'):.1f}")
show("shortest", min(data["lengths"]["L"]))
show("loop_shortest", f"{median(long[0], 'loop'):.1f}")
show("loop_shortest_backward", f"{median(back['lengths'][0], 'loop'):.1f}")
show("longest", max(data["lengths"]["L"]))
show("sdpa_longest", f"{median(long[-1], 'sdpa'):.2f}")
show("loop_low", f"{of_way(forward, 'loop').low:.2f}")
show("loop_high", f"{of_way(forward, 'loop').high:.2f}")
# what the sentences say of the times
for part, letter in (("heads", "H"), ("lengths", "L")):
    assert data[part][letter] == sorted(data[part][letter])  # guard: sizes_in_order
    assert all(len(data[part][kind]) == len(data[part][letter]) for kind in NAMES)  # guard: a_row_for_each_size
everything = [forward, *heads, *long, back["reference"], *back["heads"], *back["lengths"]]
for ways in everything:
    for way in ways:
        for what in ("ms", "ratio"):
            assert ways[way][what] == sorted(ways[way][what])  # guard: quartiles_in_order
            assert min(ways[way][what]) <= of_way(ways, way, what).median <= max(ways[way][what])  # guard: median_between
        close = of_way(ways, way, "ms").median / of_way(ways, "with_weights", "ms").median / median(ways, way)
        assert 0.9 < close < 1.1  # guard: ratios_are_of_the_times
for ways in (forward, back["reference"]):
    times = {way: of_way(ways, way, "ms").median for way in ways}
    assert max(times, key=times.get) == "loop"  # guard: the_loop_takes_longest
    one, three = of_way(ways, "packed"), of_way(ways, "per_matrix")
    assert max(one.low, three.low) < min(one.high, three.high)  # guard: three_products_or_one
    assert 1 < median(ways, "loop") < 4  # guard: the_aim
    assert of_way(ways, "loop").low > max(one.high, three.high)  # guard: the_loop_costs_time
times = {way: of_way(forward, way, "ms").median for way in forward}
at_once = [times[way] for way in ("per_matrix", "packed", "with_weights")]
assert max(at_once) < 1.1 * min(at_once)  # guard: close_together
assert max(times["sdpa"], times["fast_path"]) < min(at_once)  # guard: least_time
for rows in (heads, back["heads"]):
    assert median(rows[-1], "loop") > 1.5 * median(rows[0], "loop")  # guard: more_heads_more_time
    assert median(rows[-1], "loop") > 1.5  # guard: well_above_1
    assert median(rows[-1], "sdpa") < 0.7  # guard: well_below_1
    assert median(rows[-1], "sdpa") == min(median(row, "sdpa") for row in rows)  # guard: the_fused_one_falls
for rows in (long, back["lengths"]):
    assert max(rows, key=lambda row: median(row, "loop")) is rows[0]  # guard: furthest_for_few_tokens
    assert median(rows[-1], "sdpa") < 0.75  # guard: the_fused_one_for_many_tokens
    assert median(rows[-1], "sdpa") == min(median(row, "sdpa") for row in rows)  # guard: cheapest_for_many_tokens
assert median(back["lengths"][0], "loop") > 1.5 * median(long[0], "loop")  # guard: even_more_with_the_backward_pass
assert data["machine"]["threads"] == 1  # guard: one_thread
